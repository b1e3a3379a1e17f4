"""What the tests of devices share: each body runs on the CPU always, and with the marker `cuda` on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return the CPU, and in a test of its own with the marker `cuda` the first GPU."""
    return _here(request.param)


@pytest.fixture
def gpu() -> torch.device:
    """Return the first GPU; for bodies that only a GPU can run, which carry the marker themselves."""
    return _here("cuda")


def _here(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here; `pytest -m cuda` on a machine with one")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


@pytest.fixture(autouse=True)
def _unrounded() -> Iterator[None]:
    """Have float32 be float32: TF32 keeps 10 bits of it, and torch's convolutions take that unless told."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
