"""Pictures within the page: drawings as they are, images as data, and what is read out in their place."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lsgm.errors import DataError
from lsgm.files.limits import PICTURES
from lsgm.files.regular import read_bytes
from lsgm.files.shown import shown
from lsgm.files.text import read_text
from lsgm_reports.blocks import Picture
from lsgm_reports.html.markup import tag, words
from lsgm_reports.html.svg import inline_svg

__all__ = ["Gallery"]

_INCH = 72
_NARROWEST = 68
"""CSS pixels per inch of a drawing below which its words are too small: then it scrolls within its box."""
_SMALL = 200
"""Width of an image in pixels up to which it is shown larger, pixel by pixel."""
_SHEET = 600
_WIDEST = 2**15
"""Pixels of a side that browsers show."""


class Gallery:
    """Renders the pictures of one page; ``rows`` says of the id of a row what a point in a figure shows."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = rows
        self._numbers = count(1)
        self._size = 0
        """Bytes of the images so far."""

    def together(self, pictures: Sequence[Picture]) -> str:
        """Return pictures side by side where there is room.

        Raises DataError naming a file that is none, and where all of the page's are more than one may hold.
        """
        figures = "".join(self._figure(picture) for picture in pictures)
        return tag("div", figures, cls="gallery") if len(pictures) > 1 else figures

    def _figure(self, picture: Picture) -> str:
        drawing = picture.file.with_suffix(".svg")
        inner = self._drawing(drawing, picture) if picture.drawn and drawing.is_file() else ""
        kind = "drawing"
        if not inner:
            inner, kind = self._images(picture)
        return tag("figure", inner + tag("figcaption", f"{words(picture.caption)}."), cls=kind)

    def _drawing(self, file: Path, picture: Picture) -> str:
        """Return a drawing in a box that scrolls, or "" where the file is none and the image must do."""
        try:
            text = read_text(file)
            svg = inline_svg(text, f"d{next(self._numbers)}-", picture.caption, self._rows)
        except (DataError, ValueError):
            return ""
        width = float(svg.partition('viewBox="')[2].split()[2])
        style = f"min-width:{round(width / _INCH * _NARROWEST)}px"
        return _box(tag("div", svg, style=style), picture.caption)

    def _images(self, picture: Picture) -> tuple[str, str]:
        """Return the image of a picture, or those of both themes, and of what kind it is."""
        images: list[tuple[_Image, str | None]] = [(self._read(picture.file), None)]
        if picture.dark is not None:
            images = [(images[0][0], "on-light"), (self._read(picture.dark), "on-dark")]
        inner = "".join(image.html(picture.caption, theme) for image, theme in images)
        if images[0][0].is_sheet:
            return _box(inner, picture.caption), "sheet"
        return inner, "image"

    def _read(self, file: Path) -> _Image:
        content = read_bytes(file, PICTURES)
        self._size += len(content)
        PICTURES.hold(f"the page, with {shown(str(file))},", self._size)
        if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 33:
            raise DataError(f"{shown(str(file))} is no PNG image; make it again, or remove it")
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
        if not (0 < width <= _WIDEST and 0 < height <= _WIDEST):
            raise DataError(
                f"{shown(str(file))} claims {width:,} by {height:,} pixels; make it again, or remove it"
            )
        return _Image(content, width, height)


def _box(inner: str, label: str) -> str:
    return tag("div", inner, cls="scroll", tabindex=0, role="region", aria_label=label)


@dataclass(frozen=True)
class _Image:
    """A PNG file: its bytes, and pixels across and down."""

    content: bytes
    width: int
    height: int

    @property
    def is_sheet(self) -> bool:
        """Whether it is large and wide, as a sheet of images with words is: it needs the whole width."""
        return self.width > _SHEET and self.width > 1.3 * self.height

    def html(self, caption: str, theme: str | None) -> str:
        """Return the element, of a theme's class or of both themes."""
        data = base64.b64encode(self.content).decode()
        names = " ".join(name for name in (theme, "pixels" if self.width <= _SMALL else None) if name)
        sizes = f'width="{self.width}" height="{self.height}"'
        classes = f' class="{names}"' if names else ""
        return f'<img src="data:image/png;base64,{data}" alt="{words(caption)}" {sizes}{classes}>'
