"""From a checkpoint and a task to what the gate measures, once everything that must agree does."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from lsgm.distributed import join
from lsgm.errors import UserError
from lsgm.files.limits import Limit
from lsgm.files.names import shown
from lsgm.files.write import atomic_path
from lsgm.generative import GenerativeModel
from lsgm_eval.gate.golden import Golden, Plan, default_golden, read_golden
from lsgm_eval.gate.measure import Measured, Subject, measure_estimates, measure_replays
from lsgm_eval.gate.verdict import Verdict, judge
from lsgm_eval.images import check_pixels, scored_images_of, task_data
from lsgm_eval.measure.space import Space
from lsgm_eval.models.open import open_model
from lsgm_eval.run.plan import open_networks, open_spaces, task_images
from lsgm_eval.task import Task, Tier, load_task, task_names

__all__ = ["Outcome", "check", "identities", "open_subject", "require_same", "task_of", "write_junit"]

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


# Verdicts as JUnit XML, which continuous integration shows test by test


def write_junit(path: Path, suite: str, verdicts: Sequence[Verdict]) -> None:
    """Write one test case for every verdict, atomically; a failing row's sentence is its message.

    A link at ``path`` is replaced, not followed. Raises DataError where the file cannot be written.
    """
    suite = shown(suite)
    failing = sum(not verdict.passed for verdict in verdicts)
    root = ElementTree.Element(
        "testsuite", name=suite, tests=str(len(verdicts)), failures=str(failing), errors="0"
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(root, "testcase", classname=suite, name=shown(verdict.row))
        if not verdict.passed:
            ElementTree.SubElement(case, "failure", message=shown(verdict.sentence))
        else:
            ElementTree.SubElement(case, "system-out").text = shown(verdict.sentence)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


# The gate as one call, for the command and for pytest: a checkpoint, a golden file, and the verdicts


@dataclass(frozen=True)
class Outcome:
    """What the gate found of a checkpoint."""

    golden: Golden
    verdicts: tuple[Verdict, ...]
    remarks: tuple[str, ...]
    """What a reader must know beside the verdicts."""

    @property
    def failing(self) -> list[Verdict]:
        """The rows that do not stand."""
        return [verdict for verdict in self.verdicts if not verdict.passed]


def check(
    checkpoint: str,
    golden: Path | None = None,
    *,
    task: str = "",
    data: str = "",
    seeds: int = 0,
    retrained: bool = False,
    device: str = "cpu",
) -> Outcome:
    """Measure a checkpoint again and judge every golden row.

    ``seeds`` chooses the seeds of the estimates, which are never those that the golden rows were made with;
    replays have their own. ``task`` is a TOML file where the golden rows are of a task of one's own,
    ``data`` a folder or zip of images where they are of one.
    Raises UserError where the rows cannot be checked: no such file, another task version, other data.
    """
    rows = read_golden(golden or default_golden(Path(checkpoint)))
    subject, described = open_subject(checkpoint, task or task_of(rows), rows.plan, data=data, device=device)
    require_same(rows, subject, described)
    found = Measured()
    if not retrained:
        measure_replays(subject, found)
    measure_estimates(subject, found, repeat=rows.plan.repeats + seeds)
    remarks = []
    if subject.model.sha256 != rows.checkpoint_sha256:
        remarks.append(
            f"these weights, {subject.model.sha256[:12]}, are not those of the golden rows, "
            f"{rows.checkpoint_sha256[:12]}"
        )
    return Outcome(rows, tuple(judge(rows, found, retrained=retrained)), tuple(remarks))
