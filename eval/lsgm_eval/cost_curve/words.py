"""A sweep's rows for the terminal: the points with the Pareto front marked, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError, DataError
from lsgm.files.text import parse_toml
from lsgm.sampling import check_options, find_sampler
from lsgm.structure import from_dict
from lsgm_eval.cost_curve.derive import COSTS
from lsgm_eval.cost_curve.reach import pareto_front

__all__ = [
    "point_lines",
    "reach_lines",
    "sampler_of",
    "samplers_of",
    "targets_of",
    "tolerances_of",
    "whole_numbers",
]

Row = dict[str, Any]


def point_lines(rows: Sequence[Row]) -> list[str]:
    """Return aligned lines of points; ``front`` names the currencies in which no other point beats it."""
    cells = [("model", "sampler", "metric", "value", "95 % interval", "NFE", "ms/image", "FLOPs", "front")]
    for row, front in zip(rows, _fronts(rows), strict=True):
        seconds, flops = COSTS["seconds"](row), COSTS["flops"](row)
        cells.append(
            (
                row["model"],
                row["sampler"] or "",
                row["metric"],
                _number(row["value"]),
                _interval(row),
                _number(row["nfe_mean"]),
                _number(None if seconds is None else 1e3 * seconds),
                _number(flops),
                ", ".join(front),
            )
        )
    return _aligned(cells)


def reach_lines(rows: Sequence[Row]) -> list[str]:
    """Return aligned lines of costs to reach qualities and of ratios, each with what must be said of it."""
    cells = [("model", "quantity", "at", "value", "95 % interval", "sampler", "note")]
    for row in rows:
        texts = (row["model"], row["metric"], row["target"], _number(row["value"]), _interval(row))
        cells.append((*texts, row["sampler"] or "", row["note"] or ""))
    return _aligned(cells) if rows else []


def _fronts(rows: Sequence[Row]) -> list[list[str]]:
    """Return, point by point, the currencies in which it belongs to its metric's front over all models."""
    found: list[list[str]] = [[] for _ in rows]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        for cost, of in COSTS.items():
            known = [
                (k, spent, -row["value"] if row["higher_is_better"] else row["value"])
                for k, row in enumerate(rows)
                if row["metric"] == metric and row["value"] is not None and (spent := of(row)) is not None
            ]
            for at in pareto_front([spent for _, spent, _ in known], [loss for _, _, loss in known]):
                found[known[at][0]].append(cost)
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _interval(row: Row) -> str:
    if row["ci_low"] is None and row["ci_high"] is None:
        return ""
    return f"{_number(row['ci_low'])} .. {_number(row['ci_high'])}"


def _aligned(cells: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


# What the command line says of a sweep: samplers with their options, budgets, tolerances, targets

BUDGETS = {
    "steps": "the sweep sets steps by --nfe",
    "rtol": "the sweep sets tolerances by --tol",
    "atol": "the sweep sets tolerances by --tol",
    "times": "times are of one number of steps; name a grid",
    "grid": "write it as NAME@GRID",
}
NOTHING = ("", "none")


def sampler_of(word: str) -> SamplerConfig:
    """Return the sampler of ``NAME[@GRID][:OPTION=VALUE...]``, such as ``edm-heun@edm:churn=10:rho=5``.

    Options are the fields of `SamplerConfig` that are no budget. Raises ConfigError for an unknown sampler,
    grid or option, and for a value that the option cannot have.
    """
    from lsgm.sampling.grids import GRIDS, OPTIMISED

    head, *options = word.strip().split(":")
    name, at, grid = head.partition("@")
    sampler = find_sampler(name)
    where = f"sampler '{word.strip()}'"
    table: dict[str, Any] = {"name": name}
    if at:
        grids = (*GRIDS, OPTIMISED)
        require(grid in grids, f"{where}: there is no grid '{grid}'; there are {', '.join(grids)}")
        require(not sampler.adaptive, f"{where}: an adaptive solver chooses its own steps; leave out @{grid}")
        table["grid"] = grid
    for option in options:
        key, found, value = option.partition("=")
        key = key.replace("-", "_")
        require(bool(found), f"{where}: '{option}' is no option; write NAME:OPTION=VALUE, such as ddim:eta=1")
        require(key not in BUDGETS, f"{where}: {BUDGETS.get(key, '')}")
        require(key != "name" and key not in table, f"{where}: '{key}' is given twice; give it once")
        table[key] = _value(value)
    config = from_dict(SamplerConfig, table, where)
    check_options(config, f"{where}: ")
    return config


def samplers_of(text: str) -> tuple[SamplerConfig, ...]:
    """Return the samplers of words between commas. Raises ConfigError for none, and for one given twice."""
    found = tuple(sampler_of(word) for word in text.split(",") if word.strip())
    require(bool(found), "--samplers names none; `lsgm ls samplers` lists them")
    for index, sampler in enumerate(found):
        require(sampler not in found[:index], f"the sampler {sampler.name} is given twice; give it once")
    return found


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Return ``5,8,10`` as increasing numbers. Raises ConfigError for what is not a whole number above 0."""
    try:
        numbers = [int(word) for word in _words(text)]
    except ValueError:
        raise ConfigError(f"{option} is '{text}'; give whole numbers, such as 5,10,20") from None
    require(all(number > 0 for number in numbers), f"{option} is '{text}'; every number must be above 0")
    return tuple(sorted(set(numbers)))


def tolerances_of(text: str) -> tuple[float, ...]:
    """Return ``1e-1..1e-5`` (by decades) or ``1e-2,1e-4`` as falling tolerances; ``none`` is no tolerance.

    Raises ConfigError for a tolerance that is not above 0, and for ends that decades do not join.
    """
    first, dots, last = text.partition("..")
    if not dots:
        values = _numbers(text, "--tol", "1e-2,1e-4 or 1e-1..1e-5")
    else:
        (a,), (b,) = (_numbers(end, "--tol", "1e-1..1e-5") or (0.0,) for end in (first, last))
        decades = math.log10(a / b) if a > 0 and b > 0 else 0.0
        require(a > 0 and b > 0, f"--tol is {text}; an adaptive solver needs tolerances above 0, say 1e-5")
        whole = round(decades)
        require(
            abs(decades - whole) < 1e-9,
            f"--tol is {text}; its ends are {abs(decades):.3g} decades apart: join them by whole ones",
        )
        sign = 1 if whole >= 0 else -1
        # Read from text, so that 1e-1..1e-3 and 1e-1,1e-2,1e-3 name the same points to the bit.
        values = tuple(float(f"{a * 10.0 ** -(sign * k):.12g}") for k in range(abs(whole) + 1))
    require(
        all(0 < value < math.inf for value in values),
        f"--tol is {text}; an adaptive solver needs tolerances above 0, say 1e-5",
    )
    return tuple(sorted(set(values), reverse=True))


def targets_of(text: str) -> tuple[float, ...]:
    """Return the qualities to reach, in order. Raises ConfigError for what is not a number above 0."""
    values = _numbers(text, "--reach", "10,20")
    require(
        all(0 < value < math.inf for value in values),
        f"--reach is {text}; it is interpolated on a logarithmic scale, so give numbers above 0",
    )
    return tuple(dict.fromkeys(values))


def _numbers(text: str, option: str, example: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError:
        raise ConfigError(f"{option} is '{text}'; give numbers, such as {example}") from None


def _words(text: str) -> Sequence[str]:
    return [] if text.strip() in NOTHING else [word.strip() for word in text.split(",")]


def _value(text: str) -> Any:
    """Return a value as a recipe would hold it; a bare word is text."""
    try:
        return parse_toml(f"x = {text}", text)["x"]
    except DataError:
        return text
