"""Which tensor of the authors' VAE is which of ours, for any configuration."""

from __future__ import annotations

from collections.abc import Iterator

from lsgm.nets.config import NVAEConfig
from lsgm.nets.nvae.cells import Branch
from lsgm.nets.nvae.layout import Layout
from lsgm.nets.nvae.resample import Resampling

__all__ = ["vae_derived", "vae_table"]

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
