"""Boards whose clock stands where a test puts it, and rows that say just enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lsgm_eval.live.board import Board, Entry, Step

__all__ = ["Clock", "Toy", "evaluation", "row", "sweep"]


@dataclass
class Clock:
    """Tells the time that it was set to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def row(metric: str, value: float | None, half: float | None = None, **fields: Any) -> dict[str, Any]:
    """Return a row of quality with a symmetric interval."""
    bounds = {
        end: None if value is None or half is None else value + sign * half
        for end, sign in (("ci_low", -1), ("ci_high", 1))
    }
    about = {"model": "lsgm", "sampler": None, "nfe_mean": None, "note": None, "group": "quality"}
    return {"metric": metric, "value": value, "higher_is_better": False, **bounds, **about, **fields}


@dataclass
class Toy:
    """A measurement that gives its rows, or raises, and counts how often it was asked."""

    model: str
    measurement: str
    rows: Sequence[dict[str, Any]] = ()
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
            lambda: list(self.rows) if self.before else None,
            self.column,
            self.kind,
            self.work,
        )

    def _measure(self) -> list[dict[str, Any]]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return list(self.rows)


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
    steps = [Toy(model, name, column=column, kind=kind).step for model, name, column, kind in plan]
    steps.append(Toy("glyphs-lsgm - vae", "difference", column="", kind="difference").step)
    board = Board("lsgm eval glyphs@1/quick", [Entry(step) for step in steps], clock)
    _measured(board, clock, 0, 30.0, [row("frechet_glyphs", 5.8642, 0.431), row("nfe", 20.0, group="cost")])
    _measured(board, clock, 1, 15.0, [row("nelbo_nats", 92.317, 1.24, group="likelihood")])
    missing = row("ode_nll_nats", None, group="likelihood", note="vae has a Normal prior")
    board.finish(board.entries[8], [missing])
    board.begin(board.entries[2])
    board.watch("glyphs-lsgm: ode", 0.0, "glyphs-lsgm: ode: 0/100")
    clock.now += 30.0
    board.watch("glyphs-lsgm: ode", 0.4, "glyphs-lsgm: ode: 40/100 [00:30<00:45, 1.3image/s]")
    return board


def sweep(clock: Clock) -> Board:
    """Return two models in the middle of a sweep, 50 s after its begin."""
    names = [("ddim(steps=5)", 5), ("heun(steps=10)", 20), ("dopri5(rtol=1e-05, atol=1e-05)", 120)]
    steps = [
        Toy(model, name, column="points", kind="points", work=nfe).step
        for name, nfe in names
        for model in ("lsgm", "sgm")
    ]
    board = Board("lsgm nfe glyphs@1/quick", [Entry(step) for step in steps], clock)
    for number, (value, half) in enumerate([(45.13, 2.1), (288.4, 23.0), (12.07, 0.86)]):
        step = board.entries[number].step
        about = {"model": step.model, "sampler": step.measurement, "nfe_mean": step.work, "group": "curve"}
        _measured(board, clock, number, 2 * step.work, [row("frechet_glyphs", value, half, **about)])
    board.begin(board.entries[3])
    board.watch("sgm: samples", 0.0, "sgm: samples: 0/200")
    return board


def _measured(
    board: Board, clock: Clock, number: int, seconds: float, rows: Sequence[dict[str, Any]]
) -> None:
    board.begin(board.entries[number])
    clock.now += seconds
    board.finish(board.entries[number], rows)
