"""From the JSON files of a pipeline's folder to a recipe: every option is used, or refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lsgm.config import DataConfig
from lsgm.errors import CheckpointError, ConfigError
from lsgm.structure import from_dict
from lsgm_baselines.interop.diffusers.config import BetaConfig, DDPMRecipe, Prediction
from lsgm_baselines.nets.unet2d_config import UNet2DConfig

__all__ = ["clip_of", "network_of", "process_of", "recipe_of", "sampler_of"]

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
    options, where = scheduler or {}, scheduler_file or Path("the library's default scheduler")
    unet = network_of(network, network_file)
    betas, prediction = process_of(options, where)
    limit = clip_of(options)
    remarks = ["imported from diffusers: its training is not known"]
    if limit is not None:
        remarks.append(f"predicted images {'are' if clip else 'not'} clamped to [-{limit:g}, {limit:g}]")
    if options.get("thresholding"):
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
                f"{file} has an option '{key}' = {value!r}, which is not known here; it cannot be imported"
            )
    chosen["sample_size"] = _side(options.get("sample_size"), file)
    try:
        config = from_dict(UNet2DConfig, chosen, str(file))
    except ConfigError as error:
        raise CheckpointError(f"{error}; such a network cannot be built here") from None
    if config.in_channels != config.out_channels or config.in_channels not in (1, 3):
        raise CheckpointError(
            f"{file} has in_channels = {config.in_channels} and out_channels = {config.out_channels}; only "
            "models of grey or RGB images that predict as many channels can be imported"
        )
    return config


def process_of(options: Mapping[str, Any], file: Path) -> tuple[BetaConfig, Prediction]:
    """Return the betas that a scheduler_config.json describes, and what the network predicts."""
    _allowed("_class_name", options.get("_class_name", SCHEDULERS[0]), SCHEDULERS, file)
    prediction = options.get("prediction_type", "epsilon")
    _allowed("prediction_type", prediction, tuple(PREDICTIONS), file)
    for key in OTHER_PROCESSES:
        _allowed(key, bool(options.get(key, False)), (False,), file)
    steps, betas = options.get("num_train_timesteps", 1000), options.get("trained_betas")
    table: dict[str, Any] = {"steps": steps}
    if betas is not None:
        table |= {"schedule": "trained", "betas": betas}
    else:
        schedule = options.get("beta_schedule", "linear")
        _allowed("beta_schedule", schedule, tuple(SCHEDULES), file)
        table["schedule"] = schedule
        table |= {ours: options[key] for ours, key in ENDS.items() if key in options}
    try:
        return from_dict(BetaConfig, table, str(file)), PREDICTIONS[prediction]
    except ConfigError as error:
        raise CheckpointError(f"{error}; such a process cannot be built here") from None


def clip_of(options: Mapping[str, Any]) -> float | None:
    """Return where the scheduler clamps predicted images, None where it does not."""
    name = options.get("_class_name", SCHEDULERS[0])
    clips = options.get("clip_sample", name in CLIPPING)
    return float(options.get("clip_sample_range", 1.0)) if clips else None


def sampler_of(options: Mapping[str, Any]) -> str | None:
    """Return our name of the sampler that the scheduler is, None where no other than the library's own is."""
    name = options.get("_class_name", SCHEDULERS[0])
    if name not in CLIPPING:
        return None
    if name == "DDIMScheduler":
        return "ddim"
    large = str(options.get("variance_type", "fixed_small")).startswith("fixed_large")
    return "ancestral" if large else "ancestral-posterior"


def _allowed(key: str, value: Any, allowed: tuple[Any, ...], file: Path) -> None:
    if value not in allowed:
        listed = " and ".join(repr(item) for item in allowed)
        raise CheckpointError(f"{file} has {key} = {value!r}; only {listed} can be imported")


def _side(value: Any, file: Path) -> int:
    sides = value if isinstance(value, list) else [value]
    if len(set(sides)) != 1 or type(sides[0]) is not int:
        raise CheckpointError(
            f"{file} has sample_size = {value!r}; only square images of a known side can be imported"
        )
    return sides[0]
