"""Feature spaces by name: glyphs, Inception-v3 by two protocols, DINOv2, a network of one's own, plug-ins'.

A package adds one through the entry-point group ``lsgm.extractors``: ``pixels = "my_package.pixels:Means"``
is called as ``Means(file, image_shape, device=device)`` for the words ``pixels`` and ``pixels:FILE``, and
gives an `lsgm_eval.features.extractor.Extractor`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lsgm.discovery import ask, offers
from lsgm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch

    from lsgm_eval.features.extractor import Extractor

__all__ = ["FORMS", "KINDS", "ExtractorKind", "check_spec", "load_extractor"]


GROUP = "lsgm.extractors"


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
    "inception": ExtractorKind("lsgm_eval.features.inception:FidelityInception"),
    "inception-clean": ExtractorKind("lsgm_eval.features.inception:CleanInception", runs=True),
    "export": ExtractorKind("lsgm_eval.features.exported:ExportedExtractor", "must", runs=True, shaped=True),
    "torchscript": ExtractorKind(
        "lsgm_eval.features.own:TorchScriptExtractor", "must", runs=True, shaped=True
    ),
    "dinov2": ExtractorKind("lsgm_eval.features.dinov2:DinoV2", "must", runs=True),
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
