"""A stage whose weights, gradients, optimiser states and average are shared out over the processes (FSDP2).

Each process keeps a piece of every parameter and has it whole for as long as it is used
(`torch.distributed.fsdp.fully_shard`). Optimisers and the average are elementwise, and step over the pieces
as they would over the whole. What is whole lies in the memory of the processor: weights that are restored or
saved, and those that are validated.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.optim import Optimizer

from lsgm.distributed import World
from lsgm.nets.layers import Attention, ResBlock
from lsgm.train.optim import ParamGroup, WeightAverage, build_optimizer
from lsgm.train.stage import Stage

Contents = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]
"""What a checkpoint holds: weights, averaged weights, and the optimisers' states by group."""


class Shards:
    """This process's pieces of a stage, made of the whole ones; `stage` and `module` are what is trained.

    ``whole`` lies on the CPU, with ``optimizers`` and ``average`` as they were restored; the optimisers are
    empty afterwards.
    """

    def __init__(
        self, whole: Stage, optimizers: Mapping[str, Optimizer], average: WeightAverage, world: World
    ) -> None:
        self.whole, self._world = whole, world
        self._mesh = init_device_mesh(world.device.type, (world.size,))
        self.stage = copy.deepcopy(whole)
        self.module = self.stage.module
        self.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for part in _blocks(self.module):
            fully_shard(part, mesh=self._mesh)
        fully_shard(self.module, mesh=self._mesh)
        self.module.to(world.device)  # buffers, which every process has
        self._pieces = {id(p): _piece(p) for p in self.module.parameters()}
        """Of each parameter its piece, as optimisers step it."""
        self._whole_of = {id(piece): p for p in self.module.parameters() for piece in [self._pieces[id(p)]]}
        self.groups = [
            ParamGroup(group.name, [self._pieces[id(p)] for p in group.params], group.config)
            for group in self.stage.groups()
        ]
        self.optimizers = {group.name: build_optimizer(group) for group in self.groups}
        for name, optimizer in optimizers.items():
            self._take(self.optimizers[name], optimizer.state_dict()["state"])
            optimizer.state.clear()
        self.average = ShardedAverage(self, average)

    def clip(self, params: Iterable[nn.Parameter], largest: float) -> Tensor:
        """Give the pieces their gradients and scale these to a joint norm; return the norm before.

        The norm is that of the whole gradients, as `lsgm.train.optim.clip_gradients` has it.
        """
        params = list(params)
        for piece in params:
            whole = self._whole_of[id(piece)]
            gradient, whole.grad = whole.grad, None
            piece.grad = None if gradient is None else _local(gradient)
        grads = [piece.grad for piece in params if piece.grad is not None]
        square = nn.utils.get_total_norm(grads).to(self._world.device, torch.float64).square()
        dist.all_reduce(square)
        norm = square.sqrt().float()
        if largest > 0:
            nn.utils.clip_grads_with_norm_(params, largest, norm)
        return norm

    def contents(self) -> Contents:
        """Return what a checkpoint holds, whole and on the CPU, to the first process; others get nothing.

        All processes call it.
        """
        model = self._gathered(self.module.state_dict())
        ema = self._gathered(self.average.pieces())
        states = {name: self._whole_state(name, optimizer) for name, optimizer in self.optimizers.items()}
        return model, ema, states

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the averaged weights whole on the first process, on the device, in eval mode and for a while.

        All processes enter it together; ``whole`` is what has them.
        """
        state, module = self._gathered(self.average.pieces()), self.whole.module
        if not self._world.main:
            yield
            return
        module.load_state_dict(state)
        module.to(self._world.device)
        module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            module.cpu()

    def gather_average(self) -> None:
        """Leave the averaged weights in the whole module of every process."""
        state = self._gathered(self.average.pieces(), everywhere=True)
        self.whole.module.load_state_dict(state)
        self.whole.module.to(self._world.device)

    def cut(self, whole: Tensor) -> Tensor:
        """Return this process's piece of a whole tensor, cut along its first dimension as FSDP does."""
        parts = torch.chunk(whole, self._world.size)
        own = parts[self._world.rank] if self._world.rank < len(parts) else whole[:0]
        return own.contiguous().to(self._world.device, copy=True)

    def _take(self, optimizer: Optimizer, state: Mapping[int, Mapping[str, Any]]) -> None:
        """Give an optimiser over pieces its part of the state of one over whole parameters."""
        if not state:
            return
        own = optimizer.state_dict()
        own["state"] = {
            index: {
                name: self.cut(value) if isinstance(value, Tensor) and value.ndim else value
                for name, value in entry.items()
            }
            for index, entry in state.items()
        }
        optimizer.load_state_dict(own)

    def _whole_state(self, name: str, optimizer: Optimizer) -> dict[str, Any]:
        group = next(group for group in self.groups if group.name == name)
        found = optimizer.state_dict()
        states: dict[int, dict[str, Any]] = {}
        for index, entry in found["state"].items():
            like = self._whole_of[id(group.params[index])]
            states[index] = {
                key: self._whole(self._as(value, like)) if isinstance(value, Tensor) and value.ndim else value
                for key, value in entry.items()
            }
        return {**found, "state": states}

    def _as(self, piece: Tensor, like: Any) -> Tensor:
        """Return a piece as what it is a piece of, which is shaped as a parameter."""
        return DTensor.from_local(
            piece, self._mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride()
        )

    def _gathered(self, state: Mapping[str, Tensor], *, everywhere: bool = False) -> dict[str, Tensor]:
        found = {name: self._whole(tensor, everywhere=everywhere) for name, tensor in state.items()}
        return found if everywhere or self._world.main else {}

    def _whole(self, tensor: Tensor, *, everywhere: bool = False) -> Tensor:
        """Return a tensor whole and on the CPU, elsewhere than on the first process an empty one."""
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return whole.detach().cpu() if everywhere or self._world.main else whole.new_empty(0)


class ShardedAverage(WeightAverage):
    """The average of the pieces, and of what every process has whole."""

    def __init__(self, shards: Shards, whole: WeightAverage) -> None:
        self._shards, self._decay, self._updates = shards, whole.decay, whole.updates
        state, averages = shards.module.state_dict(), whole.state_dict()
        names = [name for name in state if whole.covers(name)]
        self._own = {name: _local(state[name]) for name in names}
        self._shadow = {
            name: shards.cut(averages[name])
            if isinstance(state[name], DTensor)
            else averages[name].to(state[name].device, copy=True)
            for name in names
        }

    def pieces(self) -> dict[str, Tensor]:
        """Return a complete state dict of the module in pieces, averaged where an average is kept."""
        state: dict[str, Tensor] = dict(self._shards.module.state_dict())
        for name, shadow in self._shadow.items():
            whole = state[name]
            state[name] = self._shards._as(shadow, whole) if isinstance(whole, DTensor) else shadow
        return state

    def copy_to_module(self) -> None:
        """Overwrite the weights of the whole module, from which the next stage begins, on all processes."""
        self._shards.gather_average()

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        return list(self._own.values()), list(self._shadow.values())


def _blocks(module: nn.Module) -> list[nn.Module]:
    """Return the parts that are whole for their own time only: the blocks of the prior's network.

    Where something beside a block's own forward pass looks at its weights, a penalty on norms or a twin of
    the prior, there is none: all is then whole for a forward and a backward pass.
    """
    prior, times, kl = (getattr(module, name, None) for name in ("prior", "times", "kl"))
    twin = times != "shared" or getattr(kl, "balance", False)
    if prior is None or twin or hasattr(module, "prior_penalty"):
        return []
    return [part for part in prior.modules() if isinstance(part, ResBlock | Attention)]


def _piece(parameter: Any) -> nn.Parameter:
    return nn.Parameter(_local(parameter), requires_grad=parameter.requires_grad)


def _local(tensor: Tensor) -> Tensor:
    """Return the memory of this process's piece, or of what every process has."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
