"""From a checkpoint directory to a model that can be measured, and from a recipe to fresh networks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lsgm.errors import CheckpointError, ConfigError
from lsgm.files.names import shown
from lsgm.generative import GenerativeModel, Pixels
from lsgm.kinds import find_kind, recipe_from
from lsgm.logs import log
from lsgm.model.lsgm import sketch
from lsgm.nets.folding import fold
from lsgm.runs.checkpoint import (
    find_checkpoint,
    load_into,
    read_entries,
    read_state,
    read_weights,
    refuse_other,
    weights_file,
)
from lsgm.structure import from_dict, to_dict

T = TypeVar("T")

TRAINING_PARTS = frozenset({"vae_penalty", "prior_penalty"})
"""Parts of a checkpoint that only training goes on from (`lsgm.objective.kl`): no network's weights."""


def checkpoint_meta(recipe: Any, pixels: Pixels, dataset: str) -> dict[str, Any]:
    """Return what a checkpoint must say of itself so that its directory is all anyone needs."""
    return {"recipe": to_dict(recipe), "pixels": asdict(pixels), "dataset": dataset}


def fresh_networks(recipe: Any, pixels: Pixels) -> nn.Module:
    """Return a recipe's networks, initialised from its seed alone; the global generator is left as it was.

    Raises ConfigError, before memory is taken, for networks that are too large or cannot be.
    """
    sketch(recipe, pixels)
    return _built(recipe, pixels)


def _built(recipe: Any, pixels: Pixels) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return find_kind(recipe.kind).build(recipe, pixels)


def load_model(
    path: Path | str,
    *,
    device: torch.device | str = "cpu",
    weights: Literal["ema", "raw"] = "ema",
    folded: bool = True,
) -> GenerativeModel:
    """Return the model in a run directory (its newest checkpoint) or in a checkpoint directory.

    Its name is that of the run directory, or the one it was exported under; its sha256 that of the weights
    file. Unless told otherwise its convolutions have taken in what only training needs (`lsgm.nets.folding`),
    which changes results by roundings alone; its parameters are counted before. Raises CheckpointError where
    the checkpoint is missing, damaged, of a newer format or not described by its own recipe.
    """
    began = time.perf_counter()
    opened = open_checkpoint(path, weights)
    model = measurable(opened, device, weights)
    if folded:
        fold(opened.networks)
    took = time.perf_counter() - began
    log.debug(
        "model %s: %s weights of %s on %s, in %.2f s", model.name, weights, opened.checkpoint, device, took
    )
    return model


class OpenedCheckpoint(NamedTuple):
    """A checkpoint with the networks in it, on the CPU and in eval mode."""

    checkpoint: Path
    state: dict[str, Any]
    recipe: Any
    pixels: Pixels
    networks: nn.Module


def open_checkpoint(path: Path | str, weights: Literal["ema", "raw"]) -> OpenedCheckpoint:
    """Return what is in a run directory (its newest checkpoint) or in a checkpoint directory.

    Raises CheckpointError as `load_model` does.
    """
    checkpoint = find_checkpoint(path)
    state = read_state(checkpoint)
    recipe, pixels = described(checkpoint, state)
    try:
        outline = sketch(recipe, pixels)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from None
    # Memory is taken for networks only once the file is known to have weights for every part that is used.
    parts = _fitting(outline, checkpoint, weights)
    needed = find_kind(recipe.kind).parts(state, outline)
    if absent := sorted(needed - parts):
        raise CheckpointError(
            f"{checkpoint / weights_file(state, weights)} has no tensor of the part '{absent[0]}', which "
            "would be as it was before training; restore it from a copy"
        )
    networks = _built(recipe, pixels)
    load_present(networks, checkpoint, weights)
    return OpenedCheckpoint(checkpoint, state, recipe, pixels, networks.eval().requires_grad_(False))


def measurable(
    opened: OpenedCheckpoint, device: torch.device | str, weights: Literal["ema", "raw"]
) -> GenerativeModel:
    """Return the model of an opened checkpoint, whose networks it moves to the device and goes on using."""
    opened.networks.to(device)
    identity = {
        "name": opened.state.get("name") or run_name(opened.checkpoint),
        "sha256": opened.state["files"][weights_file(opened.state, weights)]["sha256"],
    }
    kind = find_kind(opened.recipe.kind)
    return kind.measurable(opened.recipe, opened.networks, {**opened.state, **identity})


def initialise_from(networks: nn.Module, path: Path | str) -> Path:
    """Load a checkpoint's averaged weights into networks of the same recipe; return the checkpoint.

    A checkpoint of an earlier stage holds fewer parts; those it lacks stay as they are.
    """
    checkpoint = find_checkpoint(path)
    load_present(networks, checkpoint, "ema")
    return checkpoint


def initialise_vae_from(networks: nn.Module, path: Path | str) -> Path:
    """Load the averaged weights of another model's VAE, whatever its prior; return the checkpoint.

    Raises CheckpointError where the checkpoint, or the networks, have no VAE, and where tensors do not fit.
    """
    checkpoint = find_checkpoint(path)
    origin = checkpoint / weights_file(read_state(checkpoint))
    vae = dict(networks.named_children()).get("vae")
    if vae is None:
        raise CheckpointError(f"{origin}: the model to train has no VAE to load; name a recipe that has one")
    entries = _part(read_entries(checkpoint, "ema"), "vae")
    if not entries:
        raise CheckpointError(f"{origin} holds no VAE; give a run of an LSGM or of a VAE")
    refuse_other(vae, entries, origin)
    load_into(vae, _part(read_weights(checkpoint, "ema"), "vae"), origin)
    return checkpoint


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return a checkpoint's averaged weights without what only training goes on from."""
    found = read_weights(checkpoint, "ema")
    return {key: value for key, value in found.items() if key.split(".", 1)[0] not in TRAINING_PARTS}


def load_present(networks: nn.Module, checkpoint: Path, weights: Literal["ema", "raw"]) -> None:
    """Load the parts of the networks that a checkpoint holds, each whole, and nothing that it should not."""
    parts = _fitting(networks, checkpoint, weights)
    origin = checkpoint / weights_file(read_state(checkpoint), weights)
    tensors, children = read_weights(checkpoint, weights), dict(networks.named_children())
    for part in sorted(parts):
        load_into(children[part], _part(tensors, part), origin)


def _fitting(networks: nn.Module, checkpoint: Path, weights: Literal["ema", "raw"]) -> set[str]:
    """Return the parts of the networks that a checkpoint holds, after types and shapes in its header."""
    entries = read_entries(checkpoint, weights)
    origin = checkpoint / weights_file(read_state(checkpoint), weights)
    parts = {key.split(".", 1)[0] for key in entries} - TRAINING_PARTS
    children = dict(networks.named_children())
    if foreign := sorted(parts - children.keys()):
        raise CheckpointError(
            f"{origin} belongs to another model: it has a part '{shown(foreign[0])}', and this one has "
            f"{', '.join(children)}; use the recipe that it was trained with"
        )
    if not parts:
        raise CheckpointError(f"{origin} holds no part of a model; restore it from a copy")
    for part in sorted(parts):
        refuse_other(children[part], _part(entries, part), origin)
    return parts


def _part(tensors: Mapping[str, T], name: str) -> dict[str, T]:
    """Return the tensors of one part of the networks, under the part's own names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def run_name(checkpoint: Path) -> str:
    """Return the name of the run directory a checkpoint lies in, or its own."""
    folder = checkpoint.resolve()
    return folder.parent.parent.name if folder.parent.name == "checkpoints" else folder.name


def described(checkpoint: Path, state: Mapping[str, Any]) -> tuple[Any, Pixels]:
    """Return the recipe and the pixels of the model that a checkpoint holds. Raises CheckpointError."""
    meta = state.get("meta") or {}
    said = set(meta.get("pixels") or {})
    if not meta.get("recipe") or not {"channels", "height", "width", "kind"} <= said:
        raise CheckpointError(f"{checkpoint} does not say what model it holds; give one of lsgm's own")
    try:
        pixels = from_dict(Pixels, meta["pixels"], f"{checkpoint}: pixels", unknown="ignore", null=True)
        return recipe_from(meta["recipe"], str(checkpoint), saved=True), pixels
    except ConfigError as error:
        raise CheckpointError(f"{error}; update lsgm-bench, or use the version that wrote it") from None
