"""From a recipe to a trained run: data, networks, engine, and one stage after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsgm.config import SamplerConfig
from lsgm.data import ImageSet, PixelPipeline, load, test_levels
from lsgm.data.source import make_source
from lsgm.distributed import World, join
from lsgm.errors import CheckpointError, ConfigError, DataError
from lsgm.files import write
from lsgm.files.names import shown
from lsgm.generative import Pixels
from lsgm.kinds import find_kind
from lsgm.progress import say, warn
from lsgm.rng import derive_seed
from lsgm.runs.checkpoint import read_state
from lsgm.runs.directory import MetricsLog, Run
from lsgm.runs.load import checkpoint_meta, fresh_networks, initialise_from, initialise_vae_from
from lsgm.runs.records import Position
from lsgm.structure import to_dict
from lsgm.trackers import Trackers, check_names
from lsgm.train.engine import Agreed, StageContext, StageRunner
from lsgm.train.fitting import as_begun, settled
from lsgm.train.resume import Begun, Origin, goes_on, is_extended, same_origin, tell
from lsgm.train.signals import Interrupt, StepTimer, signal_name
from lsgm.train.stage import BatchSource, Outcome, Pipeline, StageSpec, TrainingSet

VALIDATION_LIMIT = 2000
"""Held-out images on which a run is validated while it trains."""
SHEET_SAMPLER = SamplerConfig("heun", steps=10)
"""Of the sheets: enough to see what a model has learnt, at little cost."""


def load_images(recipe: Any) -> ImageSet:
    """Return the recipe's dataset; images by path are brought to the recipe's image size.

    Raises DataError as `lsgm.data.load` does, and for a single image.
    """
    images = load(recipe.data.dataset, image_size=recipe.data.size, convert=recipe.data.convert)
    if "train" not in images.splits:
        raise DataError(f"{recipe.data.dataset} is a single image: give a folder or zip of at least 3")
    return images


def _splits_of(images: ImageSet) -> str:
    """Return the sizes of the splits of images by path in a sentence, and what decided them."""
    if not images.remark:
        return ""
    channels, height, width = images.image_shape
    kind = "greyscale" if channels == 1 else "RGB"
    return f"{images.name}: {kind} images {height} high and {width} wide: {images.remark}"


def pixels_of(images: ImageSet, bits: int) -> Pixels:
    """Return what a model of these images scores: Bernoulli pixels, or levels of ``bits`` bits."""
    channels, height, width = images.image_shape
    if images.pixels == "binary":
        return Pixels(channels, height, width, "binary", 1)
    return Pixels(channels, height, width, "discrete", bits)


def train_recipe(
    recipe: Any,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    max_seconds: float | None = None,
    init_from: Path | None = None,
    init_vae_from: Path | None = None,
    track: Sequence[str] = (),
    sheet: int = 0,
    auto: Collection[str] = (),
    images: ImageSet | None = None,
    timer: StepTimer | None = None,
    max_steps: int | None = None,
) -> Outcome:
    """Train a recipe in a run directory, going on from its newest checkpoint; return how that ended.

    ``init_from`` gives a fresh run the averaged weights of another checkpoint, with fresh optimisers;
    ``init_vae_from`` those of its VAE alone, so that another prior can be trained on it. ``track`` names
    trackers (`lsgm.trackers`); ``sheet`` is how many images are drawn at every validation, for looking;
    ``auto`` names what is found by trying for each stage (`lsgm.train.fitting`).
    Raises ConfigError, DataError, CheckpointError and TrainingError, each one sentence.
    """
    check_names(track)
    images = images if images is not None else load_images(recipe)
    dataset = {"name": images.name, "version": images.version, "sha256": images.sha256}
    run, changes = Run(out), None
    if begun := Begun.of(run):
        recipe = begun.completed(as_begun(recipe, begun.recipe, auto) if auto else recipe)
    pixels = pixels_of(images, recipe.data.bits)
    source = make_source(images.split("train"), device)
    pipeline = PixelPipeline.of(images, bits=pixels.bits, flip=recipe.data.flip)
    if auto and not begun:
        alone = World(0, 1, torch.device(device))
        recipe = settled(recipe, auto, TrainingSet(source, pipeline, recipe.seed, alone), pixels)
    networks, kind = fresh_networks(recipe, pixels), find_kind(recipe.kind)
    # Before the run directory is touched, so that a recipe that cannot be trained leaves none behind.
    stages = kind.stages(recipe, networks)
    starts = (("init_from", init_from), ("init_vae_from", init_vae_from))
    origin = next((Origin(option, path) for option, path in starts if path is not None), None)
    origins = {} if origin is None else {origin.option: origin.word}
    if begun:
        recipe, changes = goes_on(recipe, begun, stages, dataset)
        origins, moved = same_origin(begun, origin)
        changes |= moved
        stages = kind.stages(recipe, networks)
    if run.newest() is not None:
        origin = None  # a run that goes on needs it no more
    if origin:
        initialise = initialise_from if origin.option == "init_from" else initialise_vae_from
        initialise(networks, origin.path)
    about = origin.as_dict() if origin else None
    settings = {**to_dict(recipe), **origins}
    run.start(settings, seed=recipe.seed, dataset=dataset, changes=changes, origin=about)
    for sentence in tell(run, recipe, changes or {}):
        say(sentence)
    return train(
        run,
        stages,
        source,
        pipeline,
        seed=recipe.seed,
        device=device,
        max_seconds=max_seconds,
        max_steps=max_steps,
        # Carved from the training data: test data are for evaluation only.
        val_levels=test_levels(images, "val", seed=0, bits=pixels.bits, limit=VALIDATION_LIMIT),
        meta=checkpoint_meta(recipe, pixels, images.identity),
        track=track,
        draw=_drawing(recipe, networks, sheet) if sheet else None,
        timer=timer,
        remark=_splits_of(images),
        extended=is_extended(changes or {}),
    )


def _drawing(recipe: Any, networks: nn.Module, count: int) -> Callable[[str], Tensor]:
    """Return what draws ``count`` images of the networks as they are in a stage, always of the same seeds."""

    def draw(stage: str) -> Tensor:
        model = find_kind(recipe.kind).measurable(
            recipe, networks, {"stage": stage, "name": "", "sha256": ""}
        )
        return model.sample(range(count), SHEET_SAMPLER).images

    return draw


# `train`: the stages of a run one after another, from wherever its newest checkpoint stands


def train(
    run: Run,
    stages: Sequence[StageSpec],
    source: BatchSource,
    pipeline: Pipeline,
    *,
    seed: int,
    device: torch.device | str,
    max_seconds: float | None = None,
    max_steps: int | None = None,
    val_levels: Tensor | None = None,
    meta: Mapping[str, Any] | None = None,
    track: Sequence[str] = (),
    draw: Callable[[str], Tensor] | None = None,
    timer: StepTimer | None = None,
    remark: str = "",
    extended: bool = False,
) -> Outcome:
    """Train the stages in `run`, going on from its newest checkpoint, and return how that ended.

    `max_seconds` (wall clock) and `max_steps` end this call at a complete checkpoint; `meta` (JSON values)
    goes into every checkpoint; `track` names trackers; `draw` gives the images of a sheet of samples by the
    averaged weights of a stage, at each validation; `remark` is said before the first step. With `extended`,
    what the checkpoint calls done is measured again, because the run has been given more: a larger budget of
    the stage it ended in, or stages after that one. Raises ConfigError, CheckpointError, and TrainingError
    where a loss or a gradient is not finite.
    """
    specs, begun = _checked(stages), time.monotonic()
    with ExitStack() as stack:
        # Join the other processes, see that they can share every stage's batch, and lock the directory.
        world = join(device)
        for spec in specs:
            world.rows(spec.config.batch_size)
        world.on_main(lambda: stack.enter_context(run.locked()))
        # Stand where the newest checkpoint stands.
        checkpoint, state = _newest(run, world, seed)
        position = Position.of(state) if state else Position()
        names = [spec.name for spec in specs]
        if checkpoint is not None and position.stage not in names:
            raise CheckpointError(
                f"{checkpoint} is of a stage '{shown(position.stage)}', and there is {', '.join(names)} to "
                "train; use the configuration that it was trained with"
            )
        if extended and position.stage:
            _reopen(position, specs)
        if position.finished:
            say(f"{run.directory} is finished at step {position.step}: nothing to do")
            return _outcome(run, position, None)
        if remark:
            say(remark)
        deadline = None if max_seconds is None else begun + max_seconds
        last_step = None if max_steps is None else position.step + max_steps
        # Only the first process writes a log.
        logs: list[MetricsLog] = []
        world.on_main(
            lambda: logs.append(
                MetricsLog(
                    run.metrics_path,
                    position.step,
                    Trackers.open(track, run.directory, run.directory.resolve().name, position.step),
                )
            )
        )
        for log in logs:
            stack.callback(log.close)
        interrupt, metrics = stack.enter_context(Interrupt()), logs[0] if logs else None
        images = TrainingSet(source, pipeline, seed, world)
        context = StageContext(
            run, images, interrupt, metrics, meta or {}, val_levels, deadline, last_step, timer, draw
        )
        verdict = _run_stages(specs, context, position, checkpoint, state)
        outcome = _outcome(run, position, verdict)
        (say if verdict is None else warn)(_ending(outcome, verdict))
        return outcome


def _checked(stages: Sequence[StageSpec]) -> list[StageSpec]:
    """Return the stages that have steps. Raises ConfigError where there are none."""
    specs = [spec for spec in stages if spec.config.steps > 0]
    if not specs:
        raise ConfigError("every stage has 0 steps; give at least one of them a budget")
    if len({spec.name for spec in specs}) < len(specs):
        raise ValueError("two stages have the same name")
    return specs


def _newest(run: Run, world: World, seed: int) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the newest complete checkpoint and its state, after removing what a kill left unfinished."""

    def look() -> Path | None:
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        write.sweep(run.checkpoints)
        return run.newest()

    checkpoint = world.on_main(look)
    if checkpoint is None:
        return None, None
    state = read_state(checkpoint)
    if state.get("step") != int(checkpoint.name[5:]):
        raise CheckpointError(
            f"{checkpoint} is of step {state.get('step')}, as its state.json says; give it the name that it "
            "was written under, or delete it to go on from the one before"
        )
    if state.get("seed") != seed:
        raise CheckpointError(
            f"{checkpoint} was trained with seed {state.get('seed')}, not {seed}; "
            "give that seed or another directory"
        )
    return checkpoint, state


def _reopen(position: Position, specs: Sequence[StageSpec]) -> None:
    """See whether stage and run are done under the budgets that they have now."""
    spec = next(spec for spec in specs if spec.name == position.stage)
    position.stage_done = position.is_over(spec.config)
    position.finished = position.stage_done and spec is specs[-1]


def _run_stages(
    specs: Sequence[StageSpec],
    context: StageContext,
    position: Position,
    checkpoint: Path | None,
    state: Mapping[str, Any] | None,
) -> Agreed | None:
    """Train from the position on; return the verdict that ended the call early, or None at the very end."""
    names = [spec.name for spec in specs]
    first = names.index(position.stage) if position.stage else 0
    for spec in specs[first:]:
        torch.manual_seed(derive_seed("build", context.images.seed, spec.name))
        stage = spec.build()
        if position.stage != spec.name:
            position.enter(spec.name)
        runner = StageRunner(stage, context, position, last=spec is specs[-1])
        fresh = checkpoint is None or state is None
        if checkpoint is not None and state is not None:
            runner.restore(checkpoint, state)
            checkpoint = state = None
        if not position.stage_done:
            runner.prepare(fresh=fresh)
            verdict = runner.run()
            if verdict.stop and not position.finished:
                return verdict
        if spec is not specs[-1]:
            runner.average.copy_to_module()
        # Its optimiser states are memory, and its gradient hooks sit on parameters the next stage shares.
        del runner
    return None


def _ending(outcome: Outcome, verdict: Agreed | None) -> str:
    """Return the sentence that says how the call ended and what to do next."""
    if verdict is None:
        return f"finished at step {outcome.step}; the weights are in {outcome.checkpoint}"
    cause = f" by {signal_name(verdict.signal)}" if verdict.signal else ", as this call's budget is used up,"
    return (
        f"stopped{cause} after step {outcome.step} of stage '{outcome.stage}'; everything is saved in "
        f"{outcome.checkpoint}: run the same command again to go on"
    )


def _outcome(run: Run, position: Position, verdict: Agreed | None) -> Outcome:
    number = 0 if verdict is None else verdict.signal
    return Outcome(
        finished=position.finished,
        stage=position.stage,
        step=position.step,
        seconds_by_stage=dict(position.seconds_by_stage),
        exit_status=128 + number if number else 0,
        checkpoint=run.newest(),
    )
