"""A picture of samples above their nearest training images: the closest ones, and some drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lsgm.files.write import atomic_path
from lsgm_eval.memorisation import Memorisation

__all__ = ["write_neighbours"]

GAP, LINE, INK, GROUND = 8, 18, (32, 32, 32), (255, 255, 255)
PAIRS_IN_A_ROW = 10


def write_neighbours(
    path: Path, found: Memorisation, samples: Tensor, training: Tensor, chosen: dict[str, list[int]]
) -> Path:
    """Write one PNG with a band of pairs per entry of ``chosen``, heading -> numbers of samples in ``found``.

    ``samples`` uint8 [P, C, H, W] are the chosen samples, entry after entry (made again from their seeds, for
    instance), and ``training`` [P, C, H, W] their nearest training images, ``found.index`` of the same
    numbers. Below each pair stand its distance and the training image's number; a star marks a distance
    within the held-out threshold. Raises ValueError where the shapes do not fit or nothing is chosen.
    """
    numbers = [number for band in chosen.values() for number in band]
    if samples.shape != training.shape or samples.ndim != 4 or len(samples) != len(numbers):
        raise ValueError(
            f"{len(numbers)} pairs need as many samples and training images of one shape, not "
            f"{tuple(samples.shape)} and {tuple(training.shape)}"
        )
    if not numbers:
        raise ValueError("a figure of neighbours needs at least one pair")
    tiles = [_tile(samples[i], training[i], found, number) for i, number in enumerate(numbers)]
    sheet = _sheet(tiles, {heading: len(band) for heading, band in chosen.items()}, _title(found))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
    return path


def _title(found: Memorisation) -> str:
    return (
        f"sample above, nearest training image below; * within {found.threshold:.4g}, as are "
        f"{found.held_out_share:.2%} of held-out images and {found.share:.2%} of samples"
    )


def _tile(sample: Tensor, training: Tensor, found: Memorisation, number: int) -> Image.Image:
    """Return one pair, enlarged to at least 64 pixels, with its distance written below."""
    pair = torch.cat([sample, training], dim=1).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(pair))
    factor = -(-64 // picture.width)
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    tile = Image.new("RGB", (picture.width, picture.height + 2 * LINE), GROUND)
    tile.paste(picture)
    distance = float(found.distance[number])
    _write(tile, (0, picture.height + 2), f"{distance:.3g}{'*' if distance <= found.threshold else ''}")
    _write(tile, (0, picture.height + LINE), f"#{found.index[number]}")
    return tile


def _sheet(tiles: list[Image.Image], bands: dict[str, int], title: str) -> Image.Image:
    """Return the tiles under their bands' headings, at most PAIRS_IN_A_ROW to a row, the title on top."""
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    rows = sum(-(-count // PAIRS_IN_A_ROW) for count in bands.values())
    text = max(ImageDraw.Draw(tiles[0]).textlength(line, font=_font()) for line in (title, *bands))
    wide = max(min(PAIRS_IN_A_ROW, max(bands.values())) * width + GAP, int(text) + 2 * GAP)
    sheet = Image.new("RGB", (wide, rows * height + (len(bands) + 1) * (LINE + GAP) + GAP), GROUND)
    _write(sheet, (GAP, GAP), title)
    top, remaining = LINE + 2 * GAP, iter(tiles)
    for heading, count in bands.items():
        _write(sheet, (GAP, top), heading)
        top += LINE + GAP
        for place in range(count):
            row, column = divmod(place, PAIRS_IN_A_ROW)
            sheet.paste(next(remaining), (GAP + column * width, top + row * height))
        top += -(-count // PAIRS_IN_A_ROW) * height
    return sheet


def _write(picture: Image.Image, place: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(picture).text(place, text, fill=INK, font=_font())


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default()
