"""The rows that passes over models' images give: quality in every space, costs, and two models apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.distributed import World
from lsgm.generative import GenerativeModel
from lsgm.results import Row
from lsgm.results.labels import sampler_name
from lsgm.results.metrics import families_of, metric_name
from lsgm_eval.measure.space import Space, joined, measure_space
from lsgm_eval.metrics.difference import compare_frechet, compare_kernel
from lsgm_eval.metrics.intervals import Interval, mean_interval
from lsgm_eval.metrics.memorisation import Memorisation, write_neighbours
from lsgm_eval.models import flops_of
from lsgm_eval.rows import Context
from lsgm_eval.samples.collect import Gathered, kept_numbers
from lsgm_eval.samples.gather import Pass, run_pass
from lsgm_eval.task import Closed

TIMED = 3
"""Batches drawn once more, with nothing beside them, where extraction ran while a model drew."""


@dataclass(frozen=True)
class Drawing:
    """How a model's images are drawn, and where what was gathered of them is kept."""

    seeds: Sequence[int]
    sampler: SamplerConfig
    batch_size: int
    world: World
    state: Path | None = None
    save: Path | None = None
    overlap: bool = True
    """Whether features may be extracted while the model draws: sooner done, but seconds are not its own."""


def draw(model: GenerativeModel, spaces: Sequence[Space], how: Drawing) -> Pass:
    """Return one pass over a model's images through all spaces; an interrupted one goes on where it was."""
    return run_pass(
        model,
        how.seeds,
        how.sampler,
        [space.extractor for space in spaces],
        batch_size=how.batch_size,
        state_path=how.state,
        world=how.world,
        save=how.save,
        # Of few batches the seconds would be those of nothing but contention, and little is gained.
        overlap=how.overlap and len(how.seeds) > 2 * TIMED * how.batch_size,
    )


def timing(model: GenerativeModel, found: Pass, how: Drawing) -> tuple[Sequence[float], Sequence[int]]:
    """Return the seconds and the counts of batches whose time is the model's alone."""
    if not found.overlapped:
        return found.seconds, found.counts
    starts = range(0, min(TIMED * how.batch_size, len(how.seeds)), how.batch_size)
    batches = [list(how.seeds[start : start + how.batch_size]) for start in starts]
    return [model.sample(batch, how.sampler).seconds for batch in batches], [len(batch) for batch in batches]


def sampling(model: GenerativeModel, found: Pass, how: Drawing) -> dict[str, Any]:
    """Return the fields of a row that say how its images were made and what they cost."""
    known = getattr(model, "costs_known", True)
    nfe, flops = float(found.nfe.double().mean()), flops_of(model)
    available = getattr(model, "available", len(found.nfe))
    return {
        "n": len(found.nfe),
        "n_of": available if available > len(found.nfe) else None,
        "sampler": sampler_name(how.sampler) if model.has_prior else None,
        "nfe_mean": nfe if known else None,
        "nfe_max": float(found.nfe.max()) if known else None,
        "seconds": float(sum(found.seconds)) if known else None,
        "decoder_seconds": found.decoder_seconds if known else None,
        "flops_per_image": nfe * flops.evaluation + flops.decoder if flops else None,
        "decoder_flops_per_image": float(flops.decoder) if flops else None,
        "peak_bytes": found.peak_bytes,
        "seeds": f"{how.seeds[0]}-{how.seeds[-1]}",
    }


def space_rows(
    context: Context, gathered: Gathered, space: Space, shared: dict[str, Any], note: str
) -> tuple[list[Row], Memorisation | None]:
    """Return a model's rows in one space, and its neighbours where they were looked for."""
    findings, neighbours = measure_space(gathered, space)
    fields = shared | {"extractor": space.label, "reference_sha256": space.reference.sha256}
    rows = [
        context.row(
            space.metric(found.family),
            found.value,
            ci_low=found.interval.low if found.interval else None,
            ci_high=found.interval.high if found.interval else None,
            bias=found.bias,
            note=joined(found.note, space.floor, space.reference.remark, note) or None,
            **fields,
        )
        for found in findings
    ]
    return rows, neighbours


def closed_rows(context: Context, closed: Sequence[Closed], shared: dict[str, Any]) -> list[Row]:
    """Return rows without a value for the spaces that could not be opened, each with the reason."""
    return [
        context.row(
            metric_name(family, space.spec.name or space.spec.extractor), None, note=space.why, **shared
        )
        for space in closed
        for statistic in space.spec.statistics
        for family in families_of(statistic)
    ]


def neighbours_picture(
    path: Path,
    model: GenerativeModel,
    how: Drawing,
    found: Memorisation,
    training: Tensor,
    *,
    pairs: int = 10,
) -> None:
    """Write the nearest pairs of sample and training image, and as many at random; samples are drawn again.

    ``training`` are all training images, uint8 [M, C, H, W].
    """
    numbers = kept_numbers(len(how.seeds))
    chosen = {
        "nearest to a training image": found.closest(pairs).tolist(),
        "at random": found.random(pairs).tolist(),
    }
    rows = [row for band in chosen.values() for row in band]
    samples = []
    for row in rows:  # one at a time: an image depends on its seed alone, and memory on no batch
        samples.append(model.sample([how.seeds[int(numbers[row])]], how.sampler).images.cpu())
    write_neighbours(path, found, torch.cat(samples), training[torch.from_numpy(found.index[rows])], chosen)


def cost_rows(
    context: Context,
    model: GenerativeModel,
    nfe: Tensor,
    seconds: Sequence[float],
    counts: Sequence[int],
    shared: dict[str, Any],
) -> list[Row]:
    """Return the rows nfe, seconds_per_1000 and parameters of one run of a sampler.

    They have no value where the model's images were made elsewhere and what they cost is not known.
    """
    if not getattr(model, "costs_known", True):
        why = "the images were made elsewhere: what they cost is not known"
        names = ("nfe", "seconds_per_1000", "parameters")
        return [context.row(name, None, **shared | {"note": why}) for name in names]
    evaluations = mean_interval(nfe.double().numpy())
    timing = seconds_interval(seconds, counts)
    rate = 1000 * sum(seconds) / sum(counts)
    parts = ", ".join(f"{name} {count:,}" for name, count in model.parameters.items())
    return [
        context.row("nfe", evaluations.value, ci_low=evaluations.low, ci_high=evaluations.high, **shared),
        context.row(
            "seconds_per_1000",
            rate,
            ci_low=timing.low if timing else None,
            ci_high=timing.high if timing else None,
            **shared | {"note": f"in batches of {counts[0]}, extraction of features not counted"},
        ),
        context.row("parameters", float(sum(model.parameters.values())), note=parts or None),
    ]


def seconds_interval(seconds: Sequence[float], counts: Sequence[int]) -> Interval | None:
    """Return seconds per 1,000 images over all batches; None for the interval of fewer than three batches.

    The error is that of a ratio of means over batches: a smaller last batch counts for its images.
    """
    s, n = np.asarray(seconds), np.asarray(counts, dtype=np.float64)
    if len(s) < 3:
        return None
    rate = s.sum() / n.sum()
    error = float((s - rate * n).std(ddof=1) / np.sqrt(len(s)) / n.mean())
    return Interval.normal(1000 * float(rate), 1000 * error)


PAIRED = ("frechet", "kernel")
"""Families of distances that two models' images of the same seeds are compared by."""


def compare_models(
    first: Context, second: Context, a: Pass, b: Pass, spaces: Sequence[Space], split: str | None
) -> list[Row]:
    """Return rows ``paired_<distance>`` of the first model minus the second in every space.

    Both models' images are of the same seeds, so that what a seed does to both cancels.
    """
    rows = []
    for space in spaces:
        ours, theirs = (found.of(space.extractor).stats for found in (a, b))
        reference = space.reference.stats
        for family in PAIRED:
            if family not in space.spec.statistics or (family == "kernel" and not len(reference.rows)):
                continue
            found = (
                compare_frechet(ours, theirs, reference.moments, paired=True)
                if family == "frechet"
                else compare_kernel(ours.rows, theirs.rows, reference.rows, paired=True)
            )
            rows.append(
                _of_both(first, second).row(
                    f"paired_{space.metric(family)}",
                    found.difference.value,
                    ci_low=found.difference.low,
                    ci_high=found.difference.high,
                    bias=found.bias if family == "frechet" else None,
                    n=ours.moments.count,
                    split=split,
                    extractor=space.label,
                    reference_sha256=space.reference.sha256,
                    note=found.verdict(first.model, second.model),
                )
            )
    return rows


def unlike_counts(
    first: Context, second: Context, counts: tuple[int, int], spaces: Sequence[Space], split: str | None
) -> list[Row]:
    """Return rows without a value for two models of unlike numbers of images, whose biases are unlike too."""
    why = (
        f"{first.model} has {counts[0]:,} images and {second.model} {counts[1]:,}: distances of unlike "
        "numbers have unlike biases; draw equally many by --images"
    )
    fields = {"split": split, "note": why}
    return [
        _of_both(first, second).row(f"paired_{space.metric(family)}", None, extractor=space.label, **fields)
        for space in spaces
        for family in PAIRED
        if family in space.spec.statistics
    ]


def _of_both(first: Context, second: Context) -> Context:
    return replace(first, model=f"{first.model} - {second.model}", checkpoint_sha256=None)
