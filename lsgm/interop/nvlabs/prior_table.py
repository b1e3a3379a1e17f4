"""The authors' names of the prior's tensors against ours.

Theirs number all layers through in the order of execution, `all_modules.0`, `all_modules.1` and so on, as
score_sde does; ours have names. Some of ours stack several of theirs: the queries, keys and values of an
attention, and the time's dense layers of all blocks. Everything here is linear, so that one table serves
weights, averages and gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.fir import FIR, FIRConv
from lsgm.nets.layers import Attention, Head, Resample, ResBlock
from lsgm.nets.ncsnpp import NCSNpp, Stack
from lsgm.nets.pyramid import (
    InputResidual,
    InputSkip,
    OutputResidual,
    OutputSkip,
    RepeatConv,
    StridedConv,
)

__all__ = ["Source", "Table", "layers_in_order", "numbered_rows", "prior_table"]


class Source(NamedTuple):
    """Where one of our tensors comes from."""

    names: list[str]
    """The authors' tensors."""
    assemble: Callable[[Sequence[Tensor]], Tensor]
    """From these to ours: a stacking or a transposition."""


Table = dict[str, Source]

RES_BLOCK = {
    "norm1": "GroupNorm_0",
    "conv1": "Conv_0",
    "norm2": "GroupNorm_1",
    "conv2": "Conv_1",
    "skip": "Conv_2",
}
"""Our layers of a residual block, without the time's, against theirs."""


def prior_table(config: ScoreNetConfig, channels: int, resolution: int) -> Mapping[str, Source]:
    """Return, for every parameter of a `ScoreModel` with mixing by its name, what it is made of.

    So too for the frequencies of a Fourier embedding. Which channels are active is not in their checkpoints.
    """
    with torch.device("meta"):
        network = NCSNpp(config, channels=channels, resolution=resolution)
    rows = numbered_rows(network, layers_in_order(network))
    if config.embedding_kind == "fourier":
        rows["embed.frequencies"] = Source(["temb_fun.w"], _flat)
    named = {f"network.{name}": row for name, row in rows.items()}
    return {"logit": Source(["mixing_logit"], _alone), **named}


def numbered_rows(network: NCSNpp, layers: Iterable[nn.Module], first: int = 0) -> Table:
    """Return what the network's own parameters are made of, where ``layers`` are numbered from ``first``."""
    ours = {layer: name for name, layer in network.named_modules()}
    theirs = {layer: f"all_modules.{number}" for number, layer in enumerate(layers, first)}
    table: Table = {}
    for layer, name in theirs.items():
        table |= _layer(layer, ours[layer], name)
    dense = [f"{theirs[stack.block]}.Dense_0" for stack in _stacks(network)]
    for kind in ("weight", "bias"):
        table[f"shifts.{kind}"] = Source([f"{name}.{kind}" for name in dense], _stacked)
    return table


def layers_in_order(network: NCSNpp) -> Iterator[nn.Module]:
    """Yield the layers that they number, in the order of execution; those without parameters have none."""
    yield from (network.embed.first, network.embed.second, network.stem)
    for stack, join in zip(network.down, network.joins_down, strict=True):
        yield from _stack(stack)
        yield from _join(join)
    for stack in network.middle:
        yield from _stack(stack)
    for stack, join in zip(network.up, network.joins_up, strict=True):
        yield from _stack(stack)
        yield from _join(join)
    yield from _head(network.head)


def _stacks(network: NCSNpp) -> Iterator[Stack]:
    for stack in (*network.down, *network.middle, *network.up):
        assert isinstance(stack, Stack)
        yield stack


def _stack(stack: nn.Module) -> Iterator[nn.Module]:
    assert isinstance(stack, Stack)
    yield stack.block
    if isinstance(stack.attention, Attention):
        yield stack.attention


def _join(join: nn.Module) -> Iterator[nn.Module]:
    match join:
        case InputSkip():
            # Resampling without parameters is one module for all levels there, which stands outside the list.
            # The 1 x 1 convolution lies in a layer of theirs that has nothing else; it stands for that layer.
            yield join
        case InputResidual():
            yield join.resample
        case OutputSkip() | OutputResidual():
            if any(True for _ in join.resample.parameters()):
                yield join.resample
            yield from _head(join.head)


def _head(head: nn.Module) -> Iterator[nn.Module]:
    if isinstance(head, Head):
        norm, _, conv = head
        yield from (norm, conv)


def _layer(layer: nn.Module, ours: str, theirs: str) -> Table:
    """Return the rows of one numbered layer."""
    match layer:
        case ResBlock():
            return _res_block(layer, ours, theirs)
        case Attention():
            return _attention(ours, theirs)
        case InputSkip():
            return _same(f"{ours}.project", f"{theirs}.Conv_0")
        case FIRConv():
            return _same(ours, f"{theirs}.Conv2d_0")
        case StridedConv() | RepeatConv():
            return _same(ours, f"{theirs}.Conv_0")
        case FIR() | Resample():
            return {}
    return _same(ours, theirs)


def _same(ours: str, theirs: str) -> Table:
    """Return the rows of a layer whose weight and bias are theirs as they are."""
    return {f"{ours}.{kind}": Source([f"{theirs}.{kind}"], _alone) for kind in ("weight", "bias")}


def _res_block(block: ResBlock, ours: str, theirs: str) -> Table:
    rows: Table = {}
    for child, name in RES_BLOCK.items():
        if not isinstance(block.get_submodule(child), nn.Identity):
            rows |= _same(f"{ours}.{child}", f"{theirs}.{name}")
    return rows


def _attention(ours: str, theirs: str) -> Table:
    """Return the rows of an attention: their matrices are [C_in, C_out], ours 1 x 1 convolutions."""
    return {
        **_same(f"{ours}.norm", f"{theirs}.GroupNorm_0"),
        f"{ours}.qkv.weight": Source([f"{theirs}.NIN_{i}.W" for i in range(3)], _transposed),
        f"{ours}.qkv.bias": Source([f"{theirs}.NIN_{i}.b" for i in range(3)], _stacked),
        f"{ours}.out.weight": Source([f"{theirs}.NIN_3.W"], _transposed),
        f"{ours}.out.bias": Source([f"{theirs}.NIN_3.b"], _alone),
    }


def _alone(tensors: Sequence[Tensor]) -> Tensor:
    (tensor,) = tensors
    return tensor


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return _alone(tensors).flatten()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(tensors))


def _transposed(tensors: Sequence[Tensor]) -> Tensor:
    return _stacked([tensor.T for tensor in tensors])[:, :, None, None]
