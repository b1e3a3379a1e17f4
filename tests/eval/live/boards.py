"""Boards whose clock stands where a test puts it, and rows that say just enough."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType

from lsgm.progress import Progress
from lsgm.results import Row
from lsgm_eval.live import Board, Entry
from lsgm_eval.run.runner import Step

__all__ = ["Clock", "Toy", "evaluation", "lines_of", "row", "sweep"]


@dataclass
class Clock:
    """Tells the time that it was set to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def row(metric: str, value: float | None, half: float | None = None, **fields: Any) -> Row:
    """Return a row of quality with a symmetric interval."""
    bounds = {
        end: None if value is None or half is None else value + sign * half
        for end, sign in (("ci_low", -1), ("ci_high", 1))
    }
    about = {"model": "lsgm", "higher_is_better": False, "group": "quality", **bounds, **fields}
    return Row("t@1/quick", metric=metric, value=value, **about)


@dataclass
class Toy:
    """A measurement that gives its rows, or raises, and counts how often it was asked."""

    model: str
    measurement: str
    rows: Sequence[Row] = ()
    error: BaseException | None = None
    before: bool = False
    column: str = "quality"
    kind: str = ""
    work: float = 1.0
    asked: int = 0

    @property
    def step(self) -> Step:
        """The step of it."""
        return Step(
            self.model,
            self.measurement,
            self._measure,
            finished=lambda: list(self.rows) if self.before else None,
            column=self.column,
            kind=self.kind,
            work=self.work,
        )

    @property
    def entry(self) -> Entry:
        """What a board has of it."""
        return Entry(self.model, self.measurement, self.column, self.kind, self.work)

    def _measure(self) -> list[Row]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return list(self.rows)


def lines_of(draw: Callable[[Board, int], RenderableType], board: Board, width: int) -> list[str]:
    """Return what a terminal of this width shows of a board, without blanks at the ends."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    lines = console.render_lines(draw(board, width), pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def evaluation(clock: Clock) -> Board:
    """Return two models in the middle of an evaluation, 75 s after its begin."""
    plan = [
        (model, name, column, kind)
        for model in ("glyphs-lsgm", "vae")
        for name, column, kind in (
            ("quality", "quality", "drawing"),
            ("nelbo", "nelbo", "nelbo"),
            ("ode", "ode", "ode"),
            *((f"curve heun(steps={steps})", "curve", "drawing") for steps in (2, 5, 10)),
        )
        if (model, column) != ("vae", "curve")
    ]
    entries = [Toy(model, name, column=column, kind=kind).entry for model, name, column, kind in plan]
    entries.append(Toy("glyphs-lsgm - vae", "difference", column="", kind="difference").entry)
    board = Board("lsgm eval glyphs@1/quick", entries, clock)
    _measured(board, clock, 0, 30.0, [row("frechet_glyphs", 5.8642, 0.431), row("nfe", 20.0, group="cost")])
    _measured(board, clock, 1, 15.0, [row("nelbo_nats", 92.317, 1.24, group="likelihood")])
    missing = row("ode_nll_nats", None, group="likelihood", note="vae has a Normal prior")
    board.finish(board.entries[8], [missing])
    board.begin(board.entries[2])
    board.watch(Progress("glyphs-lsgm: ode", 0.0, "0/100"))
    clock.now += 30.0
    board.watch(Progress("glyphs-lsgm: ode", 0.4, "40/100 [00:30<00:45, 1.3image/s]"))
    return board


def sweep(clock: Clock) -> Board:
    """Return two models in the middle of a sweep, 50 s after its begin."""
    names = [("ddim(steps=5)", 5), ("heun(steps=10)", 20), ("dopri5(rtol=1e-05, atol=1e-05)", 120)]
    entries = [
        Toy(model, name, column="points", kind="points", work=nfe).entry
        for name, nfe in names
        for model in ("lsgm", "sgm")
    ]
    board = Board("lsgm nfe glyphs@1/quick", entries, clock)
    for number, (value, half) in enumerate([(45.13, 2.1), (288.4, 23.0), (12.07, 0.86)]):
        point = board.entries[number]
        about = {"model": point.model, "sampler": point.measurement, "nfe_mean": point.work, "group": "curve"}
        _measured(board, clock, number, 2 * point.work, [row("frechet_glyphs", value, half, **about)])
    board.begin(board.entries[3])
    board.watch(Progress("sgm: samples", 0.0, "0/200"))
    return board


def _measured(board: Board, clock: Clock, number: int, seconds: float, rows: Sequence[Row]) -> None:
    board.begin(board.entries[number])
    clock.now += seconds
    board.finish(board.entries[number], rows)
