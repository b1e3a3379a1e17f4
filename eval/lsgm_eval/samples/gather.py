"""Draw, round, extract with several extractors and accumulate, in one pass that can be shared and resumed."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.devices import peak_bytes, reset_peak
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.files.arrays import Arrays
from lsgm.generative import GenerativeModel
from lsgm.progress import bar
from lsgm.sampling.keep import Output, open_output
from lsgm_eval.features.extractor import Extractor, label_of
from lsgm_eval.samples.collect import Accumulator, Branch, Gathered, branches
from lsgm_eval.samples.share import Batch, Share, StateFile, pass_key

__all__ = ["DEPTH", "Pass", "ahead", "draw_batches", "run_pass"]

T = TypeVar("T")
SAVE_EVERY = 60.0
"""Seconds between two writes of the state; longer where one write takes more than a twentieth of it."""
DEPTH = 2
"""Batches that wait to be looked at: what bounds the memory of the one side's lead."""


@dataclass(frozen=True)
class Pass:
    """What one pass over a model's images has found; the same on every process."""

    gathered: Mapping[str, Gathered]
    """By extractor, ``name@sha256``."""
    preview: Tensor
    """The first images, uint8 [at most 100, C, H, W]."""
    nfe: Tensor
    """Network evaluations of each image, [N] in the order of the seeds."""
    seconds: tuple[float, ...]
    """Seconds that the model took for each batch; where ``overlapped``, beside extraction on one machine."""
    counts: tuple[int, ...]
    """Images of each batch."""
    decoder_seconds: float | None
    """The decoder's part of all seconds; None where a model does not tell it."""
    extraction_seconds: float
    """Seconds of extraction and accumulation, over all processes."""
    overlapped: bool
    peak_bytes: int | None

    def of(self, extractor: Extractor) -> Gathered:
        """Return what the pass has of one extractor."""
        return self.gathered[label_of(extractor)]


def run_pass(
    model: GenerativeModel,
    seeds: Sequence[int],
    sampler: SamplerConfig,
    extractors: Sequence[Extractor],
    *,
    batch_size: int,
    state_path: Path | None = None,
    world: World | None = None,
    save: Path | None = None,
    overlap: bool = True,
    save_every: float = SAVE_EVERY,
) -> Pass:
    """Draw one image for each seed and return what all extractors make of them, without keeping the images.

    A thread draws the next batches while one is extracted (not with ``overlap=False``: the numbers are the
    same). Image number k of the pass is that of ``seeds[k]``; process r takes every world.size-th from r and
    the parts are merged exactly. What is done so far is written to ``state_path`` now and then, and the same
    call goes on from there; a file of another pass, or a damaged one, is named and begun again. ``save``
    keeps the images, in a folder as PNGs or in an npz as ADM does (arr_0 uint8 [N, H, W, C]).

    Raises UserError, on all processes, for a model that returns fewer images than seeds, other shapes or
    floats, for features that are not finite, and for a place to save that holds other images.
    """
    if not len(seeds) or batch_size < 1:
        raise ValueError("a pass needs seeds and batches of at least one image")
    world = world or World(0, 1, torch.device("cpu"))
    numbers = np.arange(world.rank, len(seeds), world.size)

    def fresh() -> Share:
        return Share(numbers, model.pixels.shape, branches(extractors, len(seeds)))

    key = pass_key(model, seeds, sampler, fresh().plan, world, save)
    output = open_output(save, key, seeds, model.pixels)
    state = StateFile(_of_process(state_path, world), key) if state_path else None
    share = _resumed(fresh, state, output, world, len(seeds))
    job = _Work(model, seeds, sampler, batch_size, world, output, share, overlap)
    stopped = [stop for stop in world.gather(job.run(state, save_every)) if stop]
    if stopped:
        raise UserError(stopped[0])
    world.on_main(output.finish)
    return _merged(share, branches(extractors, len(seeds)), world, overlap)


def _of_process(path: Path, world: World) -> Path:
    if world.size == 1:
        return path
    return path.with_name(f"{path.stem}-{world.rank}-of-{world.size}{path.suffix}")


def _resumed(
    fresh: Callable[[], Share], state: StateFile | None, output: Output, world: World, total: int
) -> Share:
    """Return the share that the state tells of, unless images that it says are kept are there no more."""

    def begun(arrays: Arrays) -> Share:
        share = fresh()
        share.load(arrays)
        return share

    found = state.read(begun, room=fresh().room) if state else None
    done = world.gather(found.done if found is not None else 0)
    complete = sum(done) == total
    kept = world.on_main(lambda: output.prepare(total if complete else min(done) * world.size))
    return found if found is not None and kept else fresh()


@dataclass(frozen=True)
class _Work:
    """One process's work: its share of the seeds."""

    model: GenerativeModel
    seeds: Sequence[int]
    sampler: SamplerConfig
    batch_size: int
    world: World
    output: Output
    share: Share
    overlap: bool

    def run(self, state: StateFile | None, save_every: float) -> str:
        """Finish the share; return what stopped it, for all processes to raise together, or nothing."""
        try:
            if self.share.done < self.share.count:
                self._go_on(state, save_every)
        except UserError as error:
            return str(error)
        return ""

    def _go_on(self, state: StateFile | None, save_every: float) -> None:
        due = time.monotonic() + save_every
        reset_peak()
        title = f"{self.model.name}: samples"
        with (
            self._batches() as batches,
            bar(total=self.share.count, desc=title, unit="image") as progress,
        ):
            progress.n = progress.initial = self.share.done
            for batch in batches:
                self._take(batch)
                progress.set_postfix_str(f"nfe {self.share.mean_nfe:.1f}", refresh=False)
                progress.update(len(batch.images))
                if state and (time.monotonic() >= due or self.share.done == self.share.count):
                    begun = time.monotonic()
                    state.write(self.share.state())
                    ended = time.monotonic()
                    due = ended + max(save_every, 20 * (ended - begun) if save_every else 0)

    @contextmanager
    def _batches(self) -> Iterator[Iterator[Batch]]:
        mine = self.seeds[self.world.rank :: self.world.size]
        drawn = draw_batches(self.model, mine, self.sampler, self.batch_size, start=self.share.done)
        if not self.overlap:
            yield drawn
            return
        with ahead(drawn, self.world.device) as batches:
            yield batches

    def _take(self, batch: Batch) -> None:
        number = self.share.numbers[batch.start : batch.start + len(batch.images)]
        begun = time.perf_counter()
        for branch in self.share.plan.values():
            try:
                branch.take(batch.images, number)
            except UserError as error:
                span = f"seeds {batch.seeds[0]} to {batch.seeds[-1]} of {self.model.name}"
                raise UserError(
                    f"{branch.extractor.name} cannot take the images of {span}: {error}"
                ) from error
        seconds = time.perf_counter() - begun
        self.output.write(number, batch.images)
        self.share.note(batch, number, seconds, peak_bytes())


def _merged(share: Share, spare: Mapping[str, Branch], world: World, overlapped: bool) -> Pass:
    """Return the union of all processes' shares; ``spare`` is an empty plan for what the others send."""
    for label, branch in share.plan.items():
        others = spare[label].parts
        for part, accumulator in branch.parts.items():
            _unite(accumulator, others[part], world)
    shares = world.gather(share.told)
    order = np.argsort(np.concatenate([s.preview_numbers for s in shares]))
    nfe = torch.zeros(sum(len(s.nfe) for s in shares), dtype=torch.float64)
    for rank, part_of in enumerate(shares):
        nfe[rank :: world.size] = torch.from_numpy(part_of.nfe)
    decoder = sum(second for s in shares for second in s.decoder_seconds)
    return Pass(
        gathered={label: branch.gathered for label, branch in share.plan.items()},
        preview=torch.from_numpy(np.concatenate([s.preview for s in shares])[order]),
        nfe=nfe,
        seconds=tuple(second for s in shares for second in s.seconds),
        counts=tuple(count for s in shares for count in s.counts),
        decoder_seconds=None if math.isnan(decoder) else decoder,
        extraction_seconds=sum(s.extraction_seconds for s in shares),
        overlapped=overlapped,
        peak_bytes=max(s.peak_bytes for s in shares) or None,
    )


def _unite(mine: Accumulator, spare: Accumulator, world: World) -> None:
    """Merge all processes' accumulators into ``mine``, by rank, so that they agree bit for bit everywhere."""
    if world.size == 1:
        return
    states = world.gather(mine.state())
    mine.load(states[0])
    for state in states[1:]:
        spare.load(state)
        mine.merge(spare)


def draw_batches(
    model: GenerativeModel, seeds: Sequence[int], sampler: SamplerConfig, batch_size: int, *, start: int = 0
) -> Iterator[Batch]:
    """Yield the images of ``seeds[start:]`` in batches.

    Raises UserError where the model returns fewer images than seeds, images of another shape than it says,
    or images that are not uint8: how floats become levels is the model's affair and part of what is
    measured, and features of unrounded images would be of images that nobody can write to a file.
    """
    for at in range(start, len(seeds), batch_size):
        chosen = list(seeds[at : at + batch_size])
        drawn = model.sample(chosen, sampler)
        if len(drawn.images) != len(chosen) or len(drawn.nfe) != len(chosen):
            raise UserError(
                f"{model.name} returned {len(drawn.images)} images for {len(chosen)} seeds: "
                "the protocol needs one image, and its evaluations, for each"
            )
        if drawn.images.dtype != torch.uint8:
            raise UserError(
                f"{model.name} returned images of {drawn.images.dtype}: round them to uint8 in 0..255 in "
                "its sample, because distances are those of images as they are written to files"
            )
        shape = tuple(drawn.images.shape[1:])
        if shape != model.pixels.shape:
            got, said = "x".join(map(str, shape)), "x".join(map(str, model.pixels.shape))
            raise UserError(f"{model.name} returned images of {got} and says it makes {said}: correct either")
        images, nfe = drawn.images.cpu(), drawn.nfe.cpu()
        yield Batch(at, chosen, images, nfe, drawn.seconds, drawn.decoder_seconds)


@dataclass(frozen=True)
class _End:
    error: BaseException | None


@contextmanager
def ahead(items: Iterable[T], device: torch.device, *, depth: int = DEPTH) -> Iterator[Iterator[T]]:
    """Yield an iterator of ``items`` that a thread makes while earlier ones are used, ``depth`` ahead.

    What goes wrong in the thread is raised where the item would have come; when the block is left, for
    whatever reason, the thread stops after the item it is making.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    left = threading.Event()

    def offer(item: T | _End) -> bool:
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            if device.type == "cuda":  # the current device belongs to a thread
                torch.cuda.set_device(device)
            for item in items:
                if not offer(item):
                    return
            offer(_End(None))
        except BaseException as error:
            offer(_End(error))

    def taken() -> Iterator[T]:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=work, name="lsgm-samples", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        left.set()
        thread.join()
