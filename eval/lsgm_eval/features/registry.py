"""Feature spaces by name: glyphs, Inception-v3 by two protocols, DINOv2, or a network of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsgm.discovery import ask
from lsgm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch

    from lsgm_eval.features.extractor import Extractor

__all__ = ["check_spec", "load_extractor"]

KINDS = ("glyphs", "inception", "inception-clean", "export", "torchscript", "dinov2")
FOREIGN = ("export", "torchscript", "dinov2", "inception-clean")
"""Kinds of which a file of somebody's own is a program, run by Python, TorchScript or torch.export."""
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
    check_spec(spec)
    kind, _, file = spec.partition(":")
    if kind in FOREIGN and file:
        ask(spec)
    if kind == "glyphs":
        from lsgm_eval.features.glyphs import GlyphExtractor

        return GlyphExtractor(device=device)
    if kind == "export":
        from lsgm_eval.features.exported import ExportedExtractor

        return ExportedExtractor(file, image_shape, device=device)
    if kind == "torchscript":
        from lsgm_eval.features.own import TorchScriptExtractor

        return TorchScriptExtractor(file, image_shape, device=device)
    if kind == "inception":
        from lsgm_eval.features.inception import FidelityInception

        return FidelityInception(file, device=device)
    if kind == "inception-clean":
        from lsgm_eval.features.inception import CleanInception

        return CleanInception(file, device=device)
    from lsgm_eval.features.dinov2 import DinoV2

    return DinoV2(file, device=device)


def check_spec(spec: str) -> None:
    """Raise UserError unless ``spec`` is of a form that `load_extractor` knows."""
    kind, colon, file = spec.partition(":")
    whole = {"glyphs": not colon, "export": bool(file), "torchscript": bool(file), "dinov2": bool(file)}
    if kind not in KINDS or not whole.get(kind, bool(colon) == bool(file)):
        hint = "" if kind in KINDS else did_you_mean(kind, KINDS)
        raise UserError(f"unknown feature extractor '{spec}'{hint or f'; the kinds are {FORMS}'}")
