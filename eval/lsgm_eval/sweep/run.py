"""Measure the points of a sweep, each a resumable cell, and derive what they say together."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError, did_you_mean
from lsgm.generative import GenerativeModel
from lsgm.structure import to_dict
from lsgm_eval.evaluation import Evaluation
from lsgm_eval.measure.curve import curve_point
from lsgm_eval.measure.quality import Drawing
from lsgm_eval.measure.sampler_label import describe_sampler
from lsgm_eval.measure.space import Space
from lsgm_eval.rows import merge_rows, read_rows, write_rows
from lsgm_eval.spaces import FAMILIES, GIVES, family_of
from lsgm_eval.sweep.derive import derived_rows
from lsgm_eval.sweep.plan import expected_nfe

__all__ = ["Sweep", "check_different", "check_metric", "one_statistic", "sweep"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """What is asked of a sweep beside its models."""

    points: Sequence[SamplerConfig]
    n: int
    """Images of every point, of the same seeds for all points and models."""
    targets: Sequence[float] = ()
    time_budget: float | None = None
    """Seconds after which no further point is begun."""


def check_metric(name: str) -> str:
    """Return the family of a metric given by family (frechet) or in full (fid). Raises ConfigError."""
    family = name if name in FAMILIES else family_of(name)
    usable = [known for known in FAMILIES if known != "memorised"]
    if family is None or family not in usable:
        hint = did_you_mean(name, usable) or f"; give one of {', '.join(usable)}"
        raise ConfigError(f"there is no metric '{name}' to sweep{hint}")
    return family


def one_statistic(space: Space, family: str) -> Space:
    """Return the space with the one statistic that gives a family: all that a point of the sweep measures."""
    (statistic,) = [name for name, families in GIVES.items() if family in families]
    return replace(space, spec=replace(space.spec, statistics=(statistic,)), floor="")


def sweep(models: Sequence[GenerativeModel], bench: Evaluation, ask: Sweep, family: str) -> list[Row]:
    """Return the rows of all points and of what follows from them, which ``results.jsonl`` holds too.

    The cheapest points of all models come first, so that an interrupted sweep is a coarse one of all models.
    Points of earlier calls are taken from their cells. Where the time budget is spent the points measured so
    far are derived from, and the same call goes on later. All processes of ``bench.world`` take part.
    """
    few = None if ask.n == bench.tier.curve_samples else ask.n
    task = bench.task.identity(bench.tier_name, limit=few)
    run = _Run(bench, ask, family, {m.name: replace(bench.context(m), task=task) for m in models})
    work = [(model, point) for point in ask.points for model in models if model.has_prior]
    levels = [(model, SamplerConfig()) for model in models if not model.has_prior]
    for number, (model, point) in enumerate(levels + work, start=1):
        run.measure(model, point, f"{number}/{len(levels + work)}")
    contexts = [run.contexts[model.name] for model in models]
    rows = bench.world.on_main(lambda: run.rows + derived_rows(contexts, run.wanted, ask.targets))
    if bench.world.main:
        _keep(bench.out / "results.jsonl", rows)
        if run.left:
            _say(f"time is up: {run.left} points are left, the same command goes on with them")
    return rows


@dataclass
class _Run:
    """One call's progress through the points."""

    bench: Evaluation
    ask: Sweep
    family: str
    contexts: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    left: int = 0
    _begun: float = field(default_factory=lambda: time.monotonic())
    _rate: dict[str, float] = field(default_factory=dict)
    """Seconds of a model's point per evaluation, by which it is told whether another one can be finished."""

    @property
    def wanted(self) -> list[Row]:
        names = {space.metric(self.family) for space in self.bench.spaces}
        return [row for row in self.rows if row["metric"] in names]

    def measure(self, model: GenerativeModel, point: SamplerConfig, place: str) -> None:
        """Take a point's rows from its cell, or measure them while there is time."""
        bench, how = self.bench, self._drawing(model, point)
        settings = to_dict(point) | {"n": self.ask.n, "family": self.family, "shown": describe_sampler(point)}
        rows = bench.finished([model], "sweep", settings)
        if rows is None:
            if bench.world.on_main(lambda: self._too_late(model, point)):
                self.left += 1
                return
            begun = time.monotonic()
            rows = bench.cell([model], "sweep", settings, lambda: self._point(model, how))
            self._rate[model.name] = (time.monotonic() - begun) / max(expected_nfe(point), 1.0)
            bench.world.on_main(lambda: _forget(how))
        rows = [row | {"run_id": self.contexts[model.name].run_id} for row in rows]
        self.rows += rows
        if bench.world.main:
            _say(f"[{place}] {self._told(model, rows)}")

    def _point(self, model: GenerativeModel, how: Drawing) -> list[Row]:
        # What is done once, as compiling and reserving memory, is no part of a point's seconds.
        model.sample([how.seeds[0]], replace(how.sampler, steps=min(how.sampler.steps, 5)))
        spaces = [one_statistic(space, self.family) for space in self.bench.spaces]
        context, split = self.contexts[model.name], self.bench.task.reference_split
        return curve_point(context, model, spaces, how, split)

    def _drawing(self, model: GenerativeModel, point: SamplerConfig) -> Drawing:
        bench, tier = self.bench, self.bench.tier
        name = hashlib.sha256(json.dumps(to_dict(point), sort_keys=True).encode()).hexdigest()[:12]
        state = bench.out / "passes" / f"{model.name}-point-{name}.npz"
        seeds = range(tier.first_seed, tier.first_seed + self.ask.n)
        return Drawing(seeds, point, bench.batch_size, bench.world, state, overlap=False)

    def _too_late(self, model: GenerativeModel, point: SamplerConfig) -> bool:
        if self.ask.time_budget is None:
            return False
        expected = self._rate.get(model.name, 0.0) * expected_nfe(point)
        return time.monotonic() - self._begun + expected > self.ask.time_budget

    def _told(self, model: GenerativeModel, rows: Sequence[Row]) -> str:
        first = rows[0]
        parts = [f"{model.name} {first['sampler'] or 'without a sampler'}"]
        if first["nfe_mean"] is not None:
            parts.append(f"{first['nfe_mean']:.4g} NFE, {1e3 * first['seconds'] / first['n']:.3g} ms/image")
        for row in rows:
            interval = "" if row["ci_low"] is None else f" ({row['ci_low']:.4g} .. {row['ci_high']:.4g})"
            value = "not measured" if row["value"] is None else f"{row['value']:.4g}"
            parts.append(f"{row['metric']} {value}{interval}")
        return ": ".join([parts[0], ", ".join(parts[1:])])


def _forget(how: Drawing) -> None:
    """Remove what a pass has kept to go on from: its numbers are in the cell now."""
    if how.state is not None:
        for file in how.state.parent.glob(f"{how.state.stem}*.npz"):
            file.unlink(missing_ok=True)


def _keep(path: Path, rows: list[Row]) -> None:
    """Write the rows; what earlier points said of the same models' costs to reach anything is gone."""
    old = read_rows(path) if path.exists() else []
    about = {(row["task"], row["model"]) for row in rows}
    old = [row for row in old if row["group"] != "reach" or (row["task"], row["model"]) not in about]
    write_rows(path, merge_rows(old, rows))


def _say(text: str) -> None:
    print(f"lsgm: {text}", file=sys.stderr, flush=True)


def check_different(models: Sequence[GenerativeModel]) -> None:
    """Raise ConfigError where two models are one: of the same weights there is nothing to compare."""
    seen: dict[str, str] = {}
    for model in models:
        require(
            model.sha256 not in seen,
            f"{seen.get(model.sha256)} and {model.name} are one model (their weights agree); give it once",
        )
        seen[model.sha256] = model.name
