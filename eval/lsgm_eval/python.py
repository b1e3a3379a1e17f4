"""Measuring from Python: what `lsgm eval` and `lsgm nfe` do, as tables of pandas."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lsgm import results
from lsgm.config import SamplerConfig, require
from lsgm.devices import pick_device
from lsgm.errors import ConfigError
from lsgm.generative import GenerativeModel, Pixels
from lsgm_eval.cache import claim_results
from lsgm_eval.commands.eval import changed_task
from lsgm_eval.cost_curve.points import check_metric, plan_points, samplers_of
from lsgm_eval.images import task_data
from lsgm_eval.models import as_model
from lsgm_eval.run import calls
from lsgm_eval.run.plan import task_images
from lsgm_eval.run.runner import Runner
from lsgm_eval.run.steps import MEASUREMENTS
from lsgm_eval.task import Task, load_task

if TYPE_CHECKING:
    import pandas as pd

SAMPLERS = "ddim,heun,dpmpp-2m,unipc-3,ancestral"


def evaluate(
    models: Any,
    task: str | os.PathLike[str] | Task,
    tier: str = "quick",
    *,
    only: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    images: int | None = None,
    first_seed: int | None = None,
    data: str | os.PathLike[str] | None = None,
    extractor: str | Sequence[str] = (),
    batch_size: int = 250,
    device: str = "auto",
) -> pd.DataFrame:
    """Measure models under a task, as `lsgm eval` does: distances, likelihoods, differences, with intervals.

    Args:
        models: One model, several, or a mapping from their names to them: whatever
            `lsgm_eval.models.as_model` takes, from a run's path to an object with ``sample(seeds)``.
        task: A name of `lsgm ls tasks`, the path of a task file, or a task.
        tier: ``smoke``, ``quick`` or ``full``; numbers of different tiers are never comparable.
        only: ``quality``, ``nelbo``, ``iw``, ``ode``, ``curve``; whatever applies unless given.
        out: A folder that keeps rows, sheets and what is finished, so that the same call goes on; a passing
            one unless given.
        images: Draw so many in the place of the tier's number.
        first_seed: Of the drawn images, in the place of the tier's: others, which the rows' task says.
        data: A folder, zip, npz or npy in the place of the task's images.
        extractor: A feature space, or several, in the place of the task's.
        batch_size: Images at a time.
        device: Where models that are opened here run.

    Returns a row for each number (`lsgm.results.frame`). A model without a density has no rows of
    likelihoods. Raises UserError for what is no model or does not fit the task, DataError for missing data.
    """
    chosen = changed_task(_task(task), _words(extractor), "" if data is None else os.fspath(data))
    if unknown := sorted(set(only) - set(MEASUREMENTS)):
        raise ConfigError(f"there is no measurement '{unknown[0]}'; there are {', '.join(MEASUREMENTS)}")
    chosen.tier(tier).drawing(images, chosen.tier(tier).other_seed(first_seed))
    opened = _opened(models, chosen, pick_device(device))
    with _place(out) as place:
        rows = calls.evaluate(
            opened,
            chosen,
            tier,
            place,
            only=[each for each in MEASUREMENTS if each in (only or MEASUREMENTS)],
            batch_size=batch_size,
            insist=bool(extractor),
            images=images,
            first_seed=first_seed,
            runner=Runner(place),
        )
    return results.frame(rows)


def nfe_curve(
    models: Any,
    task: str | os.PathLike[str] | Task,
    tier: str = "quick",
    *,
    samplers: str | Sequence[SamplerConfig] = SAMPLERS,
    nfe: Iterable[int] = (5, 10, 20, 50),
    tolerances: Iterable[float] = (),
    metric: str = "frechet",
    reach: Iterable[float] = (),
    images: int | None = None,
    first_seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    extractor: str | Sequence[str] = (),
    batch_size: int = 250,
    device: str = "auto",
) -> pd.DataFrame:
    """Measure quality against evaluations, seconds and operations, as `lsgm nfe` does.

    Args:
        models: As of `evaluate`; ratios of costs are of the first over the later ones.
        task: As of `evaluate`.
        tier: As of `evaluate`; it gives seeds, reference and the default of images.
        samplers: Words of `lsgm nfe` between commas, ``heun,dpmpp-2m@logsnr``, or configurations.
        nfe: Evaluations that samplers with fixed steps may take.
        tolerances: Of adaptive samplers.
        metric: ``frechet``, ``kernel``, ``precision``, ...
        reach: Qualities whose costs are told; the best that every model attains unless given.
        images: Of every point.
        first_seed: As of `evaluate`.
        out: As of `evaluate`.
        data: As of `evaluate`.
        extractor: As of `evaluate`.
        batch_size: Images at a time, which seconds depend on.
        device: As of `evaluate`.

    Returns a row for each number: points (``group`` is curve) and what it costs to reach a quality (reach).
    Raises as `evaluate`, and ConfigError for samplers and budgets that do not fit.
    """
    chosen = changed_task(_task(task), _words(extractor), "" if data is None else os.fspath(data))
    family, wanted = check_metric(metric), chosen.tier(tier)
    configs = samplers_of(samplers) if isinstance(samplers, str) else tuple(samplers)
    points = plan_points(configs, sorted(set(nfe)), sorted(set(tolerances), reverse=True))
    n = images or wanted.curve_samples or wanted.n_samples
    require(n >= 40, f"task {chosen.name} draws no images in the tier {tier}: say how many by images=")
    opened = _opened(models, chosen, pick_device(device))
    with _place(out) as place:
        rows = calls.sweep(
            opened,
            chosen,
            tier,
            points,
            n,
            place,
            family=family,
            targets=tuple(dict.fromkeys(reach)),
            batch_size=batch_size,
            insist=bool(extractor),
            first_seed=first_seed,
            runner=Runner(place),
        )
    return results.frame(rows)


def _task(task: str | os.PathLike[str] | Task) -> Task:
    return task if isinstance(task, Task) else load_task(os.fspath(task))


def _words(given: str | Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given


def _opened(models: Any, task: Task, device: torch.device) -> list[GenerativeModel]:
    """Return one model, several, or named ones, as the harness sees them."""
    if isinstance(models, Mapping):
        named = [(str(name), each) for name, each in models.items()]
    else:
        several = isinstance(models, Sequence) and not isinstance(models, str)
        named = [("", each) for each in (models if several else [models])]
    require(bool(named), "there is nothing to measure; give a model")
    pixels: list[Pixels | None] = []

    def of_task() -> Pixels | None:
        # What images of the task are is asked once, and only for a model that cannot say so itself.
        if not pixels:
            known = task.dataset and all(hasattr(each, "sample") for _, each in named)
            pixels.append(task_data(task, task_images(task, []), scores=False).pixels if known else None)
        return pixels[0]

    return [
        as_model(each, name=name, pixels=None if hasattr(each, "pixels") else of_task(), device=device)
        for name, each in named
    ]


@contextmanager
def _place(out: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Yield the folder of a call: one that stays, or one that goes with what it holds."""
    if out is not None:
        yield claim_results(Path(os.fspath(out)).expanduser())
        return
    with tempfile.TemporaryDirectory(prefix="lsgm-") as folder:
        yield Path(folder)
