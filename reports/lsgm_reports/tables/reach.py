"""What a quality costs: tables of costs to reach it, of ratios between models, and sentences on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lsgm.results.labels import sampler_label
from lsgm.results.metrics import metric_of
from lsgm.results.row import Row
from lsgm_reports.blocks import Cell, Column, Footnotes, Table, cell_of
from lsgm_reports.digits import error_bar, scaled
from lsgm_reports.tables.points import COSTS

__all__ = ["reach_table", "speedup_sentences", "speedup_table", "target_label"]

_NOUNS = {cost.key: cost.noun for cost in COSTS}
_REFERENCE = "vs_reference_"


def target_label(target: str | None) -> str:
    """Return a quality as a table shows it: ``Fréchet ≤ 12.3`` of ``frechet_glyphs<=12.3``."""
    metric, sign, value = _parted(target or "")
    if not sign:
        return target or "not stated"
    label = metric_of(Row("", "", metric, None)).label
    return f"{label} {'≤' if sign == '<=' else '≥'} {value}"


def _parted(target: str) -> tuple[str, str, str]:
    """Return metric, sign and value of a quality; no sign where it is not made so."""
    places = [(at, sign) for sign in ("<=", ">=") if (at := target.find(sign, 1)) > 0]
    if not places:
        return "", "", ""
    at, sign = min(places)
    metric, value = target[:at].rstrip(), target[at + 2 :].lstrip()
    whole = metric and value and not any(symbol.isspace() for symbol in value)
    return (metric, sign, value) if whole else ("", "", "")


def reach_table(rows: Sequence[Row]) -> Table | None:
    """Return what each model needs for each quality, in every currency, or None where nothing says so."""
    reached = [row for row in rows if row.group == "reach" and row.metric.endswith("_to_reach")]
    if not reached:
        return None
    notes, grid = Footnotes(), []
    found: dict[tuple[str | None, str], dict[str, Row]] = {}
    for row in reached:
        found.setdefault((row.target, row.model), {})[row.metric.removesuffix("_to_reach")] = row
    costs = [cost for cost in COSTS if any(cost.key in mine for mine in found.values())]
    for (target, model), mine in found.items():
        cells = [_rough(mine.get(cost.key), notes) for cost in costs]
        samplers = dict.fromkeys(_samplers(row.sampler) for row in mine.values() if row.sampler)
        grid.append([Cell(target_label(target)), Cell(model), *cells, Cell("; ".join(samplers) or "none")])
    columns = [Column("To reach", "left"), Column("Model", "left")]
    columns += [Column(_HEADS[cost.key]) for cost in costs] + [Column("Best sampler", "left")]
    caption = (
        "Per image, decoder included; interpolated between neighbouring points of each model's lower "
        "envelope over its samplers, logarithmic in both. Intervals: 95 %, from the errors of the points."
    )
    return Table("What a quality costs", columns, grid, notes.notes, caption)


_HEADS = {"nfe": "NFE ↓", "seconds": "Seconds ↓", "flops": "FLOPs ↓"}


def _rough(row: Row | None, notes: Footnotes) -> Cell:
    """Return a cost with its interval; a very large or small one with its power of ten apart."""
    if row is None or row.value is None or row.value <= 0 or 1e-3 <= row.value < 1e6:
        return cell_of(row, notes)
    power = int(f"{row.value:e}".partition("e")[2])
    ends = [None if end is None else scaled(end, -power) for end in (row.ci_low, row.ci_high)]
    text = f"({error_bar(scaled(row.value, -power), *ends)})e{power}"
    return Cell(text, row=row, sort=row.value)


def _samplers(names: str | None) -> str:
    return ", ".join(sampler_label(name) for name in _separate(names or "") if name)


def _separate(names: str) -> list[str]:
    """Return names apart that semicolons, or commas outside of brackets, stand between."""
    parts, depth = [""], 0
    for symbol in names:
        depth = max(0, depth + (symbol == "(") - (symbol == ")"))
        if symbol == ";" or (symbol == "," and not depth):
            parts.append("")
        else:
            parts[-1] += symbol
    return [part.strip() for part in parts]


def speedup_table(rows: Sequence[Row]) -> Table | None:
    """Return the ratios of costs at equal quality, or None where nothing was compared."""
    ratios = _ratios(rows)
    if not ratios:
        return None
    notes, grid = Footnotes(), []
    for row in ratios:
        first, second = _sides(row)
        ratio = cell_of(replace(row, ci_low=None, ci_high=None), notes)
        if row.value is not None:
            ratio = Cell(f"{row.value:.3g}", row=row, sort=row.value)
        cells = [target_label(row.target), first, second, _NOUNS.get(_currency(row), _currency(row))]
        grid.append([*(Cell(cell) for cell in cells), ratio, Cell(_shown(row)), Cell(_verdict(row))])
    columns = [Column(head, "left") for head in ("At", "Model", "Against", "Cost")]
    columns += [Column("Times cheaper ↑"), Column("95 % interval"), Column("Ahead", "left")]
    caption = "The other's cost over the model's at equal quality: above 1 the model is the cheaper one."
    return Table("Speed-ups at equal quality", columns, grid, notes.notes, caption)


def speedup_sentences(rows: Sequence[Row]) -> list[str]:
    """Return a line of Markdown per ratio that says in words what came out, whichever way it came out."""
    return [f"- {_sentence(row)}" for row in _ratios(rows)]


def _ratios(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.group == "reach" and row.metric.startswith("speedup_")]


def _currency(row: Row) -> str:
    return row.metric.removeprefix("speedup_").removeprefix(_REFERENCE)


def _sides(row: Row) -> tuple[str, str]:
    first, _, second = row.model.partition(" / ")
    if _REFERENCE in row.metric:
        return first, second or "the reference procedure, dopri5 at 1e-5"
    return first, second or "not stated"


def _ends(row: Row) -> tuple[float, float]:
    """Return the interval of a ratio: 0 and infinity stand for ends that could not be told."""
    return (
        0.0 if row.ci_low is None else row.ci_low,
        math.inf if row.ci_high is None else row.ci_high,
    )


def _shown(row: Row) -> str:
    low, high = _ends(row)
    if high == math.inf:
        return f"above {low:.3g}" if low > 0 else "unknown"
    return f"{low:.3g} to {high:.3g}" if low > 0 else f"below {high:.3g}"


def _verdict(row: Row) -> str:
    low, high = _ends(row)
    if row.value is None or (low, high) == (0.0, math.inf):
        return "unknown"
    if low <= 1 <= high:
        return "undecided: contains 1"
    return "yes" if low > 1 else "no"


def _sentence(row: Row) -> str:
    first, second = _sides(row)
    at, noun = f"At {target_label(row.target)}", _NOUNS.get(_currency(row), _currency(row))
    if row.value is None:
        return f"{at} {first} and {second} cannot be compared in {noun}: {row.note or 'not measured'}."
    match _verdict(row):
        case "unknown":
            return (
                f"{at} the {noun} of {second} are {row.value:.3g} times those of {first}; without an "
                "interval that says nothing of which is ahead."
            )
        case "yes":
            return f"{at} {first} needs {row.value:.3g} ({_shown(row)}) times fewer {noun} than {second}."
        case "no":
            low, high = _ends(row)
            turned = _shown(replace(row, ci_low=_over(high), ci_high=_over(low)))
            times = f"{_inverse(row.value)} ({turned})"
            return f"{at} {first} is not ahead: it needs {times} times as many {noun} as {second}."
    return (
        f"{at} it is undecided whether {first} needs fewer {noun} than {second}: the ratio is "
        f"{row.value:.3g}, and its 95 % interval, {_shown(row)}, contains 1."
    )


def _over(end: float) -> float | None:
    """Return the inverse of an end of an interval, None where it cannot be told."""
    return 1 / end if end > 0 else None


def _inverse(ratio: float) -> str:
    return f"{1 / ratio:.3g}" if ratio > 0 else "infinitely many"
