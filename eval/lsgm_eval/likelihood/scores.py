"""Bounds on -log P(x) of every image: in batches, over several processes, and again where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import DensityConfig
from lsgm.devices import peak_bytes, reset_peak
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.files.names import shown
from lsgm.generative import GenerativeModel
from lsgm.logs import log
from lsgm.ode import SolverError
from lsgm.progress import bar
from lsgm_eval.cache import write_kept
from lsgm_eval.images import ScoredImages
from lsgm_eval.likelihood.store import Columns, ScoreStore, join_columns, select_rows
from lsgm_eval.metrics.intervals import mean_interval

Failure = tuple[int, str]
"""An image's row in its split, and the sentence that says what happened to it."""

SPENT = ("seconds", "peak_bytes")
"""Columns that are of a process, and no numbers of an image."""
LISTED = 20
"""Failures that standard error names one by one."""


@dataclass(frozen=True)
class Scores:
    """Numbers of N images, and which images have none."""

    columns: Columns
    """Each [N]. ``rows``: each image's row in its split. ``nats``: the bound. ``nfe``: evaluations of the
    score network. ``error``: standard error of the bound over its draws, and ``probe_error``: standard
    deviation of a draw due to Hutchinson's probes, both NaN where they cannot be told. ``term_*``: nats that
    add up to the bound, and ``group_*``: the same by latent groups. ``seconds``, ``peak_bytes``: spent and
    held by the process."""
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.columns["rows"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column."""
        return self.columns[name]

    @property
    def seconds(self) -> float:
        """Spent on these images, summed over all processes and calls."""
        return float(self["seconds"].sum())

    @property
    def peak_bytes(self) -> int | None:
        """Most memory that a process held, where one told it."""
        return int(self["peak_bytes"].max()) or None


def score_images(
    model: GenerativeModel,
    images: ScoredImages,
    config: DensityConfig,
    count: int,
    *,
    batch_size: int,
    store: ScoreStore,
    world: World,
    allow_failures: bool = False,
    title: str = "",
) -> Scores:
    """Bound -log P(x) of the first ``count`` images of ``images.order``; the same on every process.

    Images that the store holds are not scored again; the processes share the others. The noise of an image
    comes from its row in the split alone, so that no number depends on the batches, the processes, or an
    interruption. A bar named ``title`` shows the running mean and its standard error.

    Raises UserError, once what is finished is stored, where an image's flow cannot be solved or its bound is
    not finite; with ``allow_failures`` such images are named on standard error and left out, unless fewer
    than two others are left.
    """
    if count > len(images.order):
        raise UserError(
            f"{count:,} images are asked for and the split {images.split} has {len(images.order):,}: choose "
            "another tier or --limit; a protocol never shrinks by itself"
        )
    wanted = images.order[:count].numpy()
    done = world.on_main(lambda: select_rows(store.finished(), wanted))
    rest = wanted[~np.isin(wanted, done["rows"])] if done else wanted
    job = _Job(model, images, config, store, batch_size, allow_failures)
    own = rest[world.deal(len(rest), job.images_at_once)]
    share = job.run(own, done, title or f"{model.name}: {config.method}")
    finished, failed, stopped = zip(*world.gather(share), strict=True)
    if any(stopped):
        raise UserError(next(filter(None, stopped)))
    failures = sorted(chain.from_iterable(failed))
    columns = select_rows(join_columns([done, *finished]), wanted)
    scored = len(columns["rows"]) if columns else 0
    if failures and (not allow_failures or scored < 2):
        raise UserError(_complaint(model.name, config.method, failures, scored, allow_failures))
    mean = mean_interval(columns["nats"]) if scored > 1 else None
    if mean and mean.high < 0:  # beyond its error, as no mean of -log P of levels is
        raise UserError(
            f"{config.method} of {model.name} is {mean.value:.4g} nats per image, from {mean.low:.4g} to "
            f"{mean.high:.4g}, and -log P of an image of levels is at least 0: let the model's density be "
            "that of the levels, not that of points in a continuous space"
        )
    if world.main:
        for _, sentence in failures[:LISTED]:
            log.warning(f"{config.method} of {shown(model.name)} failed at {sentence}")
        if len(failures) > LISTED:
            log.warning(f"... and at {len(failures) - LISTED:,} more images")
    world.on_main(store.compact)
    return Scores(columns, tuple(failures))


def columns_of(
    model: GenerativeModel, images: ScoredImages, rows: NDArray[Any], config: DensityConfig, *, shift: int = 0
) -> Columns:
    """Return what is kept of the images of some rows [B], whose noise comes from seeds of row + ``shift``.

    Raises UserError unless the model gives one bound for each, SolverError where a flow cannot be solved.
    """
    seeds = (rows + shift).tolist()
    density = model.density(images.levels[torch.from_numpy(rows)], seeds, config)
    if len(density.nats) != len(rows):
        raise UserError(
            f"{model.name} scored {len(density.nats)} of {len(rows)} images: each needs its bound"
        )

    def reals(values: Tensor | None) -> NDArray[Any]:
        return np.full(len(rows), np.nan) if values is None else values.detach().double().cpu().numpy()

    return {
        "rows": rows,
        "nats": reals(density.nats),
        "nfe": density.nfe.detach().long().cpu().numpy(),
        "error": reals(density.error),
        "probe_error": reals(density.probe_error),
        "seconds": np.full(len(rows), density.seconds / len(rows)),
        "peak_bytes": np.full(len(rows), peak_bytes() or 0),
        **{f"term_{term}": reals(values) for term, values in density.terms.items()},
        **{f"group_{group}": reals(values) for group, values in density.groups.items()},
    }


def solves_flow(model: GenerativeModel, config: DensityConfig) -> bool:
    """Say whether a bound takes a model's density from its probability flow, and so has a solver's error."""
    return bool(model.has_prior) and config.method != "nelbo"


def solver_advice(config: DensityConfig) -> str:
    """Return which setting solves a flow more finely."""
    if config.solver == "dopri5":
        return f"lower the tolerance, --tol {min(config.rtol, config.atol) / 10:g}"
    return f"take more steps, --steps {2 * config.steps}"


@dataclass(frozen=True)
class _Job:
    """One process's work on a list of images."""

    model: GenerativeModel
    images: ScoredImages
    config: DensityConfig
    store: ScoreStore
    batch_size: int
    allow_failures: bool

    def run(self, rows: NDArray[Any], done: Columns, title: str) -> tuple[Columns, list[Failure], str]:
        """Score ``rows`` batch by batch; return what is finished, the failures, and what ended it early.

        Errors are returned, for all processes to raise together.
        """
        parts, failures, stopped = [done], [], ""
        earlier = len(done["rows"]) if done else 0
        reset_peak()
        with bar(total=earlier + len(rows), desc=title, unit="image") as progress:
            progress.n = progress.initial = earlier
            for batch in np.split(rows, range(self.images_at_once, len(rows), self.images_at_once)):
                try:
                    columns, failed = self._score(batch)
                except UserError as error:
                    stopped = str(error)
                    break
                if columns:
                    self.store.add(columns)
                    parts.append(columns)
                failures += failed
                if failures and not self.allow_failures:
                    break
                progress.set_postfix_str(_running_mean(parts), refresh=False)
                progress.update(len(batch))
        return join_columns(parts[1:]), failures, stopped

    @property
    def images_at_once(self) -> int:
        """Images of a batch: fewer where each has many draws, so that finished ones are stored often."""
        return max(1, min(self.batch_size, 4 * self.config.at_once // self.config.samples))

    def _score(self, rows: NDArray[Any]) -> tuple[Columns, list[Failure]]:
        """Return the numbers of the images that can be scored, and what happened to the others."""
        failures: list[Failure] = []
        while len(rows):
            try:
                columns = columns_of(self.model, self.images, rows, self.config)
            except SolverError as error:
                if not 0 <= error.row < len(rows):
                    raise
                what = f"stopped at t = {error.t:.4g}: {error.reason}"
                failures.append(self._failure(rows[error.row], what))
                if not self.allow_failures:
                    break
                rows = np.delete(rows, error.row)
            else:
                faults = [self._fault(nats) for nats in columns["nats"]]
                failures += [
                    self._failure(row, fault) for row, fault in zip(rows, faults, strict=True) if fault
                ]
                good = np.array([not fault for fault in faults])
                kept = {name: value[good] for name, value in columns.items()} if good.any() else {}
                return kept, failures
        return {}, failures

    def _fault(self, nats: float) -> str:
        """Return what is wrong with an image's bound, or an empty string.

        -log P of an image of levels is at least 0. By a flow only its solver's error, or its probe's noise,
        can take a bound below; a draw of the other methods may fall there by chance, by a weight above 1.
        """
        if not np.isfinite(nats):
            return "its bound is not finite"
        if nats >= 0 or not solves_flow(self.model, self.config):
            return ""
        advice = solver_advice(self.config)
        if self.config.divergence != "exact":
            advice += f", or against their noise take more probes, --probes {4 * self.config.probes}"
        return f"its bound is {nats:.4g} nats, which no image of levels can have: {advice}"

    def _failure(self, row: int, what: str) -> Failure:
        return int(row), f"image {row} of {self.images.split}: {what}"


def _running_mean(parts: Sequence[Columns]) -> str:
    nats = np.concatenate([part["nats"] for part in parts if part] or [np.empty(0)])
    if len(nats) < 2:
        return ""
    return f"{nats.mean():.2f} ± {nats.std(ddof=1) / np.sqrt(len(nats)):.2f} nats"


def _complaint(name: str, method: str, failures: list[Failure], scored: int, allowed: bool) -> str:
    more = f" (and {len(failures) - 1:,} more)" if len(failures) > 1 else ""
    if not allowed:
        then = "the images scored before are kept; --allow-failures leaves such images out"
    elif scored:
        then = "only one image is left, and an error needs two"
    else:
        then = "every image failed: look at the model's training metrics too"
    return f"{method} of {name} failed at {failures[0][1]}{more}; {then}"


# What a bound by a flow owes to its solver: some images are solved again, more finely, and move this far.
# A second solve has the same draws, dequantisation and probes, which depend on the image alone, so that what
# moves is the solver's error and nothing else. Of an error e ~ step^p, twice the steps leave e / 2^p: the
# shift is e (1 - 2^-p), half of e by Euler's method, 3/4 by Heun's, 15/16 by RK4, and divided by that share
# it is e (Richardson). The local error that dopri5 keeps below its tolerance makes the whole one about
# proportional to it, but for the state's part: a tenth of it shows 0.7 to 1.4 of e in Gaussian worlds, and is
# left as it is.

SOLVED_AGAIN = 16
"""Images that are solved again, the first of the order; all of them where there are fewer."""

SHOWN = {"euler": 1 / 2, "heun": 3 / 4, "rk4": 15 / 16, "dopri5": 1.0}
"""The share of a solver's error by which a finer solve moves."""


@dataclass(frozen=True)
class SolverShift:
    """How far the bounds of some images lie above those of a finer solve."""

    rows: NDArray[Any]
    """The images' rows in their split, int64 [K]."""
    nats: NDArray[Any]
    """Bound minus finer bound over the share of an error that this shows (`SHOWN`), float64 [K]: below 0
    where the bound is too low."""
    config: DensityConfig
    """How the images were solved the first time."""
    reason: str = ""
    """Why it is not known, where no image could be solved again."""

    @property
    def mean(self) -> tuple[float, float | None] | None:
        """The mean over images and half of its 95 % interval, which one image lacks; None where not known."""
        return mean_and_margin(self.nats)

    @property
    def how(self) -> str:
        """How the second solve differed, in words."""
        return "a tenth of the tolerance" if self.config.solver == "dopri5" else "twice the steps"


def finer(config: DensityConfig) -> DensityConfig:
    """Return settings under which a flow is solved again: a tenth of both tolerances, or twice the steps."""
    if config.solver == "dopri5":
        return replace(config, rtol=config.rtol / 10, atol=config.atol / 10)
    return replace(config, steps=2 * config.steps)


def solver_shift(
    config: DensityConfig, scores: Scores, score: Callable[[DensityConfig, int], Scores]
) -> SolverShift:
    """Return how far the first `SOLVED_AGAIN` images move where ``score(config, count)`` solves them finely.

    Images that either solve has no number for count for nothing, and a finer solve that cannot be done at all
    leaves the error unknown, with the reason.
    """
    count = min(SOLVED_AGAIN, len(scores) + len(scores.failures))
    try:
        again = score(finer(config), count)
    except UserError as error:
        none = np.empty(0)
        # Remarks of a row are parted by semicolons.
        return SolverShift(none.astype(np.int64), none, config, str(error).replace("; ", ", "))
    rows, first, second = np.intersect1d(
        scores["rows"], again["rows"], assume_unique=True, return_indices=True
    )
    moved = (scores["nats"][first] - again["nats"][second]) / SHOWN[config.solver]
    return SolverShift(rows, moved, config, "" if len(rows) else "no image was solved twice")


def mean_and_margin(nats: NDArray[Any]) -> tuple[float, float | None] | None:
    """Return the mean of N numbers and half of its 95 % interval: no such half of one, nothing of none."""
    if len(nats) < 2:
        return (float(nats[0]), None) if len(nats) else None
    mean = mean_interval(nats)
    return mean.value, (mean.high - mean.low) / 2


def save_scores(path: Path, scores: Scores, *, shift: SolverShift | None = None, **about: str) -> None:
    """Write every image's numbers, one array for each, and what they are as strings ``about`` them.

    Of a flow's bound also how far those images moved that were solved again: ``solver_error`` of the images
    ``solver_rows``.
    """
    arrays = {name: column for name, column in scores.columns.items() if name not in SPENT}
    if shift is not None:
        arrays |= {"solver_rows": shift.rows, "solver_error": shift.nats}
    arrays |= {name: np.array(text) for name, text in about.items()}
    write_kept(path, arrays, packed=True)
