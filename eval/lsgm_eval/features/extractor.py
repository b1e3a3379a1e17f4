"""Feature spaces: what the harness knows of one, and how they are opened by their names.

A package adds one through the entry-point group ``lsgm.extractors``: ``pixels = "my_package.pixels:Means"``
is called as ``Means(file, image_shape, device=device)`` for the words ``pixels`` and ``pixels:FILE``, and
gives an `Extractor`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lsgm.devices import full_float32
from lsgm.discovery import ask, offers
from lsgm.errors import UserError, did_you_mean
from lsgm.files.names import shown, spelt

GROUP = "lsgm.extractors"
ImageShape = tuple[int, int | None, int | None]
"""(channels, height, width); None where any height or width will do."""


class Extractor(Protocol):
    """A fixed map from images to features, in which distances between distributions are measured."""

    name: str
    sha256: str
    """Hash of the weights: two feature spaces are the same only where it agrees."""
    dim: int
    resize: str
    """How images get to the size of the network, "" where they are taken as they are. It moves features as
    much as weights do, so whatever is kept under the hash is kept under this as well."""

    @property
    def image_shape(self) -> ImageShape:
        """Return the (channels, height, width) that it takes."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [N, dim] of images uint8 [N, C, H, W] in 0..255, on the CPU.

        Raises UserError for images of another dtype or shape and for features that are not finite.
        """
        ...


@runtime_checkable
class Classifies(Protocol):
    """An extractor whose features a linear layer turns into classes, as the Inception Score needs."""

    def class_logits(self, features: Tensor) -> Tensor:
        """Return logits float32 [N, classes] of features [N, dim] that the extractor gave."""
        ...


@runtime_checkable
class Spatial(Protocol):
    """An extractor with a second space that keeps where things are, as the spatial FID (sFID) needs."""

    spatial_dim: int

    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features [N, dim], spatial features [N, spatial_dim]), float32, of one pass over images."""
        ...


def label_of(extractor: Extractor) -> str:
    """Return ``name@sha256`` of a feature space: the extractor column of a row, the key of what is kept."""
    return spelt(f"{extractor.name}@{extractor.sha256}")  # a file may be named by bytes that are no text


@dataclass(frozen=True)
class ExtractorKind:
    """A kind of feature spaces: what opens one, and what stands behind its name."""

    opens: str
    """``package.module:function``, which is imported when one is asked for."""
    file: Literal["never", "may", "must"] = "may"
    runs: bool = False
    """Whether a file of somebody's own is a program, run by Python, TorchScript or torch.export."""
    shaped: bool = False
    """Whether it must be told the shape of the images."""


KINDS = {
    "glyphs": ExtractorKind("lsgm_eval.features.glyphs:GlyphExtractor", "never"),
    "inception": ExtractorKind("lsgm_eval.features.published:FidelityInception"),
    "inception-clean": ExtractorKind("lsgm_eval.features.published:CleanInception", runs=True),
    "export": ExtractorKind("lsgm_eval.features.exported:ExportedExtractor", "must", runs=True, shaped=True),
    "torchscript": ExtractorKind(
        "lsgm_eval.features.own:TorchScriptExtractor", "must", runs=True, shaped=True
    ),
    "dinov2": ExtractorKind("lsgm_eval.features.published:DinoV2", "must", runs=True),
}
FORMS = (
    "glyphs, inception[:FILE], inception-clean[:FILE], export:FILE.pt2, torchscript:FILE and "
    "dinov2:DIR[:MODEL]"
)


def load_extractor(
    spec: str, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu"
) -> Extractor:
    """Return the extractor that ``spec`` names, for images (channels, height, width).

    ``inception`` and ``inception-clean`` are torch-fidelity's and clean-fid's Inception-v3 with the official
    weights, looked up or downloaded; with ``:FILE`` they have weights of one's own and another name.

    Raises UserError for an unknown name, DataError for weights that are missing or damaged.
    """
    known, file = check_spec(spec), spec.partition(":")[2]
    if known.runs and file:
        ask(spec)
    module, _, name = known.opens.partition(":")
    open_: Any = getattr(importlib.import_module(module), name)
    given = () if known.file == "never" else (file, image_shape) if known.shaped else (file,)
    extractor: Extractor = open_(*given, device=device)
    return extractor


def check_spec(spec: str) -> ExtractorKind:
    """Return the kind of a feature space. Raises UserError for a word that `load_extractor` does not know."""
    name, colon, file = spec.partition(":")
    plugged = {
        key: ExtractorKind(point.value, runs=True, shaped=True) for key, point in offers(GROUP).items()
    }
    kinds = plugged | KINDS
    known = kinds.get(name)
    fits = {"never": not colon, "may": bool(colon) == bool(file), "must": bool(file)}
    if known is None or not fits[known.file]:
        also = f"; installed are {', '.join(plugged)} too" if plugged else ""
        hint = did_you_mean(name, kinds) if known is None else ""
        raise UserError(f"unknown feature extractor '{spec}'{hint or f'; the kinds are {FORMS}{also}'}")
    return known


class NetworkExtractor:
    """An extractor by a network: what goes in and comes out is looked at, between them is `_features`."""

    name: str
    device: torch.device
    resize = ""
    image_shape: ImageShape = (3, None, None)
    """Where colour images of any size are taken grey ones are as well, repeated over the channels."""

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [N, dim]. Raises UserError as an `Extractor` does."""
        takes = self.image_shape
        if images.ndim == 4 and images.shape[1] == 1 and takes == (3, None, None):
            images = images.expand(-1, 3, -1, -1)
        shape = tuple(images.shape[1:])
        fits = len(shape) == 3 and all(want in (None, got) for want, got in zip(takes, shape, strict=True))
        if images.dtype != torch.uint8 or not fits:
            want = "x".join("any" if side is None else str(side) for side in takes)
            raise UserError(
                f"the extractor {self.name} takes uint8 images of {want} and was given {images.dtype} of "
                f"{'x'.join(map(str, shape))}: choose a task whose images are of that shape"
            )
        with full_float32():
            features = self._features(images)
        return check_features(self.name, features).cpu()

    def _features(self, images: Tensor) -> Tensor:
        raise NotImplementedError


def check_features(name: str, features: Tensor) -> Tensor:
    """Return ``features``; raise UserError naming the first image whose features are not finite."""
    bad = (~torch.isfinite(features).all(dim=1)).nonzero()
    if len(bad):
        raise UserError(
            f"the extractor {name} gave features that are not finite for image {int(bad[0])} of a batch: "
            "its weights are damaged or the images are"
        )
    return features


def last_line(error: BaseException, most: int = 300) -> str:
    """Return the last line of what an error of somebody else's code says, or else what kind it is."""
    return shown((str(error).strip() or type(error).__name__).splitlines()[-1])[:most]
