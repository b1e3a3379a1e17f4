"""Tiny trained models for the gate: runs, subjects, golden rows, and models with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from lsgm.config import SamplerConfig
from lsgm.generative import GenerativeModel
from lsgm.kinds import recipe_from
from lsgm.runs.load import load_model, measurable, open_checkpoint
from lsgm.train.loop import train_recipe
from lsgm_eval.gate.golden import Golden, Plan
from lsgm_eval.gate.measure import Measured, Subject, measure_estimates, measure_replays
from lsgm_eval.gate.record import record
from lsgm_eval.gate.verdict import Verdict, judge
from lsgm_eval.images import scored_images_of
from lsgm_eval.task import Task

__all__ = [
    "PLAN",
    "TASK",
    "bound_of",
    "failing",
    "golden_of",
    "measured",
    "nudged",
    "subject_of",
    "trained",
    "verdicts",
]

TASK = Task("bars", 1, "bars", "bars")
PLAN = Plan(
    replay_images=64,
    flow_images=4,
    flow_steps=4,
    drawn=16,
    sampler=SamplerConfig("heun", steps=3),
    images=64,
    draws=4,
    samples=0,
    repeats=8,
)


def trained(folder: Path, kind: str = "lsgm", steps: int = 60) -> Path:
    """Train a tiny model for some seconds' tenths, long enough for its averages to trail its weights."""
    stage = {"steps": steps, "val_every": steps, "log_every": steps}
    tables: dict[str, Any] = tiny.merged(tiny.TABLES, {"stage1": stage, "stage2": stage})
    if kind == "vae":
        tables = {key: tables[key] for key in ("seed", "vae", "stage1")} | {"kind": "vae"}
    train_recipe(recipe_from(tables, "the tiny recipe"), folder, images=tiny.bars())
    return folder


def subject_of(model: GenerativeModel | Path, plan: Plan = PLAN) -> Subject:
    """Return a model, or that of a run, with the pictures it is measured on."""
    opened = load_model(model) if isinstance(model, Path) else model
    return Subject(opened, scored_images_of(TASK, tiny.bars()), (), plan)


def golden_of(run: Path, plan: Plan = PLAN) -> Golden:
    """Return the golden rows of a run.

    Threads stay as they are: on busy cores two of them wait for each other for seconds (`test_record` has a
    model that they cost nothing).
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda count: None)
        return record(subject_of(run, plan), TASK, "first", None)


def measured(model: GenerativeModel | Path, *, repeat: int = PLAN.repeats, plan: Plan = PLAN) -> Measured:
    """Return all that the gate measures of a model."""
    subject = subject_of(model, plan)
    return measure_estimates(subject, measure_replays(subject), repeat=repeat)


def failing(golden: Golden, model: GenerativeModel | Path) -> list[str]:
    """Return the rows that a model fails."""
    return [verdict.row for verdict in verdicts(golden, model) if not verdict.passed]


def bound_of(golden: Golden) -> Golden:
    """Return the golden rows of the replayed bound alone."""
    rows = {name: row for name, row in golden.rows.items() if name.startswith("replay/nelbo")}
    return replace(golden, plan=replace(golden.plan, flow_images=0, drawn=0), rows=rows)


def verdicts(golden: Golden, model: GenerativeModel | Path) -> list[Verdict]:
    """Return what the gate says of every row of a model."""
    found = measure_replays(subject_of(model, golden.plan))
    if any(row.kind == "estimate" for row in golden.rows.values()):
        measure_estimates(subject_of(model, golden.plan), found, repeat=golden.plan.repeats)
    return judge(golden, found)


def nudged(run: Path, change: Callable[[nn.Module], None], **recipe: Any) -> GenerativeModel:
    """Return a run's model with its averaged weights changed in place, and parts of its recipe replaced."""
    opened = open_checkpoint(run, "ema")
    with torch.no_grad():
        change(opened.networks)
    return measurable(opened._replace(recipe=replace(opened.recipe, **recipe)), "cpu", "ema")
