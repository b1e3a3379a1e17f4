"""What came out, in a sentence or two: who is best, by how much, and whether the lead exceeds its error."""

from __future__ import annotations

from collections.abc import Sequence

from lsgm.results.metrics import BOUNDS, metric_of, named
from lsgm.results.row import Row
from lsgm_reports.digits import DOUBT, Lead, comparable, error_bar, leads_of
from lsgm_reports.read import grouped
from lsgm_reports.tables.headline import headline_rows, lines_of, metrics_of, units_of
from lsgm_reports.tables.points import speedup_sentences


def verdict(rows: Sequence[Row]) -> list[str]:
    """Return what the rows of one task say: a sentence on sample quality, on likelihood, and on cost.

    Of several distances the first of the headline speaks, of several bounds the one that most models have.
    `code` and **bold** are marked up. Empty where nothing was measured of which either way is better.
    """
    chosen = headline_rows(rows)
    measured = [row for row in chosen if row.value is not None]
    quality = metrics_of([row for row in measured if row.group == "quality"])
    keys = [metric.key for metric in quality if metric.higher_is_better is not None][:1]
    bounds = grouped([row for row in measured if row.group == "likelihood"], lambda row: row.metric)
    units = units_of(next(iter(bounds.values()))[0].dataset_name) if bounds else ()
    known = [key for unit in units for bound in BOUNDS if (key := f"{bound}_{unit}") in bounds]
    keys += sorted(known, key=lambda key: -len({row.model for row in bounds[key]}))[:1]
    said = [sentence for key in keys if (sentence := _sentence(key, chosen, rows))]
    ratios = [row for row in rows if row.metric in _RATIOS]

    def undecided(row: Row) -> bool:  # its interval contains 1
        low, high = row.ci_low, row.ci_high
        return (low is None or low <= 1) and (high is None or high >= 1)

    ratios.sort(key=lambda row: (undecided(row), _RATIOS.index(row.metric)))
    return said + [line.removeprefix("- ") for line in speedup_sentences(ratios[:1])]


_RATIOS = ("speedup_nfe", "speedup_flops", "speedup_seconds")
"""How many times cheaper one model is at equal quality; evaluations and operations are exact, seconds not."""


def _sentence(key: str, chosen: Sequence[Row], rows: Sequence[Row]) -> str:
    """Return who is best by a metric, and by how much; of a model with several samplers the best speaks."""
    labels: dict[int, str] = {}
    best: dict[str, Row] = {}
    sign = -1.0 if any(row.higher_is_better for row in chosen if row.metric == key) else 1.0
    for line in lines_of(chosen):
        row = line.rows.get(key)
        if row is None or row.value is None:
            continue
        labels[id(row)] = line.label
        known = best.get(line.label)
        if known is None or sign * row.value < sign * (known.value or 0.0):
            best[line.label] = row
    column = list(best.values())
    if not column:
        return ""
    name, unit = _named(column[0])
    if len(column) == 1:
        return f"{name} of **{labels[id(column[0])]}** is {_shown(column[0])}{unit}."
    if not comparable(column):
        return f"{name}: the models were measured against different data, and none is called the best."
    ranked = leads_of(column)
    if ranked is None:
        return ""
    first, leads = ranked
    leads = [_in_pairs(first, lead, rows) or lead for lead in leads]
    second = labels[id(leads[0].row)]
    end = "highest" if sign < 0 else "lowest"
    head = f"**{labels[id(first)]}** has the {end} {name}, {_shown(first)}{unit}, before {second} with "
    return f"{head}{_shown(leads[0].row)}. {_of_leads(leads, [labels[id(lead.row)] for lead in leads])}"


def _of_leads(leads: Sequence[Lead], names: Sequence[str]) -> str:
    """Return whether the leads over others, nearest first, exceed their errors."""
    nearest = leads[0]
    close = [name for name, lead in zip(names, leads, strict=True) if not lead.real]
    if nearest.error is None:
        return "One of the two has no interval, so that nothing says whether the lead is more than chance."
    size = error_bar(nearest.size, nearest.size - nearest.error, nearest.size + nearest.error)
    if not close:
        return f"The lead of {size} exceeds its error."
    if close == [names[0]]:
        why = "may be bias" if nearest.size > nearest.error else "does not exceed its error"
        return f"The lead of {size} {why}: the two are not told apart."
    few = ", ".join(close[:3]) + (f" and {len(close) - 3:,} more" if len(close) > 3 else "")
    return f"The lead over {names[0]} is {size}; not told apart from the best: {few}."


def _in_pairs(first: Row, lead: Lead, rows: Sequence[Row]) -> Lead | None:
    """Return a lead as measured on the same images or seeds, which is more exact; None where it was not."""
    ways = {f"{first.model} - {lead.row.model}": 1.0, f"{lead.row.model} - {first.model}": -1.0}
    found = [row for row in rows if row.metric == f"paired_{first.metric}" and row.model in ways]
    if len(found) != 1 or found[0].value is None or found[0].half_width is None:
        return None
    (row,) = found
    sign = ways[row.model] * (1.0 if first.higher_is_better else -1.0)
    size = sign * (row.value or 0.0)
    bias = max(0.0, sign * DOUBT * row.upward_bias)
    error = row.half_width or 0.0
    return Lead(lead.row, size, error, row.solved_finely and size - bias > error)


def _named(row: Row) -> tuple[str, str]:
    metric, found = metric_of(row), named(row.metric)
    label = metric.label
    if found is not None and not found.official:
        distance = " distance" if found.family.endswith(("frechet", "frechet_infinity", "kernel")) else ""
        label = f"{label}{distance} (features: {found.space})"
    return label, f" {metric.unit}" if metric.unit else ""


def _shown(row: Row) -> str:
    return error_bar(row.value or 0.0, row.ci_low, row.ci_high)
