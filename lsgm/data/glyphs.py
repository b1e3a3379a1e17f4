"""`glyphs`: every letter of matplotlib's bundled typefaces, rendered here, so that no download is needed."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lsgm.data.cache import cached_set
from lsgm.data.dataset import Dataset
from lsgm.data.images import ImageSet, sha256_of
from lsgm.discovery import import_matplotlib
from lsgm.progress import bar
from lsgm.typefaces import (
    FACES,
    LARGEST_SIZE,
    MARGIN,
    OVERSAMPLING,
    REFERENCE_SIZE,
    SIDE,
    Face,
    draw_letters,
    installed_faces,
)

RARE = 150
"""Scripts with fewer images than this share the class ``other``."""
TYPEFACES = ("sans", "mono", "serif", "stix")
STYLES = ("regular", "bold", "italic", "bold italic")


@dataclass(frozen=True)
class Glyph:
    """One letter in one typeface: uint8 ``[28, 28]``, ink 255 on 0."""

    codepoint: int
    face: str
    pixels: NDArray[np.uint8]


def render_faces(faces: Sequence[Face], *, processes: int | None = None) -> list[Glyph]:
    """Return the glyphs with ink, face by face in order of code point; ``processes`` as `draw_letters`."""
    with bar(
        total=sum(len(face.letters) for face in faces), desc="rendering glyphs", unit="glyph"
    ) as progress:
        drawn = draw_letters(faces, progress.update, processes=processes)
    return [
        Glyph(codepoint, face.name, np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE))
        for face, pictures in zip(faces, drawn, strict=True)
        for codepoint, pixels in zip(face.letters, pictures, strict=True)
        if pixels is not None
    ]


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
    """Return the whole set, freshly rendered: about 27,000 images in about four seconds of one core."""
    return assemble(render_faces(installed_faces()))


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
