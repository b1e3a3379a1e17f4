"""From a word on the command line to a model: a run, ready images, or a factory in one's own module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from lsgm import discovery
from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import parse_convert
from lsgm.errors import CheckpointError, UserError
from lsgm.generative import Density, GenerativeModel, Pixels, Samples, SamplingFlops
from lsgm.runs.checkpoint import find_checkpoint, is_checkpoint, read_state
from lsgm_eval.models.ready import ImageModel, is_run, is_source, open_source

__all__ = [
    "Renamed",
    "check_name",
    "flops_of",
    "open_model",
    "open_models",
    "packages_of",
    "remark_of",
    "trained_on",
    "unwrapped",
]

LONGEST_NAME = 200
"""Bytes; file systems take 255, of which endings need some."""


class Renamed:
    """A model under another name, so that two runs of one recipe can stand in one table."""

    def __init__(self, model: GenerativeModel, name: str) -> None:
        self.model, self.name = model, name
        self.sha256: str = model.sha256
        self.pixels: Pixels = model.pixels
        self.parameters: Mapping[str, int] = model.parameters
        self.remark = remark_of(model)

    @property
    def has_prior(self) -> bool:
        """Whether sampling runs a diffusion."""
        return self.model.has_prior

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Draw image k from seed k alone."""
        return self.model.sample(seeds, sampler)

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Bound -log P(x) of levels uint8 [N, C, H, W]."""
        return self.model.density(levels, seeds, config)


def flops_of(model: GenerativeModel) -> SamplingFlops | None:
    """Return the operations of a model's images; None of ready images and of a factory's silent model."""
    count = getattr(unwrapped(model), "sampling_flops", None)
    return count() if callable(count) else None


def remark_of(model: GenerativeModel) -> str:
    """Return what must be said beside a model's numbers; a factory's model need not have anything to say."""
    return getattr(model, "remark", "")


def trained_on(spec: str) -> str:
    """Return the sha256 of the images that a run or checkpoint was trained on, nothing where it is not known.

    ``spec`` is a word that `open_model` takes.
    """
    name, found, rest = spec.partition("=")
    path = Path(rest if found and "/" not in name and not Path(spec).exists() else spec).expanduser()
    if not (path.is_dir() and (is_run(path) or is_checkpoint(path))):
        return ""
    meta = read_state(find_checkpoint(path)).get("meta")
    dataset = meta.get("dataset") if isinstance(meta, Mapping) else None
    return dataset.rpartition("@")[2] if isinstance(dataset, str) else ""


def unwrapped(model: GenerativeModel) -> GenerativeModel:
    """Return the model behind a name given on the command line."""
    return model.model if isinstance(model, Renamed) else model


def packages_of(model: GenerativeModel) -> set[str]:
    """Return the packages whose code makes the model's images and numbers: its own, and that of its coder."""
    inner = unwrapped(model)
    parts = (part for part in (inner, getattr(inner, "coder", None)) if part is not None)
    return {type(part).__module__.split(".")[0] for part in parts}


def open_models(
    specs: Sequence[str], *, device: torch.device | str = "cpu", convert: str = ""
) -> list[GenerativeModel]:
    """Return several models; ``convert`` is what ready images may need to be such. Raises as `open_model`."""
    parse_convert(convert)  # a slip is told before anything is read
    how = {"convert": convert} if convert else {}
    return [open_model(spec, device=device, **how) for spec in specs]


def open_model(spec: str, *, device: torch.device | str = "cpu", convert: str = "") -> GenerativeModel:
    """Return the model of ``DIR``, ``package.module:factory``, or any after ``NAME=``.

    ``DIR`` is a run, a checkpoint, or a folder of ready images, which may also come as a zip, npz or npy file
    (`lsgm_eval.models.ready`), for which ``convert`` allows what is not plain greyscale or RGB. A factory is
    called without arguments; modules are also looked for in the working directory. Raises UserError, or
    whatever the checkpoint's or the images' reader says of them.
    """
    name, found, rest = spec.partition("=")
    if not spec.strip() or (found and not rest.strip() and not Path(spec).exists()):
        raise UserError(f"the model '{spec}' names no place: give a run directory, or NAME=DIR")
    if found and "/" not in name and not Path(spec).exists():
        check_name(name)
        model: GenerativeModel | ImageModel = open_model(rest, device=device, convert=convert)
        return _seen(model.renamed(name)) if isinstance(model, ImageModel) else Renamed(model, name)
    path = Path(spec).expanduser()
    if is_source(path):
        return _seen(open_source(path, convert=convert))
    if not path.exists() and ":" in spec and "/" not in spec:
        return _from_factory(spec)
    if path.is_dir() and not (is_run(path) or is_checkpoint(path)):
        raise CheckpointError(
            f"{path} holds neither a checkpoint nor images: give a run directory, or a folder, zip or npz of "
            "ready images"
        )
    from lsgm.runs.load import load_model

    return load_model(path, device=device)


def check_name(name: str) -> None:
    """Raise UserError unless files can be called after a model of this name."""
    if not name.strip(" .") or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise UserError(
            f"no file can be called after a model of the name '{name}': give NAME=PLACE with a NAME of 1 to "
            f"{LONGEST_NAME} letters, digits and signs"
        )


def _seen(model: ImageModel) -> GenerativeModel:
    # The harness asks whether a density can be called; the protocol's type has no word for a model without.
    return cast(GenerativeModel, model)


def _from_factory(spec: str) -> GenerativeModel:
    discovery.ask(spec)
    module_name, _, attribute = spec.partition(":")
    here = discovery.modules_folder()
    sys.path.insert(0, here)
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise UserError(
            f"cannot import '{error.name}' for the model {spec}: give package.module:factory, installed or "
            "in the working directory, or the directory of a run"
        ) from error
    except AttributeError as error:
        raise UserError(f"the module {module_name} has no '{attribute}' for the model {spec}") from error
    finally:
        sys.path.remove(here)
    model: GenerativeModel = factory()
    for needed in ("name", "sha256", "pixels", "parameters", "has_prior", "sample", "density"):
        if not hasattr(model, needed):
            raise UserError(f"the model of {spec} has no '{needed}': see lsgm.generative.GenerativeModel")
    return model
