"""From a pipeline's folder to a recipe and weights, without executing anything in it.

Files lie where the library's `save_pretrained` puts them (``unet/``, ``scheduler/``), all side by side as in
the first folders that were published, or are those of a network alone. Every option in them is used, or
refused by its name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor

from lsgm.config import DataConfig
from lsgm.errors import CheckpointError, ConfigError
from lsgm.files.names import shown
from lsgm.files.regular import absent
from lsgm.files.text import read_table, record_of
from lsgm.generative import Pixels
from lsgm.interop.taken import Native, brief, named, read_safetensors, real, refuse_larger, weights_of
from lsgm.model.lsgm import sketch
from lsgm.pickled.foreign import read_pickle
from lsgm.structure import from_dict
from lsgm_baselines.diffusers.model import sde_of
from lsgm_baselines.diffusers.recipe import BetaConfig, DDPMRecipe, Prediction, UNet2DConfig

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
"""The files of weights, in the order in which they are looked for."""

LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What attention's layers were called until 2023, and are now."""

PREFIX = "prior.network.unet."
"""What stands before the names of the library's tensors here."""

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

CLIPPING = ("DDPMScheduler", "DDIMScheduler")
"""Schedulers that clamp predicted images unless told not to."""

SCHEDULERS = (
    *CLIPPING,
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
)
"""Schedulers of one training process; they differ in how they sample, which is chosen here anew."""


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
    def limit(self) -> float | None:
        """Where predicted images are clamped; None where they are not."""
        clips = self._class_name in CLIPPING if self.clip_sample is None else self.clip_sample
        return self.clip_sample_range if clips else None

    @property
    def sampler(self) -> str | None:
        """Our name of the sampler that it is, None where no other than the library's own is."""
        if self._class_name == "DDPMScheduler":
            large = (self.variance_type or "fixed_small").startswith("fixed_large")
            return "ancestral" if large else "ancestral-posterior"
        return "ddim" if self._class_name == "DDIMScheduler" else None


@dataclass(frozen=True)
class Folder:
    """What a folder holds; tensors are on the CPU, in float32 and under today's names."""

    network: Mapping[str, Any]
    """The network's config.json."""
    network_file: Path
    scheduler: Mapping[str, Any] | None
    """scheduler_config.json; None where there is none, as beside a network alone."""
    scheduler_file: Path
    tensors: Mapping[str, Tensor]
    weights_file: Path

    @property
    def options(self) -> Scheduler:
        """The scheduler; without one the library's DDPM defaults hold.

        Raises CheckpointError naming a key of another type.
        """
        return record_of(
            Scheduler, self.scheduler or {}, self.scheduler_file, CheckpointError, "copy it again"
        )


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
    index = folder / "model_index.json"
    listed = {} if absent(index) else _json(index)
    parts = {name for name, value in listed.items() if isinstance(value, list) and any(value)}
    if other := sorted(parts - {"unet", "scheduler"}):
        raise CheckpointError(
            f"{shown(str(index))} describes a pipeline with a part '{named(other[0])}'; only those of a "
            "UNet2DModel and a scheduler, which work on pixels, can be imported"
        )
    place = folder / "unet" if (folder / "unet").is_dir() else folder
    network = _json(place / "config.json")
    kind = network.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise CheckpointError(
            f"{shown(str(place / 'config.json'))} describes a {brief(kind)}; only a UNet2DModel can be "
            "imported"
        )
    name = "scheduler_config.json"
    found = scheduler or _first(folder / "scheduler" / name, folder / name)
    weights = _weights_file(place)
    return Folder(
        network,
        place / "config.json",
        None if found is None else _json(found),
        found or Path("the library's default scheduler"),
        _tensors(weights),
        weights,
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
    def other(what: str) -> CheckpointError:
        return CheckpointError(
            f"{shown(str(path))} is not a table of tensors: {what}; give the weights that save_pretrained "
            "wrote"
        )

    if path.suffix == ".safetensors":
        content: Any = read_safetensors(path, CheckpointError)
    else:
        content = read_pickle(path, "the diffusers library")
    state = weights_of(content, "weights", other)
    tensors = {_today(name): real(value, name).float() for name, value in state.items()}
    if len(tensors) < len(state):
        raise other("it has a tensor twice, under its former name and today's")
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{shown(str(path))}: '{named(name)}' has entries that are not finite; give an earlier "
                "checkpoint"
            )
    return tensors


def _today(name: str) -> str:
    """Return the name that a tensor of an attention layer has today; others are as they were."""
    path, _, rest = name.partition(".attentions.")
    number, _, layer = rest.partition(".")
    old, _, tensor = layer.rpartition(".")
    return f"{path}.attentions.{number}.{LEGACY[old]}.{tensor}" if old in LEGACY else name


def convert(folder: Folder, *, data: str, clip: bool) -> Native[DDPMRecipe]:
    """Return the model of a folder, whose tensors have the names and shapes of its network's.

    Raises CheckpointError, one sentence that names the file, where they have not, and as `recipe_of`.
    """
    recipe = recipe_of(folder, data=data, clip=clip)
    network, file = recipe.network, folder.network_file
    try:
        pixels = Pixels(network.in_channels, network.sample_size, network.sample_size, "discrete", 8)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from None
    try:
        sde_of(recipe.betas)
    except ConfigError as error:
        raise CheckpointError(f"{folder.scheduler_file}: {error}") from None
    layers = network.layers_per_block * len(network.block_out_channels)
    refuse_larger(str(file), "network", layers, len(folder.tensors))
    try:
        drawn = sketch(recipe, pixels).state_dict()
    except (ConfigError, ValueError, TypeError) as error:
        why = shown(str(error).split("\n")[0])[:300]
        raise CheckpointError(
            f"{shown(str(file))} describes a network that cannot be built: {why}; give that of the weights"
        ) from error
    wanted = {name.removeprefix(PREFIX): ours for name, ours in drawn.items() if name.startswith(PREFIX)}
    for name in sorted(wanted.keys() | folder.tensors.keys()):
        ours, theirs = wanted.get(name), folder.tensors.get(name)
        if ours is None or theirs is None:
            what = "lacks" if theirs is None else "holds, beyond what its config.json describes,"
            raise CheckpointError(
                f"{folder.weights_file} {what} the tensor '{named(name)}'; give weights and config.json "
                "of one model"
            )
        if ours.shape != theirs.shape:
            raise CheckpointError(
                f"{folder.weights_file}: '{name}' is {list(theirs.shape)} and must be {list(ours.shape)}; "
                "give weights and config.json of one model"
            )
    state = {f"{PREFIX}{name}": tensor for name, tensor in folder.tensors.items()}
    return Native(recipe, pixels, state, state)


def recipe_of(folder: Folder, *, data: str, clip: bool) -> DDPMRecipe:
    """Return the recipe of a network and its scheduler.

    Raises CheckpointError, one sentence that names the file and the option, for what has no equal here.
    """
    options, where = folder.options, folder.scheduler_file
    unet, betas, limit = _network(folder.network, folder.network_file), _betas(options, where), options.limit
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
        prediction=cast(Prediction, options.prediction_type),
        clip=limit if clip else None,
        remark="; ".join(remarks),
    )


def _network(options: Mapping[str, Any], file: Path) -> UNet2DConfig:
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
    size = options.get("sample_size")
    sides = size if isinstance(size, list) else [size]
    if len(sides) not in (1, 2) or any(type(side) is not int or side != sides[0] for side in sides):
        raise CheckpointError(
            f"{shown(str(file))} has sample_size = {brief(size)}; only square images of a known side can "
            "be imported"
        )
    try:
        config = from_dict(UNet2DConfig, chosen | {"sample_size": sides[0]}, shown(str(file)), null=True)
    except ConfigError as error:
        raise CheckpointError(f"{error}; such a network cannot be built here") from None
    if config.in_channels != config.out_channels or config.in_channels not in (1, 3):
        raise CheckpointError(
            f"{file} has in_channels = {config.in_channels} and out_channels = {config.out_channels}; only "
            "models of grey or RGB images that predict as many channels can be imported"
        )
    return config


def _betas(options: Scheduler, file: Path) -> BetaConfig:
    """Return the betas that a scheduler_config.json describes, whose other options are looked at as well."""
    _allowed("_class_name", options._class_name, SCHEDULERS, file)
    _allowed("prediction_type", options.prediction_type, get_args(Prediction), file)
    for key in ("rescale_betas_zero_snr", "use_flow_sigmas"):
        _allowed(key, bool(getattr(options, key)), (False,), file)
    table: dict[str, Any] = {"steps": options.num_train_timesteps}
    if options.trained_betas is not None:
        table |= {"schedule": "trained", "betas": options.trained_betas}
    else:
        schedules = ("linear", "scaled_linear", "squaredcos_cap_v2")
        _allowed("beta_schedule", options.beta_schedule, schedules, file)
        given = {"schedule": options.beta_schedule, "start": options.beta_start, "end": options.beta_end}
        table |= {key: value for key, value in given.items() if value is not None}
    try:
        return from_dict(BetaConfig, table, shown(str(file)))
    except ConfigError as error:
        raise CheckpointError(f"{error}; such a process cannot be built here") from None


def _allowed(key: str, value: Any, allowed: tuple[Any, ...], file: Path) -> None:
    if value not in allowed:
        listed = " and ".join(repr(item) for item in allowed)
        raise CheckpointError(f"{shown(str(file))} has {key} = {brief(value)}; only {listed} can be imported")
