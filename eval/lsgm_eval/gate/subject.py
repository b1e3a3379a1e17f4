"""From a checkpoint and a task to what the gate measures, once everything that must agree does."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from lsgm.distributed import join
from lsgm.errors import UserError
from lsgm.files.limits import Limit
from lsgm.files.shown import shown
from lsgm.generative import GenerativeModel
from lsgm_eval.gate.golden import Golden, Plan
from lsgm_eval.gate.measure import Subject
from lsgm_eval.images import check_pixels, scored_images_of, task_data
from lsgm_eval.measure.space import Space
from lsgm_eval.model_specs import open_model
from lsgm_eval.open_spaces import open_networks, open_spaces
from lsgm_eval.runner import task_images
from lsgm_eval.tasks import Task, Tier, load_task, task_names

__all__ = ["identities", "open_subject", "require_same", "task_of"]

SAMPLES = Limit("LSGM_LARGEST_SAMPLES", 2**29, "sub-pixels")
"""Of all images that are drawn for a distance, which are held at once."""


def open_subject(
    checkpoint: str, task: str, plan: Plan, *, data: str = "", device: str = "cpu"
) -> tuple[Subject, Task]:
    """Return a checkpoint's model with a task's images and feature spaces.

    ``task`` is a name, ``glyphs@2``, or a TOML file; ``data`` are images in the place of its own. Spaces
    whose networks are not at hand are left out. Raises UserError for an unknown task, one of another version,
    a model of other pixels or without a density, and CheckpointError for what is no checkpoint.
    """
    from lsgm.devices import pick_device

    world = join(pick_device(device))
    if world.size > 1:
        raise UserError("the gate measures in one process: start it without torchrun")
    described = load_task(task)
    if data:
        described = replace(described, dataset=data, levels={})
    model: GenerativeModel = open_model(checkpoint, device=world.device)
    if not callable(getattr(model, "density", None)):
        raise UserError(f"{model.name} has no density: the gate is for trained models, not for images")
    taken = plan.samples * math.prod(model.pixels.shape)
    SAMPLES.hold(f"the plan, of {plan.samples:,} samples,", taken, UserError)
    images = task_images(described, [model])
    scored = scored_images_of(described, images)
    check_pixels(model, scored)
    spaces: list[Space] = []
    if plan.samples and described.spaces:
        # Distances alone: memorisation would extract every training image.
        distances = tuple(replace(spec, statistics=("frechet", "kernel")) for spec in described.spaces)
        tier = Tier(plan.samples, 2, 0, plan.sampler, reference_images=plan.reference_images)
        networks = open_networks(distances, images.image_shape, world=world)
        measured = task_data(described, images, scores=False)
        spaces, _ = open_spaces(described, tier, measured, networks, world=world)
    return Subject(model, scored, tuple(spaces), plan), described


def identities(subject: Subject) -> dict[str, str]:
    """Return which network and which reference every feature space has, by the space's name."""
    return {
        space.name: f"{space.extractor.name}@{space.extractor.sha256} to {space.reference.sha256}"
        for space in subject.spaces
    }


def task_of(golden: Golden) -> str:
    """Return the task of golden rows, where it is one of the package's.

    Raises UserError where it is not: a task's file may ask for any network and any images, and so it is named
    by who runs the gate, never by a file of golden rows.
    """
    name, _, version = golden.task.partition("@")
    # The name of a task is in front of `mnist@3.toml` too, which is a file.
    if name not in task_names() or not re.fullmatch("[0-9]*", version):
        raise UserError(
            f"the golden rows are of the task {shown(golden.task)[:60]}, which is none of `lsgm ls tasks`: "
            "name its TOML file by --task"
        )
    return golden.task


def require_same(golden: Golden, subject: Subject, task: Task) -> None:
    """Raise UserError unless golden rows are of the same task, data, levels and feature spaces.

    Other weights are no reason: whether their numbers hold is the question.
    """
    images, spaces = subject.images, identities(subject)
    pairs = [
        ("task", golden.task, f"{task.name}@{task.version}"),
        ("dataset", golden.dataset, images.dataset),
        ("split", golden.split, images.split),
        ("levels' sha256", golden.levels_sha256, images.levels_sha256),
        *((f"feature space {name}", text, spaces.get(name)) for name, text in golden.spaces.items()),
    ]
    for what, wanted, found in pairs:
        if wanted != found:
            raise UserError(
                f"the golden rows cannot be checked: their {what} is {wanted} and here it is "
                f"{found or 'not at hand'}; use the data and the version they were written with, or write "
                "them again by --update --reason TEXT"
            )
