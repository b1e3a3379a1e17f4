"""DINOv2 comes from a local folder of torch.hub and sees ImageNet-normalised images of 224x224."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lsgm.errors import DataError, UserError
from lsgm_eval.features.extractor import load_extractor

HUB = """
import torch
class Patches(torch.nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(float(shift)))
    def forward(self, x):
        assert x.shape[1:] == (3, 224, 224)
        return torch.nn.functional.avg_pool2d(x, 112).flatten(1) + self.shift
def dinov2_vitl14(pretrained=True):
    return Patches(0)
def shifted(pretrained=True):
    return Patches(1)
def flat(pretrained=True):
    return torch.nn.Flatten(0)
def offline(pretrained=True):
    raise OSError("no route to host")
"""


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    (tmp_path / "hubconf.py").write_text(HUB)
    return tmp_path


def noise(channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, channels, 32, 32), dtype=torch.uint8, generator=generator)


def by_hand(image: Tensor) -> Tensor:
    """Return what the model must see, channel by channel through Pillow."""
    planes = []
    for plane, mean, std in zip(image.numpy(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True):
        large = Image.fromarray(plane.astype(np.float32)).resize((224, 224), Image.Resampling.BICUBIC)
        planes.append((np.asarray(large).clip(0, 255) / 255 - mean) / std)
    return torch.tensor(np.stack(planes))


def test_features_are_those_of_the_normalised_resized_image(hub: Path) -> None:
    extractor, images = load_extractor(f"dinov2:{hub}", (3, 32, 32)), noise()
    assert (extractor.name, extractor.dim, extractor.resize) == (
        "dinov2-vitl14",
        12,
        "clean-fid-pil-bicubic-224",
    )
    seen = torch.stack([by_hand(image) for image in images])
    expected = torch.nn.functional.avg_pool2d(seen, 112).flatten(1)
    # Means over 112 x 112 pixels in float32.
    torch.testing.assert_close(extractor(images), expected, rtol=1e-5, atol=1e-5)
    grey = noise(channels=1)
    assert torch.equal(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))


def test_another_model_is_another_space(hub: Path) -> None:
    first, again = (load_extractor(f"dinov2:{hub}", (3, 32, 32)) for _ in range(2))
    other = load_extractor(f"dinov2:{hub}:shifted", (3, 32, 32))
    assert other.name == "shifted"
    assert first.sha256 == again.sha256 != other.sha256


def test_what_is_missing_is_named(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere has no hubconf.py: run `git clone https"):
        load_extractor(f"dinov2:{tmp_path / 'nowhere'}", (3, 32, 32))
    with pytest.raises(DataError, match=r"did not give the model dinov2_huge .*name one of its hubconf.py"):
        load_extractor(f"dinov2:{hub}:dinov2_huge", (3, 32, 32))
    with pytest.raises(DataError, match=r"the model offline \(no route to host\): .*checkpoints"):
        load_extractor(f"dinov2:{hub}:offline", (3, 32, 32))
    with pytest.raises(UserError, match=r"the torch.hub model flat must return features N x D"):
        load_extractor(f"dinov2:{hub}:flat", (3, 32, 32))
    with pytest.raises(UserError, match=r"dinov2::shifted names no folder"):
        load_extractor("dinov2::shifted", (3, 32, 32))
