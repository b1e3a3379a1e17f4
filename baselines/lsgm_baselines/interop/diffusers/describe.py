"""From the JSON files of a pipeline's folder to a recipe: every option is used, or refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lsgm.config import DataConfig
from lsgm.errors import CheckpointError, ConfigError
from lsgm.files.records import record_of
from lsgm.files.shown import shown
from lsgm.interop.taken import brief, named
from lsgm.structure import from_dict
from lsgm_baselines.interop.diffusers.config import BetaConfig, DDPMRecipe, Prediction
from lsgm_baselines.nets.unet2d_config import UNet2DConfig

__all__ = ["Scheduler", "clip_of", "network_of", "process_of", "recipe_of", "sampler_of", "scheduler_of"]

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
