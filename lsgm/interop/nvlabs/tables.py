"""The authors' names of tensors against ours: of the score prior, and of the VAE, for any configuration.

Of the prior theirs number all layers through in the order of execution, `all_modules.0`, `all_modules.1` and
so on, as score_sde does; ours have names. Some of ours stack several of theirs: the queries, keys and values
of an attention, and the time's dense layers of all blocks. Everything here is linear, so that one table
serves weights, averages and gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lsgm.interop.taken import fitting, real
from lsgm.nets.config import NVAEConfig
from lsgm.nets.layers import FIR, Attention, FIRConv, Head, Resample, ResBlock
from lsgm.nets.ncsnpp import (
    InputResidual,
    InputSkip,
    NCSNpp,
    OutputResidual,
    OutputSkip,
    RepeatConv,
    Stack,
    StridedConv,
)
from lsgm.vae.cells import Branch, Resampling
from lsgm.vae.hierarchical import Layout


class Assembly(NamedTuple):
    """Where one of our tensors comes from."""

    names: list[str]
    """The authors' tensors."""
    assemble: Callable[[Sequence[Tensor]], Tensor]
    """From these to ours: a stacking or a transposition."""

    def made(self, theirs: Mapping[str, Tensor], like: Tensor) -> Tensor | None:
        """Return our tensor, of the type of ``like``; None where theirs do not make up its shape.

        Raises CheckpointError, which names one, where they are of other kinds of numbers or not finite.
        """
        parts = [real(theirs[name], name) for name in self.names]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on transposing what should have been a matrix
                whole = self.assemble(parts)
        except (RuntimeError, IndexError):
            return None
        return fitting(whole, like, self.names[0]).contiguous() if whole.shape == like.shape else None


Table = dict[str, Assembly]

RES_BLOCK = {
    "norm1": "GroupNorm_0",
    "conv1": "Conv_0",
    "norm2": "GroupNorm_1",
    "conv2": "Conv_1",
    "skip": "Conv_2",
}
"""Our layers of a residual block, without the time's, against theirs."""


def prior_table(network: nn.Module) -> Mapping[str, Assembly]:
    """Return, for every parameter of a `ScoreModel` with mixing by its name, what it is made of.

    So too for the frequencies of a Fourier embedding. Which channels are active is not in their checkpoints.
    ``network`` is the `NCSNpp` of the model, of which shapes are enough.
    """
    assert isinstance(network, NCSNpp)
    rows = numbered_rows(network, layers_in_order(network))
    if drawn_frequencies(network):
        rows["embed.frequencies"] = Assembly(["temb_fun.w"], lambda tensors: _alone(tensors).flatten())
    named = {f"network.{name}": row for name, row in rows.items()}
    return {"logit": Assembly(["mixing_logit"], _alone), **named}


def drawn_frequencies(network: NCSNpp) -> bool:
    """Return whether a state dict has the embedding's frequencies: those of a Fourier one, drawn once."""
    return "frequencies" in network.embed.state_dict()


def numbered_rows(network: NCSNpp, layers: Iterable[nn.Module], first: int = 0) -> Table:
    """Return what the network's own parameters are made of, where ``layers`` are numbered from ``first``."""
    ours = {layer: name for name, layer in network.named_modules()}
    theirs = {layer: f"all_modules.{number}" for number, layer in enumerate(layers, first)}
    table: Table = {}
    for layer, name in theirs.items():
        table |= _layer(layer, ours[layer], name)
    dense = [f"{theirs[stack.block]}.Dense_0" for stack in _stacks(network)]
    for kind in ("weight", "bias"):
        table[f"shifts.{kind}"] = Assembly([f"{name}.{kind}" for name in dense], _stacked)
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
    return {f"{ours}.{kind}": Assembly([f"{theirs}.{kind}"], _alone) for kind in ("weight", "bias")}


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
        f"{ours}.qkv.weight": Assembly([f"{theirs}.NIN_{i}.W" for i in range(3)], _transposed),
        f"{ours}.qkv.bias": Assembly([f"{theirs}.NIN_{i}.b" for i in range(3)], _stacked),
        f"{ours}.out.weight": Assembly([f"{theirs}.NIN_3.W"], _transposed),
        f"{ours}.out.bias": Assembly([f"{theirs}.NIN_3.b"], _alone),
    }


def _alone(tensors: Sequence[Tensor]) -> Tensor:
    (tensor,) = tensors
    return tensor


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(tensors))


def _transposed(tensors: Sequence[Tensor]) -> Tensor:
    return _stacked([tensor.T for tensor in tensors])[:, :, None, None]


# The VAE

Pairs = Iterator[tuple[str, str]]
"""(their name, our name) of tensors."""

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
CONV = ("weight", "bias", "log_weight_norm")
NO_BIAS = ("weight", "log_weight_norm")


def vae_table(config: NVAEConfig) -> dict[str, str]:
    """Return their name -> ours for every parameter and buffer that carries a value; values keep their shape.

    Their lists count modules in the order in which data passes them, which for the encoder is bottom-up;
    ours stand in the order of the groups' draws.
    """
    return dict(_pairs(config))


def vae_derived(config: NVAEConfig) -> frozenset[str]:
    """Return the names of what their state dict holds besides: copies of kernels, which are dropped."""
    ends = (".expand.weight", ".depthwise.weight", ".project.weight")
    return frozenset(f"{theirs}_normalized" for theirs, ours in _pairs(config) if ours.endswith(ends))


def _pairs(config: NVAEConfig) -> Pairs:
    layout = Layout(config)
    yield "prior_ftr0", "decoder.start"
    yield from _several("stem", "encoder.stem", CONV)
    for i in range(config.blocks * config.pre_cells):
        halves = i % config.pre_cells == config.pre_cells - 1
        yield from _cell(
            config, f"pre_process.{i}", f"encoder.pre.{i}", "plain", "down" if halves else "keep"
        )
    yield from _encoder_tower(config, layout)
    for group in range(layout.groups):
        yield from _several(f"enc_sampler.{group}.1", f"encoder.samplers.{group}", CONV)
        for i in range(config.flows):
            yield from _shift_pair(f"nf_cells.{group * config.flows + i}", f"encoder.flows.{group}.{i}")
        yield from _several(f"eps_conv.{group}", f"decoder.latents.{group}", CONV)
    yield from _decoder_tower(config, layout)
    for i in range(config.blocks * config.post_cells):
        way: Resampling = "up" if i % config.post_cells == 0 else "keep"
        yield from _cell(config, f"post_process.{i}", f"decoder.post.{i}", layout.post_branch, way)
    yield from _several("image_conditional.1", "decoder.head", CONV)


def _encoder_tower(config: NVAEConfig, layout: Layout) -> Pairs:
    """From the highest resolution down: each group's cells and combiner, then the cell that halves."""
    place, halvings = 0, 0
    for group in reversed(range(layout.groups)):
        for i in range(config.encoder_cells):
            yield from _cell(config, f"enc_tower.{place}", f"encoder.cells.{group}.{i}", "plain", "keep")
            place += 1
        if group > 0:
            yield from _several(f"enc_tower.{place}.conv", f"encoder.combine.{group - 1}", CONV)
            place += 1
        if layout.begins_scale(group):
            yield from _cell(config, f"enc_tower.{place}", f"encoder.down.{halvings}", "plain", "down")
            if config.input_skip:
                theirs = f"progressive_input_cells.{halvings}.conv"
                yield from _bn_swish_conv(theirs, f"encoder.pyramid.{halvings}")
            place, halvings = place + 1, halvings + 1


def _decoder_tower(config: NVAEConfig, layout: Layout) -> Pairs:
    """From the lowest resolution up: the cell that doubles, then each group's combiner and cells."""
    place, branch = 0, layout.decoder_branch
    for group in range(layout.groups):
        if layout.begins_scale(group):
            ours = f"decoder.up.{group // config.groups - 1}"
            yield from _cell(config, f"dec_tower.{place}", ours, branch, "up")
            place += 1
        yield from _several(f"dec_tower.{place}.conv", f"decoder.combine.{group}", CONV)
        place += 1
        for i in range(config.decoder_cells):
            yield from _cell(config, f"dec_tower.{place}", f"decoder.cells.{group}.{i}", branch, "keep")
            place += 1


def _cell(config: NVAEConfig, theirs: str, ours: str, branch: Branch, resampling: Resampling) -> Pairs:
    if resampling == "down":
        for i in range(4):
            yield from _several(f"{theirs}.skip.conv_{i + 1}", f"{ours}.skip.quarters.{i}", CONV)
    if resampling == "up":
        yield from _several(f"{theirs}.skip.1", f"{ours}.skip.conv", NO_BIAS)
    if branch == "plain":
        for i in range(2):
            yield from _bn_swish_conv(f"{theirs}._ops.{i}", f"{ours}.branch.{i}")
    else:
        yield from _bottleneck(f"{theirs}._ops.0.conv", f"{ours}.branch", first=int(resampling == "up"))
    if config.squeeze_excite:
        yield from _several(f"{theirs}.se.se.0", f"{ours}.gate.squeeze", ("weight", "bias"))
        yield from _several(f"{theirs}.se.se.2", f"{ours}.gate.excite", ("weight", "bias"))


def _bn_swish_conv(theirs: str, ours: str) -> Pairs:
    yield from _several(f"{theirs}.bn_act", f"{ours}.norm", NORM)
    yield from _several(f"{theirs}.conv_0", f"{ours}.conv", CONV)


def _bottleneck(theirs: str, ours: str, *, first: int) -> Pairs:
    """An inverted bottleneck, whose layers are counted from ``first``, the place of its first norm."""
    yield from _several(f"{theirs}.{first}.bn", f"{ours}.norm", NORM)
    for i, name in enumerate(("expand", "depthwise"), start=first + 1):
        yield f"{theirs}.{i}.conv.0.weight", f"{ours}.{name}.weight"
        yield from _several(f"{theirs}.{i}.conv.1", f"{ours}.{name}_norm", NORM)
    yield f"{theirs}.{first + 3}.weight", f"{ours}.project.weight"
    yield from _several(f"{theirs}.{first + 4}.bn", f"{ours}.project_norm", NORM)


def _shift_pair(theirs: str, ours: str) -> Pairs:
    for cell, order in (("cell1", "forwards"), ("cell2", "backwards")):
        yield from _several(f"{theirs}.{cell}.conv.convz.0", f"{ours}.{order}.first", NO_BIAS)
        yield from _several(f"{theirs}.{cell}.conv.convz.2", f"{ours}.{order}.wide", NO_BIAS)
        yield from _several(f"{theirs}.{cell}.mu.conv_0", f"{ours}.{order}.last", CONV)


def _several(theirs: str, ours: str, tensors: tuple[str, ...]) -> Pairs:
    for tensor in tensors:
        yield f"{theirs}.{tensor}", f"{ours}.{tensor}"
