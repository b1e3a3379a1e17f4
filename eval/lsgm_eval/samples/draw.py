"""Batches of a model's images, checked, and drawn by a thread ahead of whoever looks at them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.errors import UserError
from lsgm.generative import GenerativeModel

__all__ = ["Batch", "ahead", "draw_batches"]

T = TypeVar("T")
DEPTH = 2
"""Batches that wait to be looked at: what bounds the memory of the one side's lead."""


@dataclass(frozen=True)
class Batch:
    """Images uint8 [B, C, H, W] from some seeds, their evaluations int64 [B], and the seconds they took."""

    start: int
    """Which of the seeds given is the first of these."""
    seeds: Sequence[int]
    images: Tensor
    nfe: Tensor
    seconds: float
    decoder_seconds: float | None = None
    """The decoder's part of them; None where it is not known."""


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
