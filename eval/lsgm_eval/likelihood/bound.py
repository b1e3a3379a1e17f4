"""Bounds on -log P(x): one model's on a task's images, and the difference of two on the same images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.config import DensityConfig
from lsgm.distributed import ALONE, World
from lsgm.files.arrays import Arrays
from lsgm.generative import GenerativeModel
from lsgm.results import Row
from lsgm.results.labels import described
from lsgm.results.manifest import digest_of
from lsgm.structure import to_dict
from lsgm_eval.cache import code_version
from lsgm_eval.images import ScoredImages
from lsgm_eval.likelihood.scores import (
    Scores,
    SolverShift,
    mean_and_margin,
    save_scores,
    score_images,
    solver_advice,
    solver_shift,
    solves_flow,
)
from lsgm_eval.likelihood.store import (
    METRIC,
    PARTS,
    SOLVER,
    ScoreStore,
    read_scores,
    scores_file,
    select_rows,
)
from lsgm_eval.live import with_error
from lsgm_eval.metrics.intervals import mean_interval, paired_difference
from lsgm_eval.models import packages_of, remark_of
from lsgm_eval.rows import Context


def paired_rows(
    contexts: Sequence[Context],
    out: Path,
    split: str,
    *,
    methods: Iterable[str] = tuple(METRIC),
    variant: str = "",
) -> list[Row]:
    """Return, for every pair of models that have the same bound, the mean of first - second in nats.

    It is over the images that both have. Files may be left from earlier calls: those of another task than the
    context's, or of other bits, are not compared.
    """
    rows: list[Row] = []
    for method in methods:
        files = [(context, scores_file(out, context.model, method, variant)) for context in contexts]
        found = [(context, _load(file, context.task)) for context, file in files]
        for (first, a), (second, b) in combinations([(c, saved) for c, saved in found if saved], 2):
            row = _pair(METRIC[method], first, a, second, b, split)
            rows += [row] if row else []
    return rows


def _load(path: Path, task: str) -> Arrays | None:
    """Return the arrays that pairs are made of; none where they are damaged, or of another task."""
    said = "the numbers of single images in {path} are damaged ({why}); nothing is paired with them"
    saved = read_scores(path, damaged=said)
    return None if saved is None or _text(saved, "task") not in (None, task) else saved


def _pair(metric: str, first: Context, a: Arrays, second: Context, b: Arrays, split: str) -> Row | None:
    """Return the row of one pair, or None where they do not share two images' bits."""
    levels, estimators = ([_text(saved, name) for saved in (a, b)] for name in ("levels_sha256", "estimator"))
    common, in_a, in_b = np.intersect1d(a["rows"], b["rows"], assume_unique=True, return_indices=True)
    if levels[0] != levels[1] or len(common) < 2:
        return None
    difference = paired_difference(a["nats"][in_a], b["nats"][in_b])
    part = len(common) < max(len(a["rows"]), len(b["rows"]))
    notes = [f"over the {len(common):,} images that both have"] if part else []
    notes += [f"by {estimators[0]} and {estimators[1]}"] if estimators[0] != estimators[1] else []
    error, margin = _solver_error(a, b) or (None, None)
    if error is not None and margin is not None:
        words = f"solver error of {with_error(error, error - margin, error + margin)} nats"
        large = abs(error) + margin > (difference.high - difference.low) / 2
        notes += [f"its {words} exceeds half its 95 % interval" if large else f"within a {words}"]
    context = replace(first, model=f"{first.model} - {second.model}", checkpoint_sha256=None)
    return context.row(
        f"paired_{metric}_nats",
        difference.value,
        ci_low=difference.low,
        ci_high=difference.high,
        n=len(common),
        split=split,
        levels_sha256=levels[0],
        note="; ".join(notes) or None,
        solver_error=error,
        solver_error_margin=margin,
    )


def _solver_error(a: Arrays, b: Arrays) -> tuple[float, float | None] | None:
    """Return the solver error of a difference, by the images that were solved again; None where none were.

    A bound without a flow owes nothing to a solver.
    """
    solved = [saved for saved in (a, b) if all(name in saved for name in SOLVER)]
    if not solved:
        return None
    if len(solved) == 1:
        return mean_and_margin(solved[0]["solver_error"] * (1 if solved[0] is a else -1))
    _, first, second = np.intersect1d(
        a["solver_rows"], b["solver_rows"], assume_unique=True, return_indices=True
    )
    return mean_and_margin(a["solver_error"][first] - b["solver_error"][second])


def _text(saved: Arrays, name: str) -> str | None:
    return saved.text(name) if name in saved else None


# One model's bound on -log P(x) of a task's images: scored, solved again, kept, and put into rows


@dataclass(frozen=True)
class Bound:
    """One model's bound by one estimator on the first ``count`` images of the seeded order."""

    model: GenerativeModel
    images: ScoredImages
    config: DensityConfig
    count: int

    @property
    def kind(self) -> str:
        """What its seconds may be compared with: the same estimator, through a flow or not."""
        return f"{self.config.method}{' of a prior' if self.model.has_prior else ''}"

    @property
    def work(self) -> float:
        """How much there is to do: draws, each of which costs the same."""
        times = self.config.draws if self.config.method == "nelbo" else 1
        return float(self.count * self.config.samples * times)

    def kept(self, out: Path) -> ScoreStore:
        """Return the store of its finished images below a folder of results.

        It is named after all that an image's number depends on; how many images are scored is no part.
        """
        settings = {name: value for name, value in to_dict(self.config).items() if name != "at_once"}
        key = digest_of(
            {
                "model": self.model.sha256,
                "settings": settings,
                "dataset": self.images.dataset,
                "split": self.images.split,
                "levels": self.images.levels_sha256,
                "code": code_version("lsgm", "lsgm_eval", *packages_of(self.model)),
            }
        )
        return ScoreStore(out / "scores" / key[:16])

    def scored_before(self, out: Path, world: World) -> bool:
        """Return whether earlier calls have scored all its images; the same on all processes."""

        def complete() -> bool:
            wanted = self.images.order[: self.count].numpy()
            done = select_rows(self.kept(out).finished(), wanted)
            return bool(done) and len(done["rows"]) == self.count

        return world.on_main(complete)

    def measure(
        self,
        out: Path,
        *,
        context: Context,
        batch_size: int,
        world: World = ALONE,
        allow_failures: bool = False,
        variant: str = "",
    ) -> list[Row]:
        """Bound -log P(x) of its images and return the result rows.

        Images that ``out/scores`` holds are not scored again; every image's numbers then lie in
        ``out/per-image/<model>-<method><variant>.npz``. Where a flow was solved, the first few images are
        solved again, more finely: how far the bound moves is its solver error. On several processes all do
        this together, the first one writes, and all return the same numbers. Errors are those of
        `score_images`.
        """
        model, config = self.model, self.config

        def score(config: DensityConfig, count: int, *, spare: bool, title: str = "") -> Scores:
            return score_images(
                model,
                self.images,
                config,
                count,
                batch_size=batch_size,
                store=replace(self, config=config).kept(out),
                world=world,
                allow_failures=spare,
                title=title,
            )

        scores, shift = score(config, self.count, spare=allow_failures), None
        if solves_flow(model, config):
            again = partial(score, title=f"{model.name}: {config.method} again", spare=True)
            shift = solver_shift(config, scores, again)
        if world.main:
            save_scores(
                scores_file(out, model.name, config.method, variant),
                scores,
                task=context.task,
                estimator=estimator_label(config, model),
                levels_sha256=self.images.levels_sha256,
                shift=shift,
            )
        return likelihood_rows(context, scores, model, self.images, config, shift)


# What rows call an estimator, and what they say of it


def estimator_label(config: DensityConfig, model: GenerativeModel) -> str:
    """Return ``iw(samples=10, solver=dopri5, rtol=1e-05, atol=1e-05, probes=1)`` and the like.

    Only what has a say in this model's number is named: a Normal prior has no times and no solver, only a
    data-space model is dequantised, and only a prior that could have a control variate can be without.
    """
    settings: dict[str, Any] = {}
    if config.method == "iw" or (config.method == "nelbo" and not model.has_prior):
        settings["samples"] = config.samples
    if config.method == "nelbo" and model.has_prior:
        settings["times"] = config.draws
        if not config.control_variate and _controlled(model) is not False:
            settings["control_variate"] = "off"
    if config.method != "nelbo" and model.has_prior:
        settings["solver"] = config.solver
        if config.solver == "dopri5":
            settings |= {"rtol": f"{config.rtol:g}", "atol": f"{config.atol:g}"}
        else:
            settings["steps"] = config.steps
        if config.solver == "dopri5" and config.coordinate != "time":
            settings["coordinate"] = config.coordinate
        if step_control(config, model) == "density":
            settings["step_control"] = "density"
        exact = config.divergence == "exact"
        settings |= {"divergence": "exact"} if exact else {"probes": config.probes}
    # Of a score model that lives on the pixels themselves, whose levels it must make continuous.
    if getattr(model, "dequantised", None) is not None:
        settings["dequantise"] = config.dequantise
    if config.samples > 1:
        settings.setdefault("samples", config.samples)
    return described(config.method, settings)


def step_control(config: DensityConfig, model: GenerativeModel) -> str:
    """Return what the steps of a model's flow follow, ``state`` or ``density``; empty where none are told."""
    follows = getattr(model, "step_control", None)
    return str(follows(config)) if callable(follows) and config.solver == "dopri5" else ""


def _controlled(model: GenerativeModel) -> bool | None:
    """Whether a model's score-matching bound takes a control variate; None where the model does not say."""
    known: bool | None = getattr(getattr(model, "prior", None), "has_control", None)
    return known


def likelihood_rows(
    context: Context,
    scores: Scores,
    model: GenerativeModel,
    images: ScoredImages,
    config: DensityConfig,
    shift: SolverShift | None = None,
) -> list[Row]:
    """Return the bound in nats per image and bits/dim = nats / (dims ln 2), then its terms in nats.

    Each has the 95 % interval of a mean over images. Of a flow's bound ``shift`` is its solver error, which
    both of its rows have in their own unit: the mean, and half of its 95 % interval. Terms are called
    ``nelbo_term_reconstruction_nats`` and, by latent groups, ``nelbo_term_negative_entropy/0_nats``.
    """
    name = METRIC[config.method]
    values = {
        f"{name}_nats": (scores["nats"], 1.0),
        f"{name}_bpd": (scores["nats"], 1 / (images.pixels.dims * math.log(2))),
    }
    for column, nats in scores.columns.items():
        if column.startswith(PARTS):
            values[f"{name}_term_{column.partition('_')[2]}_nats"] = (nats, 1.0)
    total = len(scores) + len(scores.failures)
    shared = {
        "n": len(scores),
        "n_of": len(images.order) if len(images.order) > total else None,
        "split": images.split,
        "sampler": estimator_label(config, model),
        "nfe_mean": float(scores["nfe"].mean()),
        "nfe_max": float(scores["nfe"].max()),
        "seconds": scores.seconds,
        "peak_bytes": scores.peak_bytes,
        "levels_sha256": images.levels_sha256,
        "note": _note(scores, model, images, config, shift),
    }
    error = shift.mean if shift else None
    rows = []
    for metric, (nats, scale) in values.items():
        value, low, high = _mean(nats * scale)
        fields: dict[str, Any] = {"ci_low": low, "ci_high": high, **shared}
        if error and "_term_" not in metric:
            fields["solver_error"] = error[0] * scale
            fields["solver_error_margin"] = None if error[1] is None else error[1] * scale
        rows.append(context.row(metric, value, **fields))
    return rows


def _mean(nats: NDArray[Any]) -> tuple[float, float | None, float | None]:
    """Return the mean over images and the ends of its 95 % interval; one image alone has none."""
    if len(nats) == 1:
        return float(nats[0]), None, None
    mean = mean_interval(nats)
    return mean.value, mean.low, mean.high


def missing_rows(context: Context, config: DensityConfig, split: str, why: str) -> list[Row]:
    """Return the rows of a bound that this model does not have: no value, and the reason."""
    name = METRIC[config.method]
    return [context.row(f"{name}_{unit}", None, split=split, note=why) for unit in ("nats", "bpd")]


def _note(
    scores: Scores,
    model: GenerativeModel,
    images: ScoredImages,
    config: DensityConfig,
    shift: SolverShift | None,
) -> str:
    """Return what must be known beside the number: what it bounds, how it was estimated, what is left out."""
    lost = len(scores.failures)
    total = len(scores) + lost
    failed = (
        f"{lost:,} of {total:,} images failed and {'is' if lost == 1 else 'are'} left out" if lost else ""
    )
    noisy = config.method == "iw" and config.samples > 1 and model.has_prior and config.divergence != "exact"
    seed = images.binarisation_seed
    parts = (
        failed,
        "one image, so no interval over images" if len(scores) == 1 else "",
        _standing(scores, shift, "upper bound in expectation" + (" but for probe noise" if noisy else "")),
        _estimator(config, model),
        _tail(scores),
        _probe_noise(scores, config) if model.has_prior and config.method != "nelbo" else "",
        _monte_carlo_error(scores),
        "" if seed is None else f"binarised with seed {seed}",
        remark_of(model),
    )
    return "; ".join(part for part in parts if part)


def _standing(scores: Scores, shift: SolverShift | None, bound: str) -> str:
    """Return whether a number may be called a bound: one by a flow, where its solver's error is small."""
    if shift is None:
        return bound
    if shift.mean is None:
        return f"{bound}, but for a solver error that is not known ({shift.reason})"
    error, margin = shift.mean
    shown = f"{error:.2g}" if margin is None else with_error(error, error - margin, error + margin)
    images = "image" if len(shift.rows) == 1 else "images"
    words = f"solver error of {shown} nats ({len(shift.rows)} {images} solved again at {shift.how})"
    _, low, high = _mean(scores["nats"])
    if low is not None and high is not None and abs(error) + (margin or 0.0) > (high - low) / 2:
        advice = solver_advice(shift.config)
        return f"not shown to be a bound: its {words} exceeds half its 95 % interval, {advice}"
    return f"{bound}, within a {words}"


def _estimator(config: DensityConfig, model: GenerativeModel) -> str:
    draws = _count(config.samples, "latent draw") + " per image"
    if config.method == "nelbo" and model.has_prior:
        control = ", with a control variate" if config.control_variate and _controlled(model) else ""
        return f"{draws}, {_count(config.draws, 'time')} per draw{control}"
    if config.method == "iw":
        draws = f"importance-weighted over {draws}"
    if config.method == "nelbo" or not model.has_prior:
        return draws
    adaptive = f"rtol {config.rtol:g}, atol {config.atol:g}"
    steps = adaptive if config.solver == "dopri5" else _count(config.steps, "step")
    exact = config.divergence == "exact"
    trace = "exact divergence" if exact else f"{_count(config.probes, 'Hutchinson probe')} per draw"
    control = ", log-density in the step control" if step_control(config, model) == "density" else ""
    return f"{draws}, prior by probability flow ({config.solver}, {steps}{control}, {trace})"


def _tail(scores: Scores) -> str:
    """Return by how much the bound moves for the way down to z_0, which makes it strict."""
    if "term_tail" not in scores.columns:
        return ""
    tail, low, high = _mean(scores["term_tail"])
    shown = f"{tail:.2g}" if low is None or high is None else with_error(tail, low, high)
    return f"strict at z_0: its tail is {shown} nats of it"


def _probe_noise(scores: Scores, config: DensityConfig) -> str:
    """Return what Hutchinson's noise does: nothing to a mean, but log E exp(s n) = s^2 / 2 to log-sum-exp."""
    if config.divergence == "exact":
        return ""
    known = scores["probe_error"][np.isfinite(scores["probe_error"])]
    spread = float(np.sqrt(np.square(known).mean())) if len(known) else None
    said = "" if spread is None else f"probe noise of {spread:.2g} nats per draw"
    if config.method != "iw" or config.samples == 1:
        return f"{said} averages out over images" if said else ""
    if spread is None:
        return (
            "probe noise, unknown with one probe, may lower it, even below -log p: --probes 2 measures it, "
            "--divergence exact removes it"
        )
    return f"{said} may lower it by up to about {spread**2 / 2:.2g} nats, even below -log p"


def _monte_carlo_error(scores: Scores) -> str:
    known = scores["error"][np.isfinite(scores["error"])]
    return f"Monte-Carlo error of an image {float(known.mean()):.2g} nats on average" if len(known) else ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
