"""One stage in training: step, log, validate, save, each in its place.

A step: noise addressed by (seed, step), data, forward, one backward (both in parts, where a batch is cut into
some), clip, finite check, optimisers at the rate that progress gives, average. Everything random is drawn
anew from (seed, step), so that a resumed run repeats the uninterrupted one bit for bit on the CPU, dropout
included. (With a budget in seconds the schedule follows the clock, so there it does not.) Nothing in a step
makes the host wait for the device; float16 does, once, where an optimiser has no fused form.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from lsgm.data import batch_indices
from lsgm.errors import CheckpointError, UserError
from lsgm.files.write import atomic_path, make_folder, writing
from lsgm.nets.compiled import compile_blocks, new_step, release, require_compiler, uncompiled
from lsgm.progress import bar
from lsgm.rng import StepNoise, derive_seed, seed_global
from lsgm.runs.checkpoint import (
    WEIGHTS,
    load_into,
    load_optimizers,
    prune,
    read_entries,
    read_weights,
    refuse_other,
    save_checkpoint,
    with_later_buffers,
)
from lsgm.runs.directory import MetricsLog, Run
from lsgm.runs.records import Position
from lsgm.sampling.keep import tiled
from lsgm.train.computing import (
    LEAST_SCALE,
    lay_out,
    low_precision,
    mean_of,
    parts_of,
    restored,
    saved,
    tell_parts,
)
from lsgm.train.optim import WeightAverage, build_optimizer, clip_gradients, freeze_all_but, learning_rate
from lsgm.train.signals import FiniteGuard, Interrupt, StepTimer, TrainingClock, TrainingError
from lsgm.train.stage import Losses, Stage, TrainingSet

if TYPE_CHECKING:
    from lsgm.train.sharded import Contents, Shards

T = TypeVar("T")


@dataclass(frozen=True)
class StageContext:
    """What all stages of one call of `train` share."""

    run: Run
    images: TrainingSet
    interrupt: Interrupt
    metrics: MetricsLog | None
    meta: Mapping[str, Any]
    val_levels: Tensor | None
    deadline: float | None
    last_step: int | None
    timer: StepTimer | None
    draw: Callable[[str], Tensor] | None = None
    """Images of a sheet of samples, drawn from the weights in place in a stage of that name."""


class Agreed(NamedTuple):
    """What the processes agree on in every step."""

    bad: bool
    signal: int
    stop: bool
    save: bool
    seconds: float


class StageRunner:
    """Trains one stage from a position to the end of its budget, or of the call's."""

    def __init__(self, stage: Stage, context: StageContext, position: Position, *, last: bool) -> None:
        self.stage, self.config, self.context, self.position = stage, stage.config, context, position
        self._last = last
        self._images, self._seed, self._world = context.images, context.images.seed, context.images.world
        self._rows = self._world.rows(stage.config.batch_size)
        self._parts = parts_of(self._rows, stage.config.accumulate)
        # What is shared out is whole on the CPU until it is.
        self._whole = stage
        self._shards: Shards | None = None
        self._shares = self.config.sharded and self._world.size > 1
        stage.module.to("cpu" if self._shares else self._world.device)
        lay_out(stage.module, self.config.memory_format, self._world.device)
        tell_parts(stage.module, stage.name, len(self._parts))
        self._groups = stage.groups()
        freeze_all_but(stage.module, self._groups)
        self.optimizers = {group.name: build_optimizer(group) for group in self._groups}
        self.average = WeightAverage(stage.module, stage.ema_of, self.config.ema)
        stage.attach(self.average)
        release(stage.module)  # as a stage before this one may have left it
        if self.config.compile:
            require_compiler(self._world.device, cuda_graphs=self.config.cuda_graphs)
            for name in stage.compile_of:
                compile_blocks(stage.module.get_submodule(name), cuda_graphs=self.config.cuda_graphs)
        self._module = stage.module if self._shares else self._world.wrap(stage.module)
        self._clip = clip_gradients
        self._low = low_precision(self.config.precision, self._world.device)
        self._scaler = GradScaler(self._world.device.type) if self._low is torch.float16 else None
        self._guard = FiniteGuard([group.name for group in self._groups])
        self._sums: Tensor | None = None
        self._names: list[str] = []
        self._count = 0
        self._mark = (position.images, position.seconds)
        self._clock, self._cpu_before = TrainingClock(position.seconds), position.cpu_seconds
        self._saved = time.monotonic()

    def restore(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        """Take up weights, average, optimisers, running means from a checkpoint. Raises CheckpointError."""
        module, where = self.stage.module, {kind: checkpoint / name for kind, name in WEIGHTS.items()}
        raw, averages = read_entries(checkpoint, "raw"), read_entries(checkpoint, "ema")
        refuse_other(module, raw, where["raw"])
        try:
            refuse_other(module, averages, where["ema"])
        except CheckpointError as error:
            raise CheckpointError(
                f"{where['ema']} does not fit model.safetensors ({str(error).partition(';')[0]}); "
                f"delete {checkpoint} to go on from the checkpoint before it"
            ) from error
        load_into(module, read_weights(checkpoint, "raw"), where["raw"])
        averaged = with_later_buffers(module, read_weights(checkpoint, "ema"))
        self.average.load(averaged, _said(state, "ema_updates", checkpoint))
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        load_optimizers(checkpoint, self.optimizers, names, self.position.stage_step)
        if self._scaler is not None and (scale := state.get("scaler")):
            restored(self._scaler, scale)
        logged = _said(state, "log", checkpoint)
        self._count = logged["count"]
        if self._count:
            self._sums = torch.tensor(logged["sums"], dtype=torch.float64).to(self._world.device)

    def prepare(self, *, fresh: bool) -> None:
        """Let the stage look through the training set, if it wants to, before its first step."""
        self.stage.module.to(self._world.device)
        self._images = self.stage.prepare(self._images, fresh=fresh) or self._images
        if self._shares:
            from lsgm.train.sharded import Shards  # FSDP2 takes half a second to import

            self.stage.module.cpu()
            shards = self._shards = Shards(self.stage, self.optimizers, self.average, self._world)
            self.stage, self._module, self._groups = shards.stage, shards.module, shards.groups
            self.optimizers, self.average, self._clip = shards.optimizers, shards.average, shards.clip

    def run(self) -> Agreed:
        """Train until the stage is done or the call has to end; the last thing done is a checkpoint."""
        self.stage.module.train()
        self._clock, self._cpu_before = TrainingClock(self.position.seconds), self.position.cpu_seconds
        by_clock = self.config.seconds is not None
        total, unit = (self.config.seconds, "s") if by_clock else (self.config.steps, "step")
        with bar(total=total, desc=self.stage.name, unit=unit) as progress:
            progress.initial = progress.n = self._done_so_far()
            while True:
                verdict = self.step()
                progress.update(self._done_so_far() - progress.n)
                with self._clock.paused():
                    if loss := self._log():
                        progress.set_postfix_str(loss, refresh=False)
                    if self.position.stage_done or verdict.save or verdict.stop:
                        self._save()
                if self.position.stage_done or verdict.stop:
                    return verdict

    def _done_so_far(self) -> float:
        """Return steps, or seconds up to the budget, which the last step may overrun."""
        if self.config.seconds is None:
            return self.position.stage_step
        return min(round(self.position.seconds, 1), self.config.seconds)

    def step(self) -> Agreed:
        """Make a step; return what the processes have agreed on in it."""
        position = self.position
        self._time(None)
        # Everything random is addressed by (seed, step): dropout's generator, the step's noise, its images.
        seed_global(derive_seed("global", self._seed, position.step, self._world.rank), self._world.device)
        # The step's images become levels, while those of the next one are read.
        raw = self._images.source.batch(self._indices(position.step))
        self._images.source.prefetch(self._indices(position.step + 1))
        # Forward, at the share of the stage that is done: annealing follows it, as the rates do. One backward
        # pass for all groups of parameters; processes average their gradients in it.
        progress = position.progress(self.config)
        losses = mean_of([self._part(raw, part, progress) for part in range(len(self._parts))])
        # Clip, and let no weight move before all processes know that every number is finite.
        verdict = self._check(losses)
        # Step the optimisers at the rate that progress gives, then take the weights into the average.
        self._update(progress)
        self._time("optimiser")
        # Count the step; its last is the one that uses the budget up.
        position.advance(self.config.batch_size, verdict.seconds, self.config)
        position.finished = position.stage_done and self._last
        return verdict

    def _part(self, raw: Tensor, part: int, progress: float) -> Losses:
        """Go forward and backward through one part of this process's rows, all of them where there is one."""
        device, count, rows = self._world.device, len(self._parts), self._parts[part]
        # Rows of the batch have the noise that they would have in one piece.
        size = self.config.batch_size
        noise = StepNoise(self._seed, self.position.step, global_batch=size, rows=rows, device=device)
        own = raw if count == 1 else raw[rows.start - self._rows.start : rows.stop - self._rows.start]
        levels = self._images.pipeline.levels(own, noise)
        self._time("data")
        if self.config.cuda_graphs:
            new_step()
        with self._apart(part + 1 < count):
            with torch.autocast(device.type, dtype=self._low or torch.bfloat16, enabled=bool(self._low)):
                losses: Losses = self._module(levels, noise, progress)
            self._time("forward")
            total = losses.total if count == 1 else losses.total / count
            total = total if self._scaler is None else self._scaler.scale(total)
            total.backward()  # type: ignore[no-untyped-call]
        self._time("backward")
        return Losses(losses.total.detach(), losses.terms)

    def _apart(self, more: bool) -> contextlib.AbstractContextManager[None]:
        """Let processes average their gradients only when the last part of a batch has added its own."""
        if more and isinstance(self._module, DistributedDataParallel):
            return self._module.no_sync()
        return contextlib.nullcontext()

    def _indices(self, step: int) -> Tensor:
        """Return this process's images of a step."""
        return batch_indices(len(self._images.source), self.config.batch_size, self._seed, step)[self._rows]

    def _check(self, losses: Losses) -> Agreed:
        """Clip, add up what is logged, and agree with the other processes before any weight moves."""
        if self._scaler is not None:
            for optimizer in self.optimizers.values():
                self._scaler.unscale_(optimizer)
        norms = [self._clip(group.params, self.config.clip) for group in self._groups]
        if self._scaler is not None:
            # An overflow is the scale's fault, and the scaler lets such a step go by.
            norms = [norm.where(norm.isfinite(), 0.0) for norm in norms]
        values = self._guard.watch(self.position.step + 1, losses, norms)
        norm_names = [f"grad_norm/{group.name}" for group in self._groups]
        self._names = [*losses.terms, "total", *norm_names]
        if self._sums is not None and self._sums.shape != values.shape:
            raise CheckpointError(
                f"state.json of the checkpoint has sums of {len(self._sums)} numbers, and this stage logs "
                f"{len(values)}; restore it from a copy, or delete it to go on from the one before"
            )
        self._sums = values if self._sums is None else self._sums + values
        self._count += 1
        verdict = self._agree(self._guard.bad())
        if verdict.bad:
            self._fail()
        return verdict

    def _agree(self, bad: bool) -> Agreed:
        context, now = self.context, time.monotonic()
        late = context.deadline is not None and now >= context.deadline
        enough = context.last_step is not None and self.position.step + 1 >= context.last_step
        save = now - self._saved >= self.config.checkpoint_every
        flags = [bad, context.interrupt.signal, late or enough, save, self._clock.read()]
        worst = self._world.largest([float(flag) for flag in flags])
        signal = int(worst[1])
        return Agreed(bool(worst[0]), signal, bool(worst[2]) or signal > 0, bool(worst[3]), worst[4])

    def _fail(self) -> None:
        # A NaN of one process reaches the others' gradients: the earliest finding is the cause.
        cause = min(found for found in self._world.gather(self._guard.verdict) if found)[2]
        newest = self.context.run.newest()
        kept = f"{newest} is untouched" if newest else "no checkpoint had been written"
        raise TrainingError(
            f"training stopped: {cause}; {kept}: start another run with a lower learning rate"
            + (f", from it with --init-from {newest}" if newest else "")
        )

    def _update(self, progress: float) -> None:
        for group in self._groups:
            optimizer = self.optimizers[group.name]
            for settings in optimizer.param_groups:
                settings["lr"] = learning_rate(group.config, self.config.warmup, progress)
            if self._scaler is None:
                optimizer.step()
            else:
                self._scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        if self._scaler is not None:
            self._scaler.update()
        self.average.update()

    def _log(self) -> str:
        """Write a row where one is due; return the loss for the progress bar."""
        position, config = self.position, self.config
        due = position.stage_done or position.stage_step % config.log_every == 0
        validate = self.context.val_levels is not None and (
            position.stage_done or position.stage_step % config.val_every == 0
        )
        if not (due or validate):
            return ""
        row: dict[str, Any] = {"step": position.step, "stage": position.stage, "seconds": position.seconds}
        row["images"] = position.images
        means = self._means() if due else {}
        row.update(means)
        if due and position.cpu_seconds is not None:
            row["cpu_seconds"] = position.cpu_seconds
        if validate:
            self._settle()
            scores = self._by_average(self._scores)
            row.update({f"val_{name}": float(value) for name, value in scores.items()})
        if self.context.metrics is not None:
            self.context.metrics.write(row)
        if validate and self.context.draw is not None:
            self._by_average(self._sheet)
        # The bound, where a stage has one, is what a person follows; the total may be a surrogate of it.
        bound = f", nelbo {means['nelbo']:.4g}" if "nelbo" in means else ""
        return f"loss {means['total']:.4g}{bound}" if due else ""

    def _means(self) -> dict[str, float]:
        """Return what is logged since the last row: rates, means over steps and processes, speed."""
        assert self._sums is not None  # a step has been made
        position = self.position
        means = [value / self._count for value in self._world.mean(self._sums.tolist())]
        self._count_cpu()
        self._sums, self._count = None, 0
        # The rate in force in the step just made, whose progress the position has left behind.
        rates = {f"lr/{name}": float(o.param_groups[0]["lr"]) for name, o in self.optimizers.items()}
        images, seconds = position.images - self._mark[0], position.seconds - self._mark[1]
        self._mark = (position.images, position.seconds)
        speed = {"images_per_second": images / seconds if seconds > 0 else 0.0}
        scale = {} if self._scaler is None else {"loss_scale": self._scaler.get_scale()}
        return {**rates, **dict(zip(self._names, means, strict=True)), **speed, **scale}

    def _count_cpu(self) -> None:
        """Add what the processors of all processes spent on steps; a sum that begins unknown stays so."""
        spent = self._world.size * self._world.mean([self._clock.cpu()])[0]
        self.position.count_cpu(None if self._cpu_before is None else self._cpu_before + spent)

    def _by_average(self, look: Callable[[], T]) -> T:
        """Have the first process look at the averaged weights, of which others may have pieces to hand in."""
        with self._shards.averaged() if self._shards else contextlib.nullcontext():
            return self._world.on_main(look)

    def _scores(self) -> dict[str, float]:
        """Return the scores of the averaged weights on held-out levels, in eval mode."""
        levels = self.context.val_levels
        assert levels is not None
        with self._averaged():
            return self._whole.validate(levels, self._seed)

    def _sheet(self) -> None:
        """Draw a sheet of samples by the averaged weights: for people and trackers, no number hangs on it."""
        context, position = self.context, self.position
        assert context.draw is not None
        try:
            with self._averaged():
                images = context.draw(position.stage)
        except UserError:
            return  # weights of the first steps may send a sampler to infinity
        picture = tiled(images, columns=math.isqrt(len(images) - 1) + 1)
        path = context.run.directory / "sheets" / f"{position.stage}-{position.step:07d}.png"
        with writing(path):
            make_folder(path.parent)
            with atomic_path(path) as temporary:
                picture.save(temporary, format="PNG")
        if context.metrics is not None:
            context.metrics.trackers.picture(position.step, f"{position.stage}/samples", picture)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights in place, in eval mode."""
        module = self._whole.module
        try:
            with torch.no_grad(), contextlib.nullcontext() if self._shards else self.average.in_place():
                module.eval()
                with uncompiled() if self.config.compile else contextlib.nullcontext():
                    yield
        finally:
            module.train()

    def _settle(self) -> None:
        """Make sure that the step just made was finite, before its weights are measured or saved."""
        if self._agree(self._guard.bad(wait=True)).bad:
            self._fail()
        if self._scaler is not None and self._scaler.get_scale() < LEAST_SCALE:
            raise TrainingError(
                f"training stopped: up to step {self.position.step} gradients overflow float16, whatever the "
                "loss is scaled by; start another run with precision bfloat16 or float32"
            )

    def _save(self) -> None:
        self._settle()
        state = self._state()
        contents = self._shards.contents() if self._shards else None
        self._world.on_main(lambda: self._write(state, contents or self._contents()))
        self._saved = time.monotonic()

    def _state(self) -> dict[str, Any]:
        self._count_cpu()
        sums = [] if self._sums is None else self._world.mean(self._sums.tolist())
        scaled = {} if self._scaler is None else {"scaler": saved(self._scaler)}
        return {
            **self.position.as_dict(),
            "seed": self._seed,
            "ema_updates": self.average.updates,
            "log": {"count": self._count, "sums": sums},
            "meta": dict(self.context.meta),
            **scaled,
        }

    def _contents(self) -> Contents:
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return self.stage.module.state_dict(), self.average.state_dict(), optimizers

    def _write(self, state: dict[str, Any], contents: Contents) -> None:
        if self.context.metrics is not None:
            self.context.metrics.sync()
        parent = self.context.run.checkpoints
        save_checkpoint(parent, state, *contents)
        prune(parent, self.config.keep)

    def _time(self, phase: str | None) -> None:
        if (timer := self.context.timer) is not None:
            timer.start() if phase is None else timer.mark(phase)


def _said(state: Mapping[str, Any], key: str, checkpoint: Path) -> Any:
    if state.get(key) is None:
        raise CheckpointError(
            f"{checkpoint / 'state.json'} does not say '{key}'; restore it from a copy, or delete "
            f"{checkpoint} to go on from the one before"
        )
    return state[key]
