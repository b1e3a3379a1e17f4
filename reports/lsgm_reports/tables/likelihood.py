"""The likelihood table, and bounds taken apart: reconstruction, entropy, cross entropy, both ends, gain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from lsgm.results.labels import estimator_label, settings_of
from lsgm.results.metrics import BOUNDS, Term, metric_of, term_of
from lsgm.results.row import Row
from lsgm_reports.blocks import (
    MISSING,
    Cell,
    Column,
    Footnotes,
    Table,
    cell_of,
    evaluations,
    hold_table,
    left,
    short,
)
from lsgm_reports.digits import best_of, comparable, error_bar, fixed
from lsgm_reports.published import ABSENT, calibration_table, kin_of
from lsgm_reports.read import ranks
from lsgm_reports.tables.headline import UNITS, explained, headline_rows, units_of, units_said

TERMS = {
    "reconstruction": "−log P(x | z), the nats that the decoder leaves to the pixels",
    "negative_entropy": "E log q(z | x), what the posterior knows of the latents",
    "cross_entropy": "E −log p(z), what the latents cost under the prior; of the score-matching bound "
    "without the ends of time",
    "terminal": "the end of time in the score-matching bound: KL of the diffused latents from the "
    "distribution that sampling starts from",
    "tail": "the lower end of time in the score-matching bound: from the smallest time's latents down to "
    "z_0, so that the bound is strict",
    "importance_gain": "by how much the importance-weighted bound is below the mean of its draws, at most 0",
}
"""Terms in the order of a table, and what they are."""


def decomposition_table(rows: Sequence[Row]) -> Table | None:
    """Return the terms of every bound and their sum in nats per image, or None where none are known."""
    caption = (
        "Nats per image; KL = negative entropy + cross entropy + terminal + tail. – is no term of that "
        "bound. The error of a sum is that of the bound: its terms go up and down together."
    )
    return _terms_table(rows, "Terms of the bounds", caption, split=False)


def group_table(rows: Sequence[Row]) -> Table | None:
    """Return the terms by latent groups in nats per image, or None where no term is split."""
    caption = (
        "Nats per image. Group 0 is the first that the decoder reads, at the top; what belongs to the top "
        "scale as a whole stands under top."
    )
    return _terms_table(rows, "Terms by latent groups", caption, split=True)


def _terms_table(rows: Sequence[Row], title: str, caption: str, *, split: bool) -> Table | None:
    """Return a line per bound, by model in the order of the file, then by kind, and per group."""
    found = [(row, term) for row, term in _terms(rows) if (term.group is not None) == split]
    if not found:
        return None
    names, notes, labels = _names(found), Footnotes(), labels_of([row for row, _ in found])
    lines: dict[tuple[str, str | None, str, str | None], dict[str | None, dict[str, Row]]] = {}
    for row, term in found:
        groups = lines.setdefault((row.model, row.checkpoint_sha256, term.bound, row.sampler), {})
        groups.setdefault(term.group, {})[term.name] = row
    hold_table(title, sum(map(len, lines.values())), len(names))
    models, bounds = ranks(key[:2] for key in lines), ranks([*BOUNDS, *(key[2] for key in lines)])
    whole = {(row.model, row.checkpoint_sha256, row.metric, row.sampler): row for row in rows}
    grid = []
    for key in sorted(lines, key=lambda key: (models[key[:2]], bounds[key[2]])):
        model, checkpoint, bound, estimator = key
        words = (labels[model, checkpoint], BOUNDS.get(bound, bound), estimator_label(estimator))
        for group, mine in lines[key].items():
            shown = [cell_of(mine[name], notes) if name in mine else Cell(ABSENT) for name in names]
            line = [*map(Cell, words), *([Cell(group or "")] if split else []), *shown]
            if not split:
                total = whole.get((model, checkpoint, f"{bound}_nats", estimator))
                line.append(_sum([mine[name] for name in names if name in mine], total, notes))
            grid.append(line)
    columns = left("Model", "Bound", "Estimator", *(["Group"] if split else []))
    columns += [Column(head) for head in (*map(_named, names), *([] if split else ["Sum"]))]
    return Table(title, columns, grid, notes.notes, caption)


def _terms(rows: Sequence[Row]) -> list[tuple[Row, Term]]:
    return [(row, term) for row in rows if row.group == "terms" and (term := term_of(row.metric)) is not None]


def _names(found: Sequence[tuple[Row, Term]]) -> list[str]:
    names = dict.fromkeys(term.name for _, term in found)
    return [*(name for name in TERMS if name in names), *(name for name in names if name not in TERMS)]


def _named(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _sum(terms: Sequence[Row], bound: Row | None, notes: Footnotes) -> Cell:
    values = [row.value for row in terms if row.value is not None]
    if len(values) < len(terms) or not math.isfinite(sum(values)):
        return Cell(MISSING, mark=notes.mark("a term is missing"))
    total, half = sum(values), None if bound is None else bound.half_width
    ends = (None, None) if half is None else (total - half, total + half)
    return Cell(error_bar(total, *ends), sort=total)


def term_explanations(rows: Sequence[Row]) -> list[str]:
    """Return a line of Markdown per term that occurs: what it is."""
    return [f"- **{_named(name)}**: {TERMS[name]}." for name in _names(_terms(rows)) if name in TERMS]


# The likelihood table: models by estimators as lines, an estimate in nats or bits/dim

_UNITS = {"nats": "nats/image", "bpd": "bits/dim"}


@dataclass(frozen=True)
class Estimate:
    """One bound of one model by one estimator, in the units it was written in."""

    model: str
    """The model as a line calls it, with its checkpoint where there are several of its name."""
    bound: str
    """``nelbo``, ``iw``, ``ode_nll``."""
    estimator: str | None
    rows: dict[str, Row]
    """``nats`` or ``bpd`` -> row."""

    @property
    def row(self) -> Row:
        """Either row: what it says beside its value is the same in both."""
        return next(iter(self.rows.values()))


def is_bound(row: Row) -> bool:
    """Say whether a row is a bound on -log P(x) in one of its units, and no part or difference of bounds."""
    unit = row.metric.rpartition("_")[2]
    return row.group == "likelihood" and not row.metric.startswith("paired_") and unit in _UNITS


def only_bounds(rows: Sequence[Row]) -> bool:
    """Say whether a headline would show bounds alone, which the likelihood table shows better."""
    return all(is_bound(row) for row in headline_rows(rows))


def labels_of(rows: Sequence[Row]) -> dict[tuple[str, str | None], str]:
    """Return what (model, checkpoint) is called: with the checkpoint where there are several of its name."""
    pairs = list(dict.fromkeys((row.model, row.checkpoint_sha256) for row in rows))
    models = Counter(model for model, _ in pairs)
    return {
        (model, sha): f"{model} ({short(sha, 8)})" if models[model] > 1 else model for model, sha in pairs
    }


def estimates_of(rows: Sequence[Row]) -> list[Estimate]:
    """Return the bounds by model in the order of the file, within a model NELBO, IW and ODE NLL.

    Of several measurements of the same thing the last stands.
    """
    bounds = [row for row in rows if is_bound(row)]
    labels = labels_of(bounds)
    found: dict[tuple[str, str, str | None], dict[str, Row]] = {}
    for row in bounds:
        bound, _, unit = row.metric.rpartition("_")
        label = labels[row.model, row.checkpoint_sha256]
        found.setdefault((label, bound, row.sampler), {})[unit] = row
    models = ranks(model for model, _, _ in found)
    methods = ranks([*BOUNDS, *(bound for _, bound, _ in found)])
    order = sorted(found, key=lambda key: (models[key[0]], methods[key[1]]))
    return [Estimate(*key, found[key]) for key in order]


def likelihood_table(rows: Sequence[Row], title: str) -> Table | None:
    """Return the table of one task, or None where nothing bounds its likelihood.

    The lower bound of two models is marked within one kind of bound (for IW: of the same K), where its lead
    exceeds the error of the lead; of a model with several estimates the last competes.
    """
    estimates = estimates_of(rows)
    if not estimates:
        return None
    notes = Footnotes()
    written = {unit for estimate in estimates for unit in estimate.rows}
    units = [unit for unit in units_of(estimates[0].row.dataset_name) if unit in written]
    winners = {id(row) for unit in units for row in winners_of(estimates, unit)}
    # One column in either unit, where no number would be hidden by it.
    merged = len(units) == 2 and all(units[0] in estimate.rows for estimate in estimates)
    solved = any(estimate.row.solver_error is not None for estimate in estimates)
    grid = []
    for estimate in estimates:
        row = estimate.row
        values = [estimate.rows.get(unit) for unit in units]
        measured = any(value is not None and value.value is not None for value in values)
        # What stands beside a bound is missing for the bound's own reason, or was never written down.
        why = "not recorded" if measured else row.note or "not measured"
        label = estimator_label(estimate.estimator) if estimate.estimator or measured else ""
        bounds = [cell_of(value, notes, best=id(value) in winners) for value in values]
        cells = [
            Cell(label) if label else None,
            *([replace(bounds[0], other=bounds[1])] if merged else bounds),
            *([_solver_error(next(filter(None, values), row), notes)] if solved else []),
            Cell(row.counted, sort=row.n) if row.counted and measured else None,
            Cell(evaluations(row), row=row, sort=row.nfe_mean) if row.nfe_mean is not None else None,
            _seconds(row),
        ]
        name = BOUNDS.get(estimate.bound, estimate.bound)
        known = [cell or Cell(MISSING, mark=notes.mark(why)) for cell in cells]
        grid.append([Cell(estimate.model), Cell(name), *known])
    for bound, group in _competitions(estimates):
        if not comparable([estimate.row for estimate in group]):
            label = BOUNDS.get(bound, bound)
            notes.mark(f"{label}: the models were scored on different images or bits, none is marked")
    heads = [Column(f"{_UNITS[unit]} ↓", unit=UNITS[unit]) for unit in units]
    columns = left("Model", "Bound", "Estimator")
    columns += [replace(heads[0], other=heads[1])] if merged else heads
    columns += [Column(f"Solver error ({_UNITS[units[0]]})")] if solved else []
    columns += [Column("n"), Column("NFE/image"), Column("s/image")]
    said = (
        "Upper bounds on −log P(x), means over n images; ± is half the 95 % interval over images and sets "
        "the digits. Bold: the lowest of its kind of bound (of IW bounds: of the same K), where the lead "
        "over every other model exceeds the error of the lead; of several estimates of one model the last "
        "competes. NFE: evaluations of the score network; s/image: wall-clock seconds on the machine of the "
        "run."
    )
    if merged:
        said += f" {units_said(units[0])}"
    if solved:
        said += (
            " Solver error: how far a bound by the flow lies above that of the same images solved again more "
            "finely, below 0 where it is too low; the bound holds to within it, and one with a solver error "
            "above its ± is never bold."
        )
    return Table(title, columns, grid, notes.notes, said)


def likelihood_tables(rows: Sequence[Row], task: str, *, recalled: bool = False) -> list[Table]:
    """Return everything on the likelihood of one task: bounds, their terms, and the calibration."""
    bounds = likelihood_table(rows, f"{task}: bounds on the likelihood")
    if bounds is None:
        return []
    calibration = calibration_table(kin_of(rows[0].dataset_name)) if recalled else None
    found = (bounds, decomposition_table(rows), group_table(rows), calibration)
    return [table for table in found if table is not None]


def _solver_error(row: Row, notes: Footnotes) -> Cell | None:
    """Return the shift of a finer solve with its error; a footnote where it leaves no bound."""
    error, margin = row.solver_error, row.solver_error_margin
    if error is None:
        none = row.value is None or "solver" in settings_of(row.sampler)
        return None if none else Cell(MISSING, mark=notes.mark("no flow is solved for it"))
    low, high = (None, None) if margin is None else (error - margin, error + margin)
    return Cell(error_bar(error, low, high), row=row, sort=error)


def _competitions(estimates: Sequence[Estimate]) -> list[tuple[str, list[Estimate]]]:
    """Return what may be compared: the last estimate of each model by kind of bound, IW also by its K."""
    groups: dict[tuple[str, str], dict[str, Estimate]] = {}
    for estimate in estimates:
        if estimate.row.value is not None:
            draws = settings_of(estimate.estimator).get("samples", "") if estimate.bound == "iw" else ""
            groups.setdefault((estimate.bound, draws), {})[estimate.model] = estimate
    return [(bound, list(last.values())) for (bound, _), last in groups.items()]


def winners_of(estimates: Sequence[Estimate], unit: str) -> list[Row]:
    """Return the rows in a unit, ``nats`` or ``bpd``, that are the best among what may be compared."""
    columns = ([e.rows[unit] for e in group if unit in e.rows] for _, group in _competitions(estimates))
    return [winner for column in columns if (winner := best_of(column)) is not None]


def _seconds(row: Row) -> Cell | None:
    each = row.seconds_per_image
    if row.value is None or each is None or each <= 0:
        return None
    return Cell(fixed(each, 1 - math.floor(math.log10(each))), row=row, sort=each)


def bound_explanations(rows: Sequence[Row]) -> list[str]:
    """Return a line of Markdown per kind of bound: what it is, over how many images, and remarks."""
    measured = [estimate for estimate in estimates_of(rows) if estimate.row.value is not None]
    measured.sort(key=lambda each: ([*BOUNDS, each.bound].index(each.bound), each.bound))
    lines = []
    for bound, group in groupby(measured, key=lambda each: each.bound):
        mine = list(group)
        models = Counter(estimate.model for estimate in mine)
        called = [
            (
                f"{each.model}, {estimator_label(each.estimator)}" if models[each.model] > 1 else each.model,
                each.rows.get("nats", each.row),
            )
            for each in mine
        ]
        lines.append(explained(BOUNDS.get(bound, bound), metric_of(called[0][1]).meaning or bound, called))
    return lines
