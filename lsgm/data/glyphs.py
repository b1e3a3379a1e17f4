"""`glyphs`: every letter of matplotlib's bundled typefaces, rendered here, so that no download is needed."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lsgm.data.cache import cached_set
from lsgm.data.dataset import Dataset
from lsgm.data.images import ImageSet, sha256_of
from lsgm.discovery import import_matplotlib
from lsgm.progress import bar

SIDE, OVERSAMPLING, MARGIN = 28, 8, 3
"""Pixels of an image, rendered pixels per pixel and side, pixels left free on every side."""
REFERENCE_SIZE, LARGEST_SIZE = 128, 640
"""Font size at which a glyph is measured, and the largest at which it is drawn (a dot stays a dot)."""
RARE = 150
"""Scripts with fewer images than this share the class ``other``."""

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
TYPEFACES = ("sans", "mono", "serif", "stix")
STYLES = ("regular", "bold", "italic", "bold italic")


@dataclass(frozen=True)
class Glyph:
    """One letter in one typeface: uint8 ``[28, 28]``, ink 255 on 0."""

    codepoint: int
    face: str
    pixels: NDArray[np.uint8]


@dataclass
class Face:
    """A font file, the letters it covers, and the sizes at which it has been opened."""

    name: str
    path: Path
    letters: tuple[int, ...]
    _sizes: dict[int, ImageFont.FreeTypeFont] = field(default_factory=dict)

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """Return the font at a size, laid out by Pillow alone: no shaping library changes the picture."""
        if size not in self._sizes:
            self._sizes[size] = ImageFont.truetype(self.path, size, layout_engine=ImageFont.Layout.BASIC)
        return self._sizes[size]


def load_faces() -> list[Face]:
    """Return the sixteen faces with the letters (general category L*) that each maps to a real glyph."""
    matplotlib = import_matplotlib()
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped,unused-ignore]

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = []
    for name in FACES:
        with TTFont(folder / f"{name}.ttf", lazy=True) as font:
            cmap: dict[int, str] = font.getBestCmap()
        letters = (
            c for c, glyph in cmap.items() if unicodedata.category(chr(c))[0] == "L" and glyph != ".notdef"
        )
        faces.append(Face(name, folder / f"{name}.ttf", tuple(sorted(letters))))
    return faces


def draw_ink(font: ImageFont.FreeTypeFont, text: str) -> Image.Image | None:
    """Return a letter cropped to its ink, or None where it has none."""
    # The font's own box also spans the origin and the advance; only the picture knows where the ink is.
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    image = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(image).text((-left, -top), text, font=font, fill=255)
    box = image.getbbox()
    return image.crop(box) if box else None


def render(face: Face, codepoint: int) -> NDArray[np.uint8] | None:
    """Return a letter's image, uint8 ``[28, 28]``, or None where the glyph has no ink.

    The letter is drawn at eight times the final resolution, at the font size at which its longer side spans
    22 pixels, its ink centred; the mean over each 8 x 8 block is a pixel.
    """
    measured = draw_ink(face.at(REFERENCE_SIZE), chr(codepoint))
    if measured is None:
        return None
    span = (SIDE - 2 * MARGIN) * OVERSAMPLING
    ink = draw_ink(face.at(min(LARGEST_SIZE, REFERENCE_SIZE * span // max(measured.size))), chr(codepoint))
    if ink is None:
        return None
    canvas = Image.new("L", (SIDE * OVERSAMPLING,) * 2)
    canvas.paste(ink, ((canvas.width - ink.width) // 2, (canvas.height - ink.height) // 2))
    return np.asarray(canvas.reduce(OVERSAMPLING), dtype=np.uint8)


def render_face(face: Face, letters: Sequence[int] | None = None) -> list[Glyph]:
    """Return the glyphs of a face with ink, in order of code point; ``letters`` restricts them."""
    wanted = face.letters if letters is None else sorted(set(letters) & set(face.letters))
    drawn = ((codepoint, render(face, codepoint)) for codepoint in wanted)
    return [Glyph(codepoint, face.name, pixels) for codepoint, pixels in drawn if pixels is not None]


def split_of(codepoint: int) -> str:
    """Return ``train`` (80 %), ``val`` (5 %) or ``test`` (15 %) by a hash of the code point alone."""
    digest = hashlib.sha256(f"glyphs/{codepoint:x}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.80 else "val" if share < 0.85 else "test"


def script_of(codepoint: int) -> str:
    """Return the first word of the character's Unicode name: LATIN, CYRILLIC, ARABIC, ..."""
    return unicodedata.name(chr(codepoint), "OTHER").split()[0].lower()


def drop_duplicates(glyphs: Sequence[Glyph]) -> list[Glyph]:
    """Return the glyphs without exact repetitions of an earlier picture (Latin A, Greek Alpha)."""
    first: dict[bytes, Glyph] = {}
    for glyph in glyphs:
        first.setdefault(glyph.pixels.tobytes(), glyph)
    return list(first.values())


def assemble(glyphs: Sequence[Glyph]) -> ImageSet:
    """Return the image set of glyphs: sorted by code point and face, duplicates dropped, split, labelled."""
    faces = list(FACES)
    kept = drop_duplicates(sorted(glyphs, key=lambda glyph: (glyph.codepoint, faces.index(glyph.face))))
    counts = Counter(script_of(glyph.codepoint) for glyph in kept)
    scripts = (
        *sorted(script for script, count in counts.items() if count >= RARE and script != "other"),
        "other",
    )
    parts = {name: [g for g in kept if split_of(g.codepoint) == name] for name in ("train", "val", "test")}
    empty = np.zeros((0, SIDE, SIDE), np.uint8)
    splits = {
        name: torch.from_numpy(np.stack([g.pixels for g in part]) if part else empty)[:, None]
        for name, part in parts.items()
    }
    labels = {}
    for name, part in parts.items():
        values = [script_of(g.codepoint) for g in part]
        rows = {
            "script": [scripts.index(s) if s in scripts else len(scripts) - 1 for s in values],
            "style": [STYLES.index(FACES[g.face][1]) for g in part],
            "typeface": [TYPEFACES.index(FACES[g.face][0]) for g in part],
            "codepoint": [g.codepoint for g in part],
        }
        labels[name] = {label: torch.tensor(column, dtype=torch.int64) for label, column in rows.items()}
    sha256 = sha256_of(splits.values())
    classes = {"script": scripts, "style": STYLES, "typeface": TYPEFACES}
    return ImageSet("glyphs", f"1+{sha256[:12]}", sha256, "binary", splits, labels, classes)


def build() -> ImageSet:
    """Return the whole set, freshly rendered: about 27,000 images in about ten seconds on one core."""
    faces = load_faces()
    glyphs = [
        glyph for face in bar(faces, desc="rendering glyphs", unit="face") for glyph in render_face(face)
    ]
    return assemble(glyphs)


def cache_key() -> str:
    """Return the name of the cached set: fonts, FreeType, Pillow and this renderer decide the pixels."""
    matplotlib = import_matplotlib()
    from PIL import __version__, features

    versions = matplotlib.__version__, __version__, features.version("freetype2"), unicodedata.unidata_version
    constants = (SIDE, OVERSAMPLING, MARGIN, REFERENCE_SIZE, LARGEST_SIZE, RARE)
    digest = hashlib.sha256("/".join(map(str, (*versions, *constants))).encode()).hexdigest()
    return f"glyphs-1-{digest[:16]}"


def read_glyphs(search: list[Path]) -> ImageSet:
    """Return the set, rendered at the first call and cached; there are no files to look for."""
    return cached_set(cache_key(), build)


GLYPHS = Dataset(
    "glyphs",
    "letters of matplotlib's typefaces, rendered here; no download",
    "binary",
    (1, 28, 28),
    read_glyphs,
    bundled=True,
    carved=False,
)
