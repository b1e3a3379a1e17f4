"""Draw, round, extract with several extractors and accumulate, in one pass that can be shared and resumed."""

from __future__ import annotations

import glob
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.devices import peak_bytes, reset_peak
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.files.arrays import Arrays
from lsgm.files.names import shown
from lsgm.generative import GenerativeModel
from lsgm.logs import log
from lsgm.progress import bar
from lsgm.results.manifest import digest_of
from lsgm.sampling.keep import Output, open_output
from lsgm.structure import to_dict
from lsgm_eval.cache import code_version, read_kept, room_for, write_kept
from lsgm_eval.features.extractor import Extractor, label_of
from lsgm_eval.metrics.moments import Array
from lsgm_eval.models import packages_of
from lsgm_eval.samples.collect import CAPACITY, Branch, Gathered, arrays_under, branches, room_of

T = TypeVar("T")
SAVE_EVERY = 60.0
"""Seconds between two writes of the state; longer where one write takes more than a twentieth of it."""
DEPTH = 2
"""Batches that wait to be looked at: what bounds the memory of the one side's lead."""
PREVIEW = 100
"""Images kept for the sheet."""


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
    same). Image number k of the pass is that of ``seeds[k]``; the processes share the batches (`World.deal`)
    and the parts are merged exactly. What is done so far is written to ``state_path`` now and then, by each
    process beside it, and the same call goes on from there, in as many processes as there then are; a file
    of another pass, or a damaged one, is named and begun again. ``save`` keeps the images, in a folder as
    PNGs or in an npz as ADM does (arr_0 uint8 [N, H, W, C]).

    Raises UserError, on all processes, for a model that returns fewer images than seeds, other shapes or
    floats, for features that are not finite, and for a place to save that holds other images.
    """
    if not len(seeds) or batch_size < 1:
        raise ValueError("a pass needs seeds and batches of at least one image")
    world = world or World(0, 1, torch.device("cpu"))

    def fresh() -> Share:
        return Share(model.pixels.shape, branches(extractors, len(seeds)), len(seeds))

    key = _pass_key(model, seeds, sampler, fresh().plan, world, save)
    output = open_output(save, key, seeds, model.pixels)
    share, rest = _resumed(fresh, state_path, key, output, world, len(seeds))
    numbers = rest[world.deal(len(rest), batch_size)]
    state = StateFile(_of_process(state_path, world), key) if state_path else None
    drawn = draw_batches(model, seeds, numbers, sampler, batch_size)
    said = ""
    try:
        if len(numbers):
            with ExitStack() as stack:
                batches = stack.enter_context(ahead(drawn, world.device)) if overlap else drawn
                total = share.done + len(numbers)
                _take_all(batches, total, model.name, share, output, state, save_every)
    except UserError as error:
        said = str(error)
    # What stopped one process is raised by all together.
    stopped = [stop for stop in world.gather(said) if stop]
    if stopped:
        raise UserError(stopped[0])
    world.on_main(output.finish)
    return _merged(share, branches(extractors, len(seeds)), world, overlap)


def _pass_key(
    model: GenerativeModel,
    seeds: Sequence[int],
    sampler: SamplerConfig,
    plan: Mapping[str, Branch],
    world: World,
    save: Path | None,
) -> str:
    """Return the sha256 of all that a pass depends on but for its batches, which only round differently."""
    return digest_of(
        {
            "model": model.sha256,
            "sampler": to_dict(sampler),
            "seeds": hashlib.sha256(np.asarray(seeds, dtype=np.int64).tobytes()).hexdigest(),
            "device": world.device.type,
            "branches": {
                label: [branch.extractor.dim, branch.extractor.resize, sorted(branch.parts)]
                for label, branch in plan.items()
            },
            "capacity": CAPACITY,
            "save": str(save.resolve()) if save else None,
            "code": code_version("lsgm", "lsgm_eval", *packages_of(model)),
        }
    )


def _of_process(path: Path, world: World) -> Path:
    if world.size == 1:
        return path
    return path.with_name(f"{path.stem}-{world.rank}-of-{world.size}{path.suffix}")


def _of_all(path: Path) -> list[Path]:
    """Return the files of a pass that are there, of however many processes: the merged one's first."""
    stem, end = glob.escape(path.stem), glob.escape(path.suffix)
    return [path for path in [path, *sorted(path.parent.glob(f"{stem}-*-of-*{end}"))] if path.exists()]


def _resumed(
    fresh: Callable[[], Share], path: Path | None, key: str, output: Output, world: World, total: int
) -> tuple[Share, NDArray[np.int64]]:
    """Return this process's share of what was done before, and the numbers of the images that are not done.

    The first process takes what all processes of the interrupted call had done, unless images that they say
    are kept are there no more. What it took is in its own file before the others' go, and a file of images
    that are in another one counts for nothing: no image is ever counted twice.
    """

    def look() -> NDArray[np.int64]:
        files = _of_all(path) if path else []
        for file in files:
            found = StateFile(file, key).read((other := fresh()).load, room=other.room)
            if found is not None and not np.isin(found.numbers, share.numbers).any():
                share.merge(found)
        if not output.prepare(share.numbers.tolist()):
            share.clear(fresh())
        mine = _of_process(path, world) if path else None
        if path is not None and mine is not None and files != [mine] and share.done:
            StateFile(mine, key).write(share.state())
            for file in files:
                if file != mine:
                    file.unlink(missing_ok=True)
        return share.numbers

    share = fresh()
    done = world.on_main(look)
    return share, np.setdiff1d(np.arange(total), done)


def _take_all(
    batches: Iterable[Batch],
    total: int,
    name: str,
    share: Share,
    output: Output,
    state: StateFile | None,
    every: float,
) -> None:
    """Extract, keep and count every batch of the model ``name``, and write the state now and then."""
    due = time.monotonic() + every
    reset_peak()
    with bar(total=total, desc=f"{name}: samples", unit="image") as progress:
        progress.n = progress.initial = share.done
        for batch in batches:
            number = batch.numbers
            begun = time.perf_counter()
            for branch in share.plan.values():
                try:
                    branch.take(batch.images, number)
                except UserError as error:
                    span = f"seeds {batch.seeds[0]} to {batch.seeds[-1]} of {name}"
                    raise UserError(
                        f"{branch.extractor.name} cannot take the images of {span}: {error}"
                    ) from error
            seconds = time.perf_counter() - begun
            output.write(number, batch.images)
            share.note(batch, number, seconds, peak_bytes())
            progress.set_postfix_str(f"nfe {share.told.nfe.mean():.1f}", refresh=False)
            progress.update(len(batch.images))
            if state and (time.monotonic() >= due or share.done == total):
                begun = time.monotonic()
                state.write(share.state())
                ended = time.monotonic()
                due = ended + max(every, 20 * (ended - begun) if every else 0)


def _merged(share: Share, spare: Mapping[str, Branch], world: World, overlapped: bool) -> Pass:
    """Return the union of all processes' shares; ``spare`` is an empty plan for what the others send."""
    if world.size > 1:
        # By rank, so that sums agree bit for bit everywhere.
        for label, branch in share.plan.items():
            first, *others = world.gather(branch.state())
            branch.load(first)
            for other in others:
                spare[label].load(other)
                branch.merge(spare[label])
    told = world.gather(share.told)
    order = np.argsort(np.concatenate([t.preview_numbers for t in told]))
    nfe = torch.zeros(sum(len(t.nfe) for t in told), dtype=torch.float64)
    for part in told:
        nfe[torch.from_numpy(part.numbers)] = torch.from_numpy(part.nfe)
    decoder = sum(float(t.decoder_seconds.sum()) for t in told)
    return Pass(
        gathered={label: branch.gathered for label, branch in share.plan.items()},
        preview=torch.from_numpy(np.concatenate([t.preview for t in told])[order]),
        nfe=nfe,
        seconds=tuple(second for t in told for second in t.seconds.tolist()),
        counts=tuple(count for t in told for count in t.counts.tolist()),
        decoder_seconds=None if math.isnan(decoder) else decoder,
        extraction_seconds=sum(t.extraction_seconds for t in told),
        overlapped=overlapped,
        peak_bytes=max(t.peak_bytes for t in told) or None,
    )


# One process's part of a pass: how far it is, what it has gathered, what its images cost, and its file


@dataclass(frozen=True)
class Batch:
    """Images uint8 [B, C, H, W] from some seeds, their evaluations int64 [B], and the seconds they took."""

    numbers: NDArray[np.int64]
    """Of the images in the pass, [B]."""
    seeds: Sequence[int]
    images: Tensor
    nfe: Tensor
    seconds: float
    decoder_seconds: float | None = None
    """The decoder's part of them; None where it is not known."""


@dataclass
class Told:
    """What the other processes must know of a share, beside its accumulators; arrays of its file by name."""

    numbers: NDArray[np.int64]
    """Of the images that are done, in the order in which they were."""
    nfe: Array
    """Of each of these."""
    preview: NDArray[np.uint8]
    preview_numbers: NDArray[np.int64]
    seconds: Array
    """Of every batch."""
    decoder_seconds: Array
    """NaN for batches of which it is not known."""
    counts: NDArray[np.int64]
    """Images of every batch."""
    extraction_seconds: float = 0.0
    peak_bytes: int = 0
    """0 where it is not known."""


class Share:
    """What is done of a pass of ``total`` images [C, H, W]: everything that a resumed one needs."""

    def __init__(self, image_shape: tuple[int, int, int], plan: Mapping[str, Branch], total: int) -> None:
        self.plan, self._total = plan, total
        none, whole = np.empty(0), np.empty(0, np.int64)
        preview = np.empty((0, *image_shape), np.uint8)
        self.told = Told(whole, none, preview, whole, none, none, whole)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers of the images that are done."""
        return self.told.numbers

    @property
    def done(self) -> int:
        """How many images are done."""
        return len(self.told.numbers)

    @property
    def room(self) -> int:
        """Bytes that `state` takes at most, but for sums that do not grow with the features."""
        dims = [branch.extractor.dim for branch in self.plan.values()]
        dims += [branch.spatial.moments.dim for branch in self.plan.values() if branch.spatial is not None]
        image = math.prod(self.told.preview.shape[1:])
        return sum(map(room_of, dims)) + 40 * self._total + PREVIEW * image

    def merge(self, other: Share) -> None:
        """Take everything that another share of the pass has done."""
        if not self.done:  # as it is, to the last bit
            self.plan, self.told = other.plan, other.told
            return
        for label, branch in self.plan.items():
            branch.merge(other.plan[label])
        ours, theirs = vars(self.told), vars(other.told)
        both: dict[str, Any] = {
            name: np.concatenate([value, theirs[name]])
            for name, value in ours.items()
            if isinstance(value, np.ndarray)
        }
        both["extraction_seconds"] = self.told.extraction_seconds + other.told.extraction_seconds
        both["peak_bytes"] = max(self.told.peak_bytes, other.told.peak_bytes)
        self.told = Told(**both)

    def clear(self, empty: Share) -> None:
        """Forget everything, for what an ``empty`` share has."""
        self.plan, self.told = empty.plan, empty.told

    def note(
        self, batch: Batch, number: NDArray[np.int64], extraction_seconds: float, peak: int | None
    ) -> None:
        """Count a batch, whose images are numbered ``number`` [B] in the pass, as done."""
        told = self.told
        told.numbers = np.append(told.numbers, number)
        told.nfe = np.append(told.nfe, batch.nfe.numpy())
        told.seconds = np.append(told.seconds, batch.seconds)
        decoder = math.nan if batch.decoder_seconds is None else batch.decoder_seconds
        told.decoder_seconds = np.append(told.decoder_seconds, decoder)
        told.counts = np.append(told.counts, len(batch.images))
        first = number < PREVIEW
        if first.any():
            told.preview = np.concatenate([told.preview, batch.images.numpy()[first]])
            told.preview_numbers = np.append(told.preview_numbers, number[first])
        told.extraction_seconds += extraction_seconds
        told.peak_bytes = max(told.peak_bytes, peak or 0)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return named arrays from which `load` goes on; they hold until the next batch.

        Those of an accumulator are called ``name@sha256/part/array`` after its extractor.
        """
        arrays = {name: np.asarray(value) for name, value in vars(self.told).items()}
        for label, branch in self.plan.items():
            arrays |= {f"{label}/{name}": array for name, array in branch.state().items()}
        return arrays

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> Share:
        """Take what `state` returned, and return this share."""
        told: dict[str, Any] = {
            name: arrays[name] if arrays[name].ndim else arrays[name].item() for name in vars(self.told)
        }
        self.told = Told(**told)
        for label, branch in self.plan.items():
            branch.load(arrays_under(arrays, label))
        return self


@dataclass(frozen=True)
class StateFile:
    """A file of named arrays; only those that were written under the same key are ever read."""

    path: Path
    key: str

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace the file: by all of the arrays or, after a crash, not at all."""
        write_kept(self.path, {"key": np.array(self.key), **arrays}, sealed=True)

    def read(self, use: Callable[[Arrays], T], *, room: int = 0) -> T | None:
        """Return what ``use`` makes of the arrays, or None where there is no file or one that is of no use.

        A file that is damaged, or of another pass, is named on standard error. ``room`` is what its arrays
        may take in bytes beyond the usual limit.
        """

        def ours(arrays: Arrays) -> T | None:
            if arrays.text("key") == self.key:
                return use(arrays)
            log.warning(
                f"the interrupted pass {shown(str(self.path))} is of another pass: its model, seeds, "
                "sampler, extractors or code differ; beginning again"
            )
            return None

        said = "the interrupted pass {path} is damaged ({why}); beginning again"
        return read_kept(self.path, ours, damaged=said, limit=room_for(room), sealed=True)


# The images themselves, drawn in a thread


def draw_batches(
    model: GenerativeModel,
    seeds: Sequence[int],
    numbers: NDArray[np.int64],
    sampler: SamplerConfig,
    batch_size: int,
) -> Iterator[Batch]:
    """Yield the images of the seeds numbered ``numbers``, in batches.

    Raises UserError where the model returns fewer images than seeds, images of another shape than it says,
    or images that are not uint8: how floats become levels is the model's affair and part of what is
    measured, and features of unrounded images would be of images that nobody can write to a file.
    """
    for at in range(0, len(numbers), batch_size):
        own = numbers[at : at + batch_size]
        chosen = [seeds[number] for number in own.tolist()]
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
        yield Batch(own, chosen, images, nfe, drawn.seconds, drawn.decoder_seconds)


@contextmanager
def ahead(items: Iterable[T], device: torch.device, *, depth: int = DEPTH) -> Iterator[Iterator[T]]:
    """Yield an iterator of ``items`` that a thread makes while earlier ones are used, ``depth`` ahead.

    What goes wrong in the thread is raised where the item would have come; when the block is left, for
    whatever reason, the thread stops after the item it is making. On a GPU it has a stream of its own, so
    that kernels of both run side by side; what it hands over must be made, as images on the CPU are.
    """
    source, waiting = iter(items), deque[Future[list[T]]]()
    new_stream: Any = torch.cuda.Stream
    stream = new_stream(device) if device.type == "cuda" else None
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(device))  # what is under way makes the networks' weights

    def enter() -> None:
        if stream is not None:  # device and stream belong to a thread
            torch.cuda.set_device(device)
            torch.cuda.set_stream(stream)

    def one() -> list[T]:
        return list(islice(source, 1))

    def taken() -> Iterator[T]:
        while item := waiting.popleft().result():
            waiting.append(pool.submit(one))
            yield item[0]

    pool = ThreadPoolExecutor(1, "lsgm-samples", enter)
    try:
        waiting.extend(pool.submit(one) for _ in range(depth + 1))
        yield taken()
    finally:
        pool.shutdown(cancel_futures=True)
        if stream is not None:
            torch.cuda.current_stream(device).wait_stream(stream)
