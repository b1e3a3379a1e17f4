"""Read a pipeline's folder: its JSON files and its tensors, without executing anything in them.

Files lie where the library's `save_pretrained` puts them (``unet/``, ``scheduler/``), all side by side as in
the first folders that were published, or are those of a network alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.config import DataConfig
from lsgm.errors import CheckpointError, ConfigError
from lsgm.files.names import shown
from lsgm.files.regular import absent
from lsgm.files.text import read_table, record_of
from lsgm.interop.taken import brief, named, read_safetensors, real, weights_of
from lsgm.pickled.foreign import read_pickle
from lsgm.structure import from_dict
from lsgm_baselines.diffusers.recipe import BetaConfig, DDPMRecipe, Prediction, UNet2DConfig

__all__ = [
    "WEIGHTS",
    "Folder",
    "Scheduler",
    "clip_of",
    "network_of",
    "process_of",
    "read_folder",
    "recipe_of",
    "sampler_of",
    "scheduler_of",
]

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


# From the JSON files of a pipeline's folder to a recipe: every option is used, or refused by its name

FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "downsample_type": ("conv",),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "upsample_type": ("conv",),
}
"""Options of the network that have these values here, and no others."""

SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
)
"""Schedulers of one training process; they differ in how they sample, which is chosen here anew."""

SCHEDULES = {name: name for name in ("linear", "scaled_linear", "squaredcos_cap_v2")}
ENDS = {"start": "beta_start", "end": "beta_end"}
PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "v_prediction": "v_prediction",
    "sample": "sample",
}
CLIPPING = ("DDPMScheduler", "DDIMScheduler")
"""Schedulers that clamp predicted images unless told not to."""
OTHER_PROCESSES = ("rescale_betas_zero_snr", "use_flow_sigmas")
"""Options that are false here."""


@dataclass(frozen=True)
class Scheduler:
    """The keys of a scheduler_config.json that are looked at; others say how it samples."""

    _class_name: str = SCHEDULERS[0]
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool | None = False
    use_flow_sigmas: bool | None = False
    num_train_timesteps: int = 1000
    trained_betas: tuple[float, ...] | None = None
    beta_schedule: str = "linear"
    beta_start: float | None = None
    beta_end: float | None = None
    clip_sample: bool | None = None
    clip_sample_range: float = 1.0
    thresholding: bool | None = False
    variance_type: str | None = None

    @property
    def clips(self) -> bool:
        """Whether predicted images are clamped."""
        return self._class_name in CLIPPING if self.clip_sample is None else self.clip_sample


def scheduler_of(options: Mapping[str, Any], file: Path) -> Scheduler:
    """Return what a scheduler_config.json says. Raises CheckpointError naming a key of another type."""
    return record_of(Scheduler, options, file, CheckpointError, "copy it again")


def recipe_of(
    network: Mapping[str, Any],
    network_file: Path,
    scheduler: Mapping[str, Any] | None,
    scheduler_file: Path | None,
    *,
    data: str,
    clip: bool,
) -> DDPMRecipe:
    """Return the recipe of a network and its scheduler; without one, the library's DDPM defaults hold.

    Raises CheckpointError, one sentence that names the file and the option, for what has no equal here.
    """
    where = scheduler_file or Path("the library's default scheduler")
    options = scheduler_of(scheduler or {}, where)
    unet = network_of(network, network_file)
    betas, prediction = process_of(options, where)
    limit = clip_of(options)
    if limit is not None and not 0 < limit < float("inf"):
        raise CheckpointError(f"{shown(str(where))} has clip_sample_range = {limit}; give a number above 0")
    remarks = ["imported from diffusers: its training is not known"]
    if limit is not None:
        remarks.append(f"predicted images {'are' if clip else 'not'} clamped to [-{limit:g}, {limit:g}]")
    if options.thresholding:
        remarks.append("its scheduler's dynamic thresholding is left out")
    return DDPMRecipe(
        data=DataConfig(dataset=data, image_size=max(unet.sample_size, 8)),
        network=unet,
        betas=betas,
        prediction=prediction,
        clip=limit if clip else None,
        remark="; ".join(remarks),
    )


def network_of(options: Mapping[str, Any], file: Path) -> UNet2DConfig:
    """Return the network that a config.json describes; keys that it lacks have the library's defaults."""
    known = {field.name for field in fields(UNet2DConfig)}
    chosen: dict[str, Any] = {}
    for key, value in options.items():
        if key in known:
            chosen[key] = value
        elif key in FIXED:
            _allowed(key, value, FIXED[key], file)
        elif not key.startswith("_") and key != "num_train_timesteps" and value is not None:
            raise CheckpointError(
                f"{shown(str(file))} has an option '{named(key)}' = {brief(value)}, which is not known "
                "here; it cannot be imported"
            )
    chosen["sample_size"] = _side(options.get("sample_size"), file)
    try:
        config = from_dict(UNet2DConfig, chosen, shown(str(file)), null=True)
    except ConfigError as error:
        raise CheckpointError(f"{error}; such a network cannot be built here") from None
    if config.in_channels != config.out_channels or config.in_channels not in (1, 3):
        raise CheckpointError(
            f"{file} has in_channels = {config.in_channels} and out_channels = {config.out_channels}; only "
            "models of grey or RGB images that predict as many channels can be imported"
        )
    return config


def process_of(options: Scheduler, file: Path) -> tuple[BetaConfig, Prediction]:
    """Return the betas that a scheduler_config.json describes, and what the network predicts."""
    _allowed("_class_name", options._class_name, SCHEDULERS, file)
    _allowed("prediction_type", options.prediction_type, tuple(PREDICTIONS), file)
    for key in OTHER_PROCESSES:
        _allowed(key, bool(getattr(options, key)), (False,), file)
    table: dict[str, Any] = {"steps": options.num_train_timesteps}
    if options.trained_betas is not None:
        table |= {"schedule": "trained", "betas": options.trained_betas}
    else:
        _allowed("beta_schedule", options.beta_schedule, tuple(SCHEDULES), file)
        table["schedule"] = options.beta_schedule
        ends = {ours: getattr(options, key) for ours, key in ENDS.items()}
        table |= {ours: end for ours, end in ends.items() if end is not None}
    try:
        return from_dict(BetaConfig, table, shown(str(file))), PREDICTIONS[options.prediction_type]
    except ConfigError as error:
        raise CheckpointError(f"{error}; such a process cannot be built here") from None


def clip_of(options: Scheduler) -> float | None:
    """Return where the scheduler clamps predicted images, None where it does not."""
    return options.clip_sample_range if options.clips else None


def sampler_of(options: Scheduler) -> str | None:
    """Return our name of the sampler that the scheduler is, None where no other than the library's own is."""
    if options._class_name not in CLIPPING:
        return None
    if options._class_name == "DDIMScheduler":
        return "ddim"
    large = (options.variance_type or "fixed_small").startswith("fixed_large")
    return "ancestral" if large else "ancestral-posterior"


def _allowed(key: str, value: Any, allowed: tuple[Any, ...], file: Path) -> None:
    if value not in allowed:
        listed = " and ".join(repr(item) for item in allowed)
        raise CheckpointError(f"{shown(str(file))} has {key} = {brief(value)}; only {listed} can be imported")


def _side(value: Any, file: Path) -> int:
    sides = value if isinstance(value, list) else [value]
    if len(sides) not in (1, 2) or any(type(side) is not int or side != sides[0] for side in sides):
        raise CheckpointError(
            f"{shown(str(file))} has sample_size = {brief(value)}; only square images of a known side can "
            "be imported"
        )
    side: int = sides[0]
    return side
