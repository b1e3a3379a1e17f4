"""A small report with all that a page must show: gaps, notes, a rule, pictures, names that look like HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lsgm.results.row import Row, row_from
from lsgm_reports.blocks import (
    MISSING,
    Bullets,
    Cell,
    Column,
    Footnotes,
    Picture,
    Report,
    Section,
    Table,
    Text,
    cell_of,
)
from lsgm_reports.read import Placed, Reading

__all__ = ["EVIL", "QUOTED", "fake_report", "fake_rows", "picture_of", "read"]

EVIL = "<script>alert(1)</script>"
QUOTED = "a\"b&c'd"
_VALUES: dict[str, tuple[float, float] | None] = {
    "plain": (9.0, 0.4),
    EVIL: (-10.5, 0.3),
    QUOTED: (1234.5, 40.0),
    "gone": None,
    "tiny": (2e-05, 1e-06),
}


def _row(model: str, metric: str, pair: tuple[float, float] | None, **rest: Any) -> Row:
    value, ends = None, {}
    if pair is not None:
        value, half = pair
        ends = {"ci_low": value - half, "ci_high": value + half}
    about = {
        "task": "glyphs@1/smoke",
        "n": 2000,
        "split": "test",
        "sampler": "heun(steps=20)",
        "seeds": "0-1999",
        "nfe_mean": 39.0,
        "checkpoint_sha256": "1f" * 32,
        "dataset": f"glyphs@1@{'ef' * 32}",
        "git_revision": "9" * 40,
        "higher_is_better": False,
        "group": "quality",
        "manifest": "0123456789ab",
    }
    return row_from({"model": model, "metric": metric, "value": value, **ends, **about, **rest})


def fake_rows() -> list[Row]:
    """Return a distance and a bound of five models, one of them not measured."""
    rows = []
    for model, pair in _VALUES.items():
        note = "it <b>failed</b>" if pair is None else None
        rows.append(_row(model, "frechet_glyphs", pair, note=note))
        rows.append(
            _row(model, "nelbo_nats", pair, group="likelihood", unit="nats", sampler=None, manifest=None)
        )
    return rows


def read(rows: Sequence[Row], file: Path = Path("results.jsonl")) -> Reading:
    """Return rows as if they had been read from one file."""
    return Reading([Placed(row, file, number) for number, row in enumerate(rows, start=1)], [])


def picture_of(path: Path, size: int = 2) -> Picture:
    """Write a small image and return it as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), 128).save(path)
    return Picture(path, f"Samples of {EVIL} & co")


def _table(rows: list[Row]) -> Table:
    notes, grid = Footnotes(), []
    for distance, bound in zip(rows[::2], rows[1::2], strict=True):
        best = distance.model == "tiny"
        cells = [Cell(distance.model), cell_of(distance, notes, best=best), cell_of(bound, notes)]
        grid.append([*cells, Cell("1,024", sort=1024.0), Cell("heun" if best else "ddim")])
    published = Cell("recalled", mark=notes.mark("printed elsewhere, with `code` and **bold**"))
    for name, value in (("theirs", 3.5), ("others", 2.5)):
        grid.append([Cell(name), Cell(str(value), sort=value), Cell(MISSING), Cell(MISSING), published])
    columns = [Column("Model", "left"), Column("Fréchet ↓"), Column("NELBO (nats) ↓"), Column("n")]
    return Table(
        "glyphs@1/smoke",
        [*columns, Column("How", "left")],
        grid,
        notes.notes,
        "What **differs**: `x < y`.",
        [5],
    )


def fake_report(folder: Path) -> Report:
    """Return the report; its pictures are written into a folder."""
    task = Section(
        "glyphs@1/smoke",
        [
            Text(f"Measured on `glyphs@1`: {EVIL}"),
            _table(fake_rows()),
            Bullets([f"line {k}" for k in range(12)]),
        ],
        [Section("Twice", [Bullets(["**bold** words"])]), Section("Twice", [_table(fake_rows())])],
    )
    grids = [picture_of(folder / "samples" / f"{name}.png") for name in ("data", "lsgm")]
    training = Section("Training", [picture_of(folder / "figures" / "x.png")])
    provenance = Section(
        "Provenance", [Text("Software: torch 2.13.0.")], [Section("Every row", [_table(fake_rows())])]
    )
    return Report(f"Results: {QUOTED}", [task, Section("Samples", list(grids)), training, provenance])
