"""Letters of matplotlib's bundled typefaces as pictures of 28 x 28 pixels, drawn by Pillow's FreeType.

Free of torch and numpy, so that processes that draw side by side start in moments.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageFont

from lsgm import workers
from lsgm.discovery import import_matplotlib
from lsgm.files.write import cache_dir

SIDE, OVERSAMPLING, MARGIN = 28, 8, 3
"""Pixels of an image, rendered pixels per pixel and side, pixels left free on every side."""
REFERENCE_SIZE, LARGEST_SIZE = 128, 640
"""Font size at which a glyph is measured, and the largest at which it is drawn (a dot stays a dot)."""

FACES: dict[str, tuple[str, str]] = {
    "DejaVuSans": ("sans", "regular"),
    "DejaVuSans-Bold": ("sans", "bold"),
    "DejaVuSans-Oblique": ("sans", "italic"),
    "DejaVuSans-BoldOblique": ("sans", "bold italic"),
    "DejaVuSansMono": ("mono", "regular"),
    "DejaVuSansMono-Bold": ("mono", "bold"),
    "DejaVuSansMono-Oblique": ("mono", "italic"),
    "DejaVuSansMono-BoldOblique": ("mono", "bold italic"),
    "DejaVuSerif": ("serif", "regular"),
    "DejaVuSerif-Bold": ("serif", "bold"),
    "DejaVuSerif-Italic": ("serif", "italic"),
    "DejaVuSerif-BoldItalic": ("serif", "bold italic"),
    "STIXGeneral": ("stix", "regular"),
    "STIXGeneralBol": ("stix", "bold"),
    "STIXGeneralItalic": ("stix", "italic"),
    "STIXGeneralBolIta": ("stix", "bold italic"),
}
"""Font file -> (typeface, style); obliques count as italics."""

_SPAN = (SIDE - 2 * MARGIN) * OVERSAMPLING
_CANVAS = SIDE * OVERSAMPLING
MOST_PROCESSES = 8


@dataclass(frozen=True)
class Face:
    """A font file and the letters it covers."""

    name: str
    path: Path
    letters: tuple[int, ...]

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """Return the font at a size, laid out by Pillow alone: no shaping library changes the picture."""
        return _opened(self.path, size)


@lru_cache(maxsize=256)
def _opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def installed_faces() -> list[Face]:
    """Return the sixteen faces of the matplotlib that is installed.

    With the letters (general category L*) that each maps to a real glyph.
    """
    folder = Path(import_matplotlib().get_data_path()) / "fonts" / "ttf"
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped,unused-ignore]

    faces = []
    for name in FACES:
        with TTFont(folder / f"{name}.ttf", lazy=True) as font:
            cmap: dict[int, str] = font.getBestCmap()
        letters = (
            c for c, glyph in cmap.items() if unicodedata.category(chr(c))[0] == "L" and glyph != ".notdef"
        )
        faces.append(Face(name, folder / f"{name}.ttf", tuple(sorted(letters))))
    return faces


def draw(face: Face, codepoint: int) -> bytes | None:
    """Return a letter's image, 28 rows of 28 bytes, or None where the glyph has no ink.

    The letter is drawn at eight times the final resolution, at the font size at which its longer side spans
    22 pixels, its ink centred; the mean over each 8 x 8 block is a pixel.
    """
    # The font's own box also spans the origin and the advance; only the picture knows where the ink is.
    measured = face.at(REFERENCE_SIZE).getmask(chr(codepoint), "L").getbbox()
    if measured is None:
        return None
    left, top, right, bottom = measured
    size = min(LARGEST_SIZE, REFERENCE_SIZE * _SPAN // max(right - left, bottom - top))
    picture = face.at(size).getmask(chr(codepoint), "L")
    box = picture.getbbox()
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    left, top = (_CANVAS - width) // 2, (_CANVAS - height) // 2
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    canvas.im.paste(picture.crop(box), (left, top, left + width, top + height))
    return canvas.reduce(OVERSAMPLING).tobytes()


def draw_face(face: Face) -> list[bytes | None]:
    """Return what `draw` makes of every letter of a face."""
    return [draw(face, codepoint) for codepoint in face.letters]


class _Drawing:
    """Faces that are being drawn, the largest ones first, by processes where there are several."""

    def __init__(self, faces: Sequence[Face], processes: int | None) -> None:
        self.faces = list(faces)
        count = min(workers.cores(), MOST_PROCESSES, len(faces)) if processes is None else processes
        self.order = sorted(range(len(faces)), key=lambda place: -len(faces[place].letters))
        calls = [(self.faces[place],) for place in self.order]
        self._team = workers.Workers(f"{__name__}:{draw_face.__name__}", count) if count > 1 else None
        self._begun = [self._team.submit(*call) for call in calls] if self._team else []

    def results(self) -> Iterator[tuple[int, list[bytes | None]]]:
        """Yield the number of each face and its letters."""
        if self._team is None:
            yield from ((place, draw_face(self.faces[place])) for place in self.order)
            return
        for place, begun in zip(self.order, self._begun, strict=True):
            yield place, begun.result()
        self._team.close()


_under_way: list[_Drawing] = []


def begin() -> None:
    """Have every letter drawn by processes from now on, unless a set of them lies in the cache.

    Whoever is about to import torch has them drawn meanwhile; `draw_letters` of all faces takes them.
    """
    kept = any((cache_dir() / "derived").glob("glyphs-*.safetensors"))
    if not kept and workers.cores() > 1 and not _under_way:
        _under_way.append(_Drawing(installed_faces(), None))


def draw_letters(
    faces: Sequence[Face], done: Callable[[int], object] = lambda count: None, *, processes: int | None = None
) -> list[list[bytes | None]]:
    """Return `draw_face` of each face; ``done`` is told after each of how many letters it has.

    As many processes as there are cores, unless told how many, draw a face each.
    """
    drawing = _under_way.pop() if _under_way and processes is None else None
    if drawing is None or drawing.faces != list(faces):
        drawing = _Drawing(faces, processes)
    found: dict[int, list[bytes | None]] = {}
    for place, letters in drawing.results():
        found[place] = letters
        done(len(letters))
    return [found[place] for place in range(len(faces))]
