"""What a benchmark ran on. A time without its machine says nothing."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lsgm.config import StageConfig, require
from lsgm.devices import clock
from lsgm.errors import ConfigError
from lsgm.kinds import recipe_from
from lsgm.progress import bar
from lsgm.recipes import load_recipe
from lsgm.runs.provenance import git_revision, hardware, versions

__all__ = [
    "WARM_UP",
    "Spread",
    "describe",
    "machine",
    "narrowed",
    "read_recipes",
    "spread_of",
    "time_in_turn",
]


def machine(device: torch.device) -> dict[str, Any]:
    """Return processor, cores, threads, load, device, versions, revision and time as JSON values."""
    found, installed = hardware(), versions()
    on_gpu = device.type == "cuda"
    return {
        "processor": _processor() or found["processor"],
        "cores": found["cores"],
        "threads": found["threads"],
        # What else kept the processor busy when the benchmark began: shared machines are slower.
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "system": found["system"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lsgm": installed["lsgm-bench"],
        "git_revision": git_revision(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe(about: dict[str, Any]) -> str:
    """Return it as one sentence under a table."""
    load = f", load {about['load']} at the start" if about["load"] is not None else ""
    commit, _, state = (about["git_revision"] or "").partition("-")
    revision = f" at {commit[:12]}{'-' if state else ''}{state}" if commit else ""
    return (
        f"{about['processor']}, {about['cores']} cores, torch threads {about['threads']}{load}; "
        f"device {about['device']}; torch {about['torch']}, Python {about['python']}, "
        f"lsgm-bench {about['lsgm']}{revision}; {about['time']}."
    )


def _processor() -> str:
    """Return the processor's name where Linux tells it; ``platform`` knows the architecture only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")


# A time measured again and again: its median and quartiles, which a busy machine's outliers leave alone


class Spread(NamedTuple):
    """Median and quartiles, in the unit of what was measured."""

    median: float
    low: float
    high: float

    def as_row(self, name: str) -> dict[str, float]:
        """Return three JSON values called after ``name``."""
        return {name: self.median, f"{name}_q1": self.low, f"{name}_q3": self.high}


def spread_of(values: Sequence[float]) -> Spread:
    """Return the median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


# Seconds of several ways to do one thing, taken in turn

WARM_UP = 2
"""Rounds that do not count."""


def time_in_turn(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    *,
    desc: str,
    before: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Return each way's seconds by round; ``before`` runs ahead of every one and is not timed.

    A round times every way once and each round begins with another one, so that a machine that gets slower
    slows all of them.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in bar(range(WARM_UP + rounds), desc=desc, unit="round"):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            if before is not None:
                before()
            started = clock(device)
            ways[name]()
            took = clock(device) - started
            if index >= WARM_UP:
                seconds[name].append(took)
    return seconds


# The recipes that a benchmark is about: read before anything is measured, and made smaller where asked

_WIDTHS = ("width", "decoder_width")


def read_recipes(names: str, *, width: float = 1.0, batch: int | None = None) -> dict[str, Any]:
    """Return the recipes between commas, `narrowed`, by the name that a table shows.

    Raises ConfigError where one does not exist or is wrong, and where none is named.
    """
    found = {}
    for name in filter(None, map(str.strip, names.split(","))):
        short = Path(name).stem if name.endswith(".toml") else name
        recipe = recipe_from(load_recipe(name), f"recipe '{name}'")
        found[name if short in found else short] = narrowed(recipe, width, batch)
    if not found:
        raise ConfigError("--recipes names no recipe; `lsgm ls recipes` shows the ones there are")
    return found


def narrowed(recipe: Any, share: float, batch: int | None = None) -> Any:
    """Return a recipe whose networks have a share of their width, so that a smaller machine can run them.

    Every width is multiplied by ``share`` and rounded to what group normalisation divides: multiples of 4,
    above 128 of 32. Depth, latents and resolutions stay, and with them the ratio of the parts' costs, more
    or less. ``batch`` replaces the batch size of every stage.
    """
    require(0 < share <= 1, f"width is {share}; give a share of the recipes' own widths in (0, 1]")
    require(batch is None or batch >= 1, f"batch is {batch}; it must be at least 1")
    return _changed(recipe, share, batch)


def _changed(config: Any, share: float, batch: int | None) -> Any:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in _WIDTHS and isinstance(value, int) and share < 1:
            changes[field.name] = _width(value * share)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _changed(value, share, batch)
    if batch is not None and isinstance(config, StageConfig):
        changes["batch_size"] = batch
    return dataclasses.replace(config, **changes)


def _width(wanted: float) -> int:
    unit = 4 if wanted <= 128 else 32
    return max(unit, round(wanted / unit) * unit)
