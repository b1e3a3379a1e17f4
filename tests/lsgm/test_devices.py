"""Devices by name: this process's GPU where there is one, and one line about a device that is not here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from lsgm.devices import full_float32, pick_device, round_to_tf32
from lsgm.errors import ConfigError


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("rank", "index"), [(None, 0), ("1", 1)])
def test_auto_is_this_processs_gpu(monkeypatch: pytest.MonkeyPatch, rank: str | None, index: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert pick_device("auto") == torch.device("cuda", index)


def test_a_device_is_taken_by_its_name() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "", "0", "cuda:99", "meta", "xla", "hpu"])
def test_what_is_not_here_is_named_in_one_short_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pick_device(name)
    sentence = str(caught.value)
    assert sentence.startswith(f"there is no device '{name}' here (")
    assert sentence.endswith("); try --device cpu")
    assert "\n" not in sentence
    # torch itself answers some of these with a page.
    assert len(sentence) < 400


@pytest.fixture
def switches() -> Iterator[None]:
    """Put torch's own settings back."""
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False


@pytest.mark.usefixtures("switches")
def test_float32_is_float32_once_a_gpu_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    pick_device("cpu")
    assert torch.backends.cudnn.allow_tf32  # a CPU knows no TF32, and nobody's program is touched
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pick_device("auto")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("on", [True, False])
def test_rounding_is_off_for_a_while_and_then_as_it_was(on: bool) -> None:
    round_to_tf32(on)
    with full_float32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == on


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch has one kind of switch")
def test_rounding_is_off_for_a_while_under_torchs_newer_switches_too() -> None:
    """In a process of its own: after these the older ones cannot be read."""
    script = """
import torch
from lsgm.devices import full_float32
torch.backends.fp32_precision = "tf32"
def switches():
    return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
with full_float32():
    assert switches() == ("ieee", "ieee"), switches()
assert switches() == ("tf32", "tf32"), switches()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
