"""Read a pipeline's folder: its JSON files and its tensors, without executing anything in them.

Files lie where the library's `save_pretrained` puts them (``unet/``, ``scheduler/``), all side by side as in
the first folders that were published, or are those of a network alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.errors import CheckpointError
from lsgm.files.regular import absent
from lsgm.files.shown import shown
from lsgm.files.text import read_table
from lsgm.interop.safe import read_safetensors
from lsgm.interop.taken import brief, named, real, weights_of
from lsgm.pickled.foreign import read_pickle

__all__ = ["WEIGHTS", "Folder", "read_folder"]

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
"""The files of weights, in the order in which they are looked for."""

LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What attention's layers were called until 2023, and are now."""


@dataclass(frozen=True)
class Folder:
    """What a folder holds; tensors are on the CPU, in float32 and under today's names."""

    network: dict[str, Any]
    """The network's config.json."""
    network_file: Path
    scheduler: dict[str, Any] | None
    """scheduler_config.json; None where there is none, as beside a network alone."""
    scheduler_file: Path | None
    tensors: dict[str, Tensor]
    weights_file: Path


def read_folder(folder: Path, scheduler: Path | None = None) -> Folder:
    """Return what is in a folder; ``scheduler`` stands for its own scheduler_config.json.

    Raises CheckpointError, one sentence that names the file, for one that is missing or damaged, for a
    pipeline with other parts than a U-Net and a scheduler, and for another class of network.
    """
    if not os.path.isdir(folder):
        raise CheckpointError(
            f"there is no folder {shown(str(folder))}; give one that the library's save_pretrained has "
            "written"
        )
    _check_parts(folder)
    place = folder / "unet" if (folder / "unet").is_dir() else folder
    network_file = place / "config.json"
    network = _json(network_file)
    kind = network.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise CheckpointError(
            f"{shown(str(network_file))} describes a {brief(kind)}; only a UNet2DModel can be imported"
        )
    name = "scheduler_config.json"
    found = scheduler or _first(folder / "scheduler" / name, folder / name)
    weights = _weights_file(place)
    return Folder(
        network, network_file, None if found is None else _json(found), found, _tensors(weights), weights
    )


def _check_parts(folder: Path) -> None:
    index = folder / "model_index.json"
    if absent(index):
        return
    parts = {name for name, value in _json(index).items() if isinstance(value, list) and any(value)}
    if other := sorted(parts - {"unet", "scheduler"}):
        raise CheckpointError(
            f"{shown(str(index))} describes a pipeline with a part '{named(other[0])}'; only those of a "
            "UNet2DModel and a scheduler, which work on pixels, can be imported"
        )


def _first(*places: Path) -> Path | None:
    return next((place for place in places if not absent(place)), None)


def _json(path: Path) -> dict[str, Any]:
    if absent(path):
        raise CheckpointError(
            f"{shown(str(path))} is missing; give the whole folder that save_pretrained has written"
        )
    return read_table(path, CheckpointError, "copy it again")


def _weights_file(place: Path) -> Path:
    found = _first(*(place / name for name in WEIGHTS))
    if found is not None:
        return found
    if shards := sorted(place.glob("*.index.json")):
        raise CheckpointError(
            f"{shown(str(shards[0]))} says that the weights are in several files; save the model again with "
            "a larger max_shard_size"
        )
    raise CheckpointError(
        f"{shown(str(place))} has neither {WEIGHTS[0]} nor {WEIGHTS[1]}; copy the weights there"
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        content: Any = read_safetensors(path, CheckpointError)
    else:
        content = read_pickle(path, "the diffusers library")
    state = weights_of(content, "weights", lambda what: _other(path, what))
    tensors = {_today(name): real(value, name).float() for name, value in state.items()}
    if len(tensors) < len(state):
        raise _other(path, "it has a tensor twice, under its former name and today's")
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{shown(str(path))}: '{named(name)}' has entries that are not finite; give an earlier "
                "checkpoint"
            )
    return tensors


def _other(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(str(path))} is not a table of tensors: {what}; give the weights that save_pretrained wrote"
    )


def _today(name: str) -> str:
    """Return the name that a tensor of an attention layer has today; others are as they were."""
    path, _, rest = name.partition(".attentions.")
    number, _, layer = rest.partition(".")
    old, _, tensor = layer.rpartition(".")
    return f"{path}.attentions.{number}.{LEGACY[old]}.{tensor}" if old in LEGACY else name
