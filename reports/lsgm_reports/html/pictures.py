"""Pictures within the page: drawings as they are, images as data, and what is read out in their place."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lsgm.errors import DataError
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


class Gallery:
    """Renders the pictures of one page; ``rows`` says of the id of a row what a point in a figure shows."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = rows
        self._numbers = count(1)

    def together(self, pictures: Sequence[Picture]) -> str:
        """Return pictures side by side where there is room. Raises DataError naming a file that is none."""
        figures = "".join(self._figure(picture) for picture in pictures)
        return tag("div", figures, cls="gallery") if len(pictures) > 1 else figures

    def _figure(self, picture: Picture) -> str:
        drawing = picture.file.with_suffix(".svg")
        inner, kind = self._drawing(drawing, picture) if drawing.is_file() else "", "drawing"
        if not inner:
            inner, kind = _shown(picture)
        return tag("figure", inner + tag("figcaption", f"{words(picture.caption)}."), cls=kind)

    def _drawing(self, file: Path, picture: Picture) -> str:
        """Return a drawing in a box that scrolls, or "" where the file is none and the image must do."""
        try:
            text = file.read_text(encoding="utf-8")
            svg = inline_svg(text, f"d{next(self._numbers)}-", picture.caption, self._rows)
        except (OSError, ValueError):
            return ""
        width = float(svg.partition('viewBox="')[2].split()[2])
        style = f"min-width:{round(width / _INCH * _NARROWEST)}px"
        return _box(tag("div", svg, style=style), picture.caption)


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


def _shown(picture: Picture) -> tuple[str, str]:
    """Return the image of a picture, or those of both themes, and of what kind it is."""
    images: list[tuple[_Image, str | None]] = [(_read(picture.file), None)]
    if picture.dark is not None:
        images = [(_read(picture.file), "on-light"), (_read(picture.dark), "on-dark")]
    inner = "".join(image.html(picture.caption, theme) for image, theme in images)
    if images[0][0].is_sheet:
        return _box(inner, picture.caption), "sheet"
    return inner, "image"


def _read(file: Path) -> _Image:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; make it again, or remove it") from None
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise DataError(f"{file} is no PNG image; make it again, or remove it")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    return _Image(content, width, height)
