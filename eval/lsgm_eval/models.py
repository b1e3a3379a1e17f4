"""From a word on the command line to a model: a run, ready images, or a factory in one's own module."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm import discovery
from lsgm.config import SamplerConfig
from lsgm.data import is_images, open_images, parse_convert, sha256_of
from lsgm.data.splits import subset
from lsgm.errors import CheckpointError, DataError, UserError
from lsgm.generative import GenerativeModel, Pixels, Samples, SamplingFlops
from lsgm.runs.checkpoint import find_checkpoint, is_checkpoint, located, read_state
from lsgm.trained import Model
from lsgm_eval.foreign import ForeignModel

_SAID = ("name", "sha256", "pixels", "parameters", "has_prior", "density")
"""What a `GenerativeModel` says of itself besides ``sample``."""
LONGEST_NAME = 200
"""Bytes; file systems take 255, of which endings need some."""


class Renamed:
    """A model under another name, so that two runs of one recipe can stand in one table."""

    def __init__(self, model: GenerativeModel, name: str) -> None:
        self.model, self.name = model, name

    def __getattr__(self, name: str) -> Any:
        """Return what the model has: it is asked for all but its name."""
        return getattr(self.model, name)


def flops_of(model: GenerativeModel) -> SamplingFlops | None:
    """Return the operations of a model's images; None of ready images and of a factory's silent model."""
    count = getattr(model, "sampling_flops", None)
    return count() if callable(count) else None


def remark_of(model: GenerativeModel) -> str:
    """Return what must be said beside a model's numbers; a factory's model need not have anything to say."""
    return getattr(model, "remark", "")


def trained_on(spec: str) -> str:
    """Return the sha256 of the images that a run or checkpoint was trained on, nothing where it is not known.

    ``spec`` is a word that `open_model` takes.
    """
    name, found, rest = spec.partition("=")
    word = rest if found and "/" not in name and not Path(spec).exists() else spec
    path = located(Path(word).expanduser())
    if not (path.is_dir() and (is_run(path) or is_checkpoint(path))):
        return ""
    meta = read_state(find_checkpoint(path)).get("meta")
    dataset = meta.get("dataset") if isinstance(meta, Mapping) else None
    return dataset.rpartition("@")[2] if isinstance(dataset, str) else ""


def packages_of(model: GenerativeModel) -> set[str]:
    """Return the packages whose code makes the model's images and numbers: its own, and that of its coder."""
    inner = model.model if isinstance(model, Renamed) else model
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

    ``DIR`` is a run, a checkpoint (``hf://owner/name`` is one of the Hub), or a folder of ready images, which
    may also come as a zip, npz or npy file (`lsgm_eval.models`), for which ``convert`` allows what is not
    plain greyscale or RGB. A factory is called without arguments; modules are also looked for in the working
    directory. Raises UserError, or whatever the checkpoint's or the images' reader says of them.
    """
    name, found, rest = spec.partition("=")
    if not spec.strip() or (found and not rest.strip() and not Path(spec).exists()):
        raise UserError(f"the model '{spec}' names no place: give a run directory, or NAME=DIR")
    if found and "/" not in name and not Path(spec).exists():
        check_name(name)
        model: GenerativeModel | ImageModel = open_model(rest, device=device, convert=convert)
        renamed = model.renamed(name) if isinstance(model, ImageModel) else Renamed(model, name)
        return cast(GenerativeModel, renamed)
    path = located(Path(spec).expanduser())
    if is_source(path):
        # The harness asks whether a density can be called; the type has no word for a model without.
        return cast(GenerativeModel, open_source(path, convert=convert))
    if not path.exists() and ":" in spec and "/" not in spec:
        return _from_factory(spec)
    if path.is_dir() and not (is_run(path) or is_checkpoint(path)):
        raise CheckpointError(
            f"{path} holds neither a checkpoint nor images: give a run directory, or a folder, zip or npz of "
            "ready images"
        )
    from lsgm.runs.load import load_model

    return load_model(path, device=device)


def as_model(
    given: Any, *, name: str = "", pixels: Pixels | None = None, device: torch.device | str = "cpu"
) -> GenerativeModel:
    """Return anything that draws images as the harness sees models.

    Args:
        given: A run, a checkpoint, ready images (a path, or the words of `open_model`), what `lsgm.load`
            returns, a `lsgm.generative.GenerativeModel`, or an object with ``sample(seeds)``.
        name: What tables call it; its own name unless given.
        pixels: What the images of an object are, where it does not say so itself.
        device: Where a model that is opened here runs.

    Raises UserError for anything else, and for an object whose ``sample`` gives no images.
    """
    model: GenerativeModel
    if isinstance(given, str | os.PathLike):
        model = open_model(os.fspath(given), device=device)
    elif isinstance(given, Model):
        model = given.generative
    elif callable(getattr(given, "sample", None)) and not inspect.isclass(given):
        model = _drawing(given, pixels)
    else:
        kind = given.__name__ if inspect.isclass(given) else type(given).__name__
        what = "an instance of it" if inspect.isclass(given) else "a run, or an object with sample(seeds)"
        raise UserError(f"{kind} is no model; give {what}")
    if name and name != model.name:
        check_name(name)
        return Renamed(model, name)
    return model


def _drawing(given: Any, pixels: Pixels | None = None) -> GenerativeModel:
    """Return an object that draws images: itself where it says all that the harness asks, else as foreign."""
    if all(hasattr(given, needed) for needed in _SAID):
        return cast(GenerativeModel, given)
    foreign = ForeignModel(given, pixels)
    check_name(foreign.name)
    return cast(GenerativeModel, foreign)


def check_name(name: str) -> None:
    """Raise UserError unless files can be called after a model of this name."""
    if not name.strip(" .") or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise UserError(
            f"no file can be called after a model of the name '{name}': give NAME=PLACE with a NAME of 1 to "
            f"{LONGEST_NAME} letters, digits and signs"
        )


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
    return as_model(factory())


# Ready images as a model: image k is what seed k draws, and what it cost is not known

_ADVICE = "images are uint8 in 0..255: round them as if written to files"
SEED = 0
"""Of the subset, one for all sets: two of equally many images, made with the same seeds, stay pairs."""
_RUN = ("checkpoints", "config.toml", "state.json")
"""What a run directory or a checkpoint has; the pictures in it are not its samples for the harness."""


class ReadyImages(Protocol):
    """A set of images that were made elsewhere, decoded when they are asked for."""

    path: Path
    what: str
    """``a folder``, ``a zip``, ``an npz file`` ..."""
    pixels: Pixels
    """Binary where every image is greyscale and has no value but 0 and 255."""
    sha256: str
    lossy: int
    """How many of the images were compressed with loss."""
    grey_row: int | None
    """The first greyscale image with a value other than 0 and 255, where there is one."""

    def __len__(self) -> int: ...

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        ...

    def read(self, rows: Sequence[int]) -> Tensor:
        """Return images uint8 [len(rows), C, H, W] in 0..255, of any strides, for at least one row."""
        ...


class ImageModel:
    """What the harness sees of ready images: `lsgm.generative.GenerativeModel`, but for a density."""

    has_prior = False
    costs_known = False
    """Evaluations and seconds are given as 0 and mean nothing."""
    density = None
    """There is none: the harness asks whether it can be called."""

    def __init__(
        self,
        images: ReadyImages,
        name: str,
        pixels: Pixels | None = None,
        numbers: NDArray[np.int64] | None = None,
    ) -> None:
        self.images, self.name = images, name
        self.sha256 = images.sha256
        self.pixels = pixels or images.pixels
        self.numbers = np.arange(len(images)) if numbers is None else numbers
        """Which stored image seed k draws, [number of seeds]."""
        self.parameters: Mapping[str, int] = {}

    @property
    def remark(self) -> str:
        """That the images are ready ones, and how many of them lossy compression changed."""
        lossy, total = self.images.lossy, self.available
        parts = [f"images of {self.images.what}, costs unknown"]
        if len(self) < total:
            parts.append(f"{len(self):,} of its {total:,} images, a uniform subset drawn with seed {SEED}")
        if lossy:
            parts.append(
                f"{lossy:,} of {total:,} files are JPEG or lossy WebP, whose artefacts move distances"
            )
        return "; ".join(parts)

    @property
    def available(self) -> int:
        """How many images there are, of which `len` many can be drawn."""
        return len(self.images)

    def __len__(self) -> int:
        return len(self.numbers)

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Return image ``numbers[k]`` for seed k, whatever the sampler.

        Raises DataError for a seed beyond the last image and for an image that is damaged.
        """
        for seed in seeds:
            if seed < 0:
                raise DataError(f"{self.images.path} has no image number {seed}: seeds begin at 0")
            if seed >= len(self):
                raise self._too_few(seed + 1)
        # Into a new tensor, because networks round differently by how a batch lies in memory.
        images = torch.empty((len(seeds), *self.images.pixels.shape), dtype=torch.uint8)
        if len(seeds):
            images.copy_(self.images.read(self.numbers[list(seeds)].tolist()))
        return Samples(images, torch.zeros(len(seeds), dtype=torch.int64), 0.0)

    def renamed(self, name: str) -> ImageModel:
        """Return the same images under another name."""
        return ImageModel(self.images, name, self.pixels, self.numbers)

    def fitted(self, pixels: Pixels, count: int, first: int = 0) -> ImageModel:
        """Return the images as those of a task: its kind of pixels, once they are seen to be of it.

        Of more than ``count`` images the seeds draw a uniform subset, each once and in ascending order
        (`lsgm.data.splits`). Seeds from ``first`` on draw others than those below it, as seeds of a model do.

        A task's bits per sub-pixel belong to likelihoods, which ready images do not have, and are taken over.
        Raises DataError naming a file for another size, for greyscale where the task has colours and the
        other way round, for grey values where it is black and white, and for fewer than ``count`` images, by
        which is meant one more than the last seed that will be asked for.
        """
        have, example = self.images.pixels, self.images.label(0)
        if have.channels != pixels.channels:
            kinds = {1: "greyscale", 3: "RGB"}
            raise DataError(
                f"{example} is {kinds[have.channels]} and the task's images are "
                f"{kinds.get(pixels.channels, f'of {pixels.channels} channels')}: write all images as the "
                "task has them"
            )
        if have.shape != pixels.shape:
            raise DataError(
                f"{example} is {have.width} x {have.height} pixels and the task's images are "
                f"{pixels.width} x {pixels.height}: resizing is the model's affair, bring them to that size"
            )
        if pixels.kind == "binary" and have.kind != "binary":
            raise DataError(
                f"{self.images.label(self.images.grey_row or 0)} has grey values and the task's images are "
                "black and white: draw pixels of 0 and 255 from the model"
            )
        if count > self.available:
            raise self._too_few(count)
        before, chosen = subset(self.available, first, SEED), subset(self.available, count, SEED)
        rest = np.setdiff1d(chosen, before, assume_unique=True)
        return ImageModel(self.images, self.name, pixels, np.concatenate([before, rest]))

    def _too_few(self, count: int) -> DataError:
        return DataError(
            f"{self.images.path} has {self.available:,} images and {count:,} are asked for: add images or "
            "choose a smaller tier, or say how many by --images; a protocol never shrinks by itself"
        )


def open_source(path: Path, name: str | None = None, convert: str = "") -> ImageModel:
    """Return ready images as a model, called ``name`` or after the folder or file.

    Every file is checked at once and decoded when its turn comes (`lsgm.data.open_images`). Raises DataError
    naming the file that is missing, damaged, or no 8-bit greyscale or RGB image of the size of the others,
    unless ``convert`` has the word by which it becomes one.
    """
    return ImageModel(
        open_images(path, convert), name or (path.resolve().name if path.is_dir() else path.stem)
    )


def is_source(path: Path) -> bool:
    """Return whether a path is one of ready images: a file by its suffix, a folder by what is in it.

    A folder is one where it holds an image file at any depth and is neither a run nor a checkpoint.
    """
    return not (path.is_dir() and is_run(path)) and is_images(path)


def is_run(path: Path) -> bool:
    """Return whether a folder is one of a training run or of a checkpoint, complete or not."""
    return any((path / name).exists() for name in _RUN)


def fit(model: GenerativeModel, pixels: Pixels, count: int, first: int = 0) -> GenerativeModel:
    """Return ready images as images of a task with ``pixels``, for seeds ``first`` to ``count - 1``.

    Other models are returned as they are; of more images than ``count`` a uniform subset is drawn. Raises
    DataError naming the file where they are not such images, and where there are fewer than ``count``.
    """
    if not isinstance(model, ImageModel):
        return model
    return model.fitted(pixels, count, first)


class MemoryImages:
    """Tensors uint8 [N, C, H, W], one after the other, as one set that nothing is copied for."""

    lossy, how = 0, ""
    grey_row: int | None = None

    def __init__(self, name: str, what: str, parts: Sequence[Tensor], pixels: Pixels, sha256: str) -> None:
        self.path, self.what = Path(name), what
        self.pixels, self.sha256 = pixels, sha256
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        return f"{self.path}: image {row}"

    def read(self, rows: Sequence[int]) -> Tensor:
        """Return images uint8 [len(rows), C, H, W]."""
        which = np.searchsorted(self._ends, rows, side="right")
        starts = self._ends - [len(part) for part in self._parts]
        return torch.stack(
            [self._parts[k][row - starts[k]] for k, row in zip(which.tolist(), rows, strict=True)]
        )


def from_array(images: Tensor | NDArray[Any], name: str) -> MemoryImages:
    """Return a tensor or array of images, called ``name`` in errors.

    Raises DataError unless it is uint8 [N, C, H, W] with one or three channels and values up to 255.
    """
    if not isinstance(images, Tensor) and (not isinstance(images, np.ndarray) or images.dtype == object):
        raise DataError(f"{name} is a {type(images).__name__} and no tensor or array of images")
    if not isinstance(images, Tensor) and images.dtype != np.uint8:  # torch does not know every dtype
        raise DataError(f"{name} is {images.dtype} and {_ADVICE}")
    # In the order of its indices and to be written to, as torch expects an array.
    own = images if isinstance(images, Tensor) else np.require(images, requirements=["C", "W"])
    tensor = own if isinstance(own, Tensor) else torch.from_numpy(own)
    shape = list(tensor.shape)
    if tensor.ndim != 4 or 0 in shape or tensor.shape[1] not in (1, 3):
        advice = ": move the channels to the front" if shape[3:] in ([1], [3]) else ""
        raise DataError(f"{name} has shape {shape} and images are [N, 1 or 3, height, width]{advice}")
    if tensor.dtype != torch.uint8:
        raise DataError(f"{name} is {tensor.dtype} and {_ADVICE}")
    if int(tensor.max()) <= 1:
        raise DataError(f"{name} has no value above 1: give 0..255 in place of levels 0 and 1")
    cpu = tensor.detach().cpu()
    binary = tensor.shape[1] == 1 and bool(((cpu == 0) | (cpu == 255)).all())
    pixels = Pixels(shape[1], shape[2], shape[3], *(("binary", 1) if binary else ("discrete", 8)))
    return MemoryImages(name, "an array", [cpu], pixels, sha256_of(cpu))
