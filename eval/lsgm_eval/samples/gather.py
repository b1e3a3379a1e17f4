"""Draw, round, extract with several extractors and accumulate, in one pass that can be shared and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from lsgm_eval.features.extractor import Extractor
from lsgm_eval.features.statistics import FeatureStats
from lsgm_eval.samples.draw import Batch, ahead, draw_batches
from lsgm_eval.samples.share import (
    Accumulator,
    Accumulators,
    Branch,
    Share,
    StateFile,
    branches,
    class_sums,
    pass_key,
)

__all__ = ["Pass", "run_pass"]

SAVE_EVERY = 60.0
"""Seconds between two writes of the state; longer where one write takes more than a twentieth of it."""


@dataclass(frozen=True)
class Pass:
    """What one pass over a model's images has found; the same on every process."""

    stats: Mapping[str, FeatureStats]
    """Moments and rows of the pooled features, by extractor."""
    spatial: Mapping[str, FeatureStats]
    """The same of the spatial features, of the extractors that have them."""
    others: Mapping[str, Mapping[str, Accumulator]]
    """What else was accumulated, by extractor; ``classes`` are the sums of the Inception Score."""
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
    accumulators: Accumulators = class_sums,
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
        return Share(numbers, model.pixels.shape, branches(extractors, len(seeds), accumulators))

    key = pass_key(model, seeds, sampler, fresh().plan, world, save)
    output = open_output(save, key, seeds, model.pixels)
    state = StateFile(_of_process(state_path, world), key) if state_path else None
    share = _resumed(fresh, state, output, world, len(seeds))
    job = _Job(model, seeds, sampler, batch_size, world, output, share, overlap)
    stopped = [stop for stop in world.gather(job.run(state, save_every)) if stop]
    if stopped:
        raise UserError(stopped[0])
    world.on_main(output.finish)
    return _merged(share, branches(extractors, len(seeds), accumulators), world, overlap)


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
class _Job:
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
        for name, branch in self.share.plan.items():
            try:
                branch.take(batch.images, number)
            except UserError as error:
                span = f"seeds {batch.seeds[0]} to {batch.seeds[-1]} of {self.model.name}"
                raise UserError(f"{name} cannot take the images of {span}: {error}") from error
        seconds = time.perf_counter() - begun
        self.output.write(number, batch.images)
        self.share.note(batch, number, seconds, peak_bytes())


def _merged(share: Share, spare: Mapping[str, Branch], world: World, overlapped: bool) -> Pass:
    """Return the union of all processes' shares; ``spare`` is an empty plan for what the others send."""
    for name, branch in share.plan.items():
        others = spare[name].parts()
        for part, accumulator in branch.parts().items():
            _unite(accumulator, others[part], world)
    shares = world.gather(share.summary())
    order = np.argsort(np.concatenate([s.preview_numbers for s in shares]))
    nfe = torch.zeros(sum(len(s.nfe) for s in shares), dtype=torch.float64)
    for rank, part_of in enumerate(shares):
        nfe[rank :: world.size] = torch.from_numpy(part_of.nfe)
    decoder = sum(second for s in shares for second in s.decoder_seconds)
    peaks = [s.peak_bytes for s in shares if s.peak_bytes is not None]
    plan = share.plan
    return Pass(
        stats={name: branch.features.stats() for name, branch in plan.items()},
        spatial={name: b.spatial.stats() for name, b in plan.items() if b.spatial is not None},
        others={name: branch.others for name, branch in plan.items()},
        preview=torch.from_numpy(np.concatenate([s.preview for s in shares])[order]),
        nfe=nfe,
        seconds=tuple(second for s in shares for second in s.seconds),
        counts=tuple(count for s in shares for count in s.counts),
        decoder_seconds=None if math.isnan(decoder) else decoder,
        extraction_seconds=sum(s.extraction_seconds for s in shares),
        overlapped=overlapped,
        peak_bytes=max(peaks, default=None),
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
