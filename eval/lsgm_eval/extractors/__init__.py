"""Feature spaces by name: glyphs, Inception-v3 by two protocols, DINOv2, or any TorchScript file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsgm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch

    from lsgm_eval.extractors.base import Extractor

__all__ = ["load_extractor"]

KINDS = ("glyphs", "inception", "inception-clean", "torchscript", "dinov2")
FORMS = "glyphs, inception[:FILE], inception-clean[:FILE], torchscript:FILE and dinov2:DIR[:MODEL]"


def load_extractor(
    spec: str, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu"
) -> Extractor:
    """Return the extractor that ``spec`` names, for images (channels, height, width).

    ``inception`` and ``inception-clean`` are torch-fidelity's and clean-fid's Inception-v3 with the official
    weights, looked up or downloaded; with ``:FILE`` they have weights of one's own and another name.

    Raises UserError for an unknown name, DataError for weights that are missing or damaged.
    """
    kind, colon, file = spec.partition(":")
    if kind == "glyphs" and not colon:
        from lsgm_eval.extractors.glyphs import GlyphExtractor

        return GlyphExtractor(device=device)
    if kind == "torchscript" and file:
        from lsgm_eval.extractors.torchscript import TorchScriptExtractor

        return TorchScriptExtractor(file, image_shape, device=device)
    if kind == "inception" and bool(colon) == bool(file):
        from lsgm_eval.extractors.inception_fidelity import FidelityInception

        return FidelityInception(file, device=device)
    if kind == "inception-clean" and bool(colon) == bool(file):
        from lsgm_eval.extractors.inception_clean import CleanInception

        return CleanInception(file, device=device)
    if kind == "dinov2" and file:
        from lsgm_eval.extractors.dinov2 import DinoV2

        return DinoV2(file, device=device)
    hint = "" if kind in KINDS else did_you_mean(kind, KINDS)
    raise UserError(f"unknown feature extractor '{spec}'{hint or f'; the kinds are {FORMS}'}")
