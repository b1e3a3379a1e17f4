"""The network of the glyph feature space: four convolutions, 64 features, one linear head per label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsgm.errors import DataError
from lsgm.files.limits import NETWORK
from lsgm.files.regular import read_bytes
from lsgm_eval.features.extractor import NetworkExtractor

FEATURES = 64


def _block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class GlyphNet(nn.Module):
    """Classify 28x28 binary glyphs by several labels at once from one vector of 64 features.

    The features are normalised to unit variance over the training glyphs and taken before the last
    nonlinearity: near-Gaussian coordinates, as a Frechet distance assumes, on a scale where the distance
    between unrelated distributions is of the order of 64.
    """

    def __init__(self, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _block(1, 24, kernel=5, stride=2),
            _block(24, 40),
            _block(40, 56, stride=2),
            _block(56, 48),
            nn.AdaptiveAvgPool2d(2),
        )
        self.project = nn.Sequential(
            nn.Flatten(), nn.Linear(48 * 4, FEATURES, bias=False), nn.BatchNorm1d(FEATURES, affine=False)
        )
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, count) for name, count in classes.items()})

    def features(self, ink: Tensor) -> Tensor:
        """Return features [B, 64] of images [B, 1, 28, 28] with ink 1 and paper 0."""
        out: Tensor = self.project(self.trunk(ink))
        return out

    def forward(self, ink: Tensor) -> dict[str, Tensor]:
        """Return the logits [B, classes] of every label."""
        active = self.features(ink).relu()
        return {name: head(active) for name, head in self.heads.items()}


# The glyph feature space that ships with the package; its distances are never called FID

WEIGHTS = "glyphs-features.safetensors"


class GlyphExtractor(NetworkExtractor):
    """Features [N, 64] of 28x28 binary images from the shipped classifier of glyphs by script and style.

    The home ground are glyphs; for other drawings of that size (MNIST, OMNIGLOT) it is a named proxy.
    """

    name = "glyphs-features"
    dim = FEATURES
    image_shape = (1, 28, 28)

    def __init__(self, weights: Path | None = None, *, device: torch.device | str = "cpu") -> None:
        raw = _read_weights(weights)
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.device = torch.device(device)
        self.net = _build(raw, weights).to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        return self.net.features(images.to(self.device).float() / 255)  # binarised images come as 0 and 255


def read_card() -> dict[str, Any]:
    """Return the card of the shipped weights: accuracy by label, seed, dataset."""
    card = files("lsgm_eval.features").joinpath("glyphs-features.json").read_text(encoding="utf-8")
    return dict(json.loads(card))


def _read_weights(path: Path | None) -> bytes:
    place = files("lsgm_eval.features").joinpath(WEIGHTS) if path is None else path
    try:
        return place.read_bytes() if path is None else read_bytes(path, NETWORK)
    except (OSError, DataError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(
            f"the weights of the glyph features are not at {place} ({why}): reinstall the package "
            "or train them with `python -m lsgm_eval.features.train_glyphs`"
        ) from error


def _build(raw: bytes, path: Path | None) -> GlyphNet:
    """Return the network in evaluation mode with the weights of a safetensors file."""
    from safetensors.torch import load

    try:
        state = load(raw)
        if not all(tensor.is_floating_point() for tensor in state.values()):
            raise ValueError("weights are real numbers")
        classes = {
            name.split(".")[1]: len(tensor)
            for name, tensor in state.items()
            if name.startswith("heads.") and name.endswith(".bias")
        }
        net = GlyphNet(classes)
        # Batch counters are not stored: they change nothing in evaluation mode.
        counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
        net.load_state_dict({**counters, **{name: tensor.float() for name, tensor in state.items()}})
    except Exception as error:  # of bytes that are no weights the reader and the network say many things
        raise DataError(
            f"{path or WEIGHTS} does not hold the weights of the glyph features: reinstall the package "
            "or train them with `python -m lsgm_eval.features.train_glyphs`"
        ) from error
    return net.eval().requires_grad_(False)
