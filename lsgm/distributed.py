"""One process or several: torchrun's environment, gloo or NCCL, and who may write."""

from __future__ import annotations

import atexit
import gc
import os
import secrets
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lsgm import peers
from lsgm.errors import ConfigError, UserError

T = TypeVar("T")

_c10d: Any = dist
"""For what its types leave out: stores."""


@dataclass(frozen=True)
class World:
    """The processes of this run and this one's place among them. Only the first one writes."""

    rank: int
    size: int
    device: torch.device
    control: Any = None
    """A gloo group for decisions, so that agreeing on one never waits for the GPU."""

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """Return this process's rows of a global batch. Raises ConfigError where they would not be equal."""
        if batch % self.size:
            raise ConfigError(
                f"batch-size is {batch}, which {self.size} processes cannot share equally; "
                f"give a multiple of {self.size}"
            )
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def deal(self, count: int, batch: int) -> NDArray[np.int64]:
        """Return which of ``count`` things this process does, to be done ``batch`` at a time in that order.

        Whole batches, those that one process would make, in turns: what is computed of a batch is then the
        same to the last bit however many processes there are. Where that would leave the busiest with over a
        tenth more than its equal part, as of few batches, things are dealt singly.
        """
        batches = -(-count // batch)
        busiest = -(-batches // self.size) * batch
        if self.size > 1 and busiest * self.size > 1.1 * count:
            return np.arange(self.rank, count, self.size)
        return np.flatnonzero(np.arange(count) // batch % self.size == self.rank)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with its gradients averaged over the processes.

        Buffers are the same everywhere without being sent: running statistics come from the whole batch
        (`lsgm.nets.layers`), the rest from the recipe's seed, from a checkpoint or from the weights.
        """
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # Newer versions of torch have another name for it, which older ones do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            # Gradients are added up where they are sent from, which saves copying all of them. gloo sends
            # pieces that a processor's cache holds twice as fast as larger ones.
            return DistributedDataParallel(
                module,
                device_ids=ids,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                bucket_cap_mb=None if ids else 4,
                # Of gloo in a group of their own: moments of batch normalisation wait for no gradient.
                process_group=None if ids else _gradients(),
            )

    def largest(self, values: Sequence[float]) -> list[float]:
        """Return the maximum of each value over the processes."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean of each value over the processes."""
        return [value / self.size for value in self._reduce(values, dist.ReduceOp.SUM)]

    def gather(self, item: T) -> list[T]:
        """Return every process's item, in the order of their ranks."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item, group=self.control)
        return items

    def hand_in(self, item: T) -> list[T]:
        """Return every process's item in the order of their ranks to the first one, nothing to the others."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        dist.gather_object(item, items if self.main else None, group=self.control)
        return items if self.main else []

    def on_main(self, action: Callable[[], T]) -> T:
        """Run `action` on the first process; all wait for it, get its result, or raise its UserError."""
        if self.size == 1:
            return action()
        box: list[Any] = [None, None]
        if self.main:
            try:
                box[0] = action()
            except UserError as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0, group=self.control)
        if box[1] is not None:
            raise box[1]
        result: T = box[0]
        return result

    def _reduce(self, values: Sequence[float], how: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=how, group=self.control)
        result: list[float] = tensor.tolist()
        return result


ALONE = World(0, 1, torch.device("cpu"))
"""One process on the CPU."""


def join(device: torch.device | str) -> World:
    """Join the processes that torchrun has started, or be alone; the process leaves them when it ends.

    Uses gloo on the CPU and NCCL on CUDA, where process k of a machine takes GPU k. May be called again and
    again: a process joins once.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", _number("LOCAL_RANK", 0))
    joined = dist.is_available() and dist.is_initialized()
    if not joined and _number("WORLD_SIZE", 1) == 1:
        return World(0, 1, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not joined:
        both = torch.cuda.is_available() and dist.is_nccl_available()
        store, rank, size = _store()
        met = _c10d.PrefixStore(meet(store, rank, size), store)
        backend = "cpu:gloo,cuda:nccl" if both else "gloo"
        dist.init_process_group(backend, store=met, rank=rank, world_size=size)
        # Not left before the process ends: torchrun's store still holds the addresses of the first time,
        # and a second one would call them.
        atexit.register(leave)
    world = World(dist.get_rank(), dist.get_world_size(), device, _control())
    if not joined and world.size > 1:
        peers.watch(world.rank, world.size, os.environ.get("MASTER_ADDR", "localhost"), world.gather)
    return world


def _number(variable: str, default: int) -> int:
    """Return a number of torchrun's environment. Raises ConfigError for what is none."""
    given = os.environ.get(variable, str(default))
    if not (given.isascii() and given.isdecimal() and len(given) < 10):
        raise ConfigError(f"{variable} is '{given[:40]}', which torchrun sets to a whole number; unset it")
    return int(given)


def _store() -> tuple[Any, int, int]:
    """Return the store that the launcher's environment names, this process's rank and their number."""
    rank, size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        store, rank, size = next(iter(_c10d.rendezvous("env://", rank, size)))
        return store, rank, size
    # torchrun's own. torch would set names apart by the count of restarts, which nodes may count differently.
    place = os.environ["MASTER_ADDR"], _number("MASTER_PORT", 0)
    return _c10d.TCPStore(*place, is_master=False, timeout=_c10d.default_pg_timeout), rank, size


def meet(store: Any, rank: int, size: int) -> str:
    """Return a name that the processes which are alive now share, and none of before.

    A store may outlive processes that are started again, with what they wrote: addresses at which nobody
    answers any more. So each says hello by a word of its own, and the first one answers the word, not the
    rank, with the name, until every rank has repeated it.
    """
    if rank:
        word = secrets.token_hex(8)
        store.set(f"lsgm/{size}/hello/{rank}", word)
        name: str = store.get(f"lsgm/{size}/to/{word}").decode()
        store.set(f"lsgm/{size}/heard/{word}/{name}", "")
        return name
    name, missing = secrets.token_hex(8), set(range(1, size))
    until = time.monotonic() + _c10d.default_pg_timeout.total_seconds()
    while missing:
        for other in list(missing):
            if not store.check([f"lsgm/{size}/hello/{other}"]):
                continue
            word = store.get(f"lsgm/{size}/hello/{other}").decode()
            store.set(f"lsgm/{size}/to/{word}", name)
            if store.check([f"lsgm/{size}/heard/{word}/{name}"]):
                missing.remove(other)
        if time.monotonic() > until:
            raise ConfigError(f"of {size} processes {len(missing)} have not come; start all of them again")
        time.sleep(0.01)
    return name


PATIENCE = timedelta(hours=4)
"""How long a process waits for a decision of another one, which may measure or fetch something meanwhile.

Processes that die are found at once (`lsgm.peers`); this is for one that lives and never comes.
"""


@cache
def _control() -> Any:
    return dist.new_group(backend="gloo", timeout=PATIENCE)


@cache
def _gradients() -> Any:
    return dist.new_group(backend="gloo")


_SETTLING = 0.3
"""Seconds for gloo's threads to put down the tensors of the last message, many turns of a scheduler."""


def leave() -> None:
    """Leave the group, if this process is in one, before the interpreter goes.

    A group's threads end only with its last reference, and DistributedDataParallel keeps one for good. A
    thread that frees a tensor while Python finalises is ended within C++ code that must not be left, and
    the process aborts. So what can be dropped is dropped, and the threads that stay are given time to idle.
    """
    peers.leave()
    if dist.is_initialized():
        _control.cache_clear()
        _gradients.cache_clear()
        dist.destroy_process_group()
        gc.collect()
        time.sleep(_SETTLING)
