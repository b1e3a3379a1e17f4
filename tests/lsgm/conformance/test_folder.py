"""Golden folders that are incomplete or damaged are refused in one sentence that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from lsgm.conformance.folder import numbered, read_folder
from lsgm.errors import DataError

IMAGES = {"x_uint8": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)}


def write(folder: Path, tensors: dict[str, Tensor] | None = None, meta: Any = None) -> Path:
    """A folder whose checkpoint is not read here."""
    folder.mkdir(exist_ok=True)
    (folder / "checkpoint.pt").write_bytes(b"")
    (folder / "meta.json").write_text(json.dumps({"args": {}} if meta is None else meta))
    safetensors.torch.save_file(IMAGES if tensors is None else tensors, folder / "io.safetensors")
    return folder


def test_averages_of_the_step_are_tensors_among_the_others(tmp_path: Path) -> None:
    step = {"recon": 2.5, "kl_per_group": [1.0, 2.0], "global_step": 7}
    golden = read_folder(write(tmp_path / "g", meta={"args": {"a": 1}, "step": step}))
    assert golden.args == {"a": 1}
    assert golden.tensors.keys() == {"x_uint8", "step/recon", "step/kl_per_group"}
    assert golden.tensors["step/kl_per_group"].dtype == torch.float64
    assert golden.step.global_step == 7


@pytest.mark.parametrize("name", ["checkpoint.pt", "meta.json", "io.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "g")
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"has no {name}"):
        read_folder(folder)


def test_a_folder_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        read_folder(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ([], "is not a JSON object"),
        ({"step": {}}, "the key 'args' is missing"),
        ({"args": {}, "step": 3}, "'step' is 3; it must be a table"),
        ({"args": {}, "step": {"kl": "much"}}, "'step.kl' is 'much'; it must be a number"),
        ({"args": {}, "step": {"kl_per_group": [1.0, None]}}, r"'step.kl_per_group\[1\]'"),
        ({"args": {}, "step": {"global_step": -1}}, "global_step is -1"),
    ],
)
def test_a_wrong_meta_is_refused(tmp_path: Path, meta: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_folder(write(tmp_path / "g", meta=meta))


def test_a_truncated_meta_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "g")
    (folder / "meta.json").write_text('{"args": {')
    with pytest.raises(DataError, match="is not valid JSON"):
        read_folder(folder)


def test_truncated_values_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "g")
    whole = (folder / "io.safetensors").read_bytes()
    (folder / "io.safetensors").write_bytes(whole[:-4])
    with pytest.raises(DataError, match=r"io.safetensors is truncated or damaged"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"prior/t": torch.zeros(2).double()}, "has no x_uint8"),
        ({"x_uint8": torch.zeros(2, 4)}, r"must be \[N, C, H, W\]"),
        ({"x_uint8": torch.zeros(0, 1, 4, 4)}, r"must be \[N, C, H, W\]"),
        (IMAGES | {"prior/t": torch.zeros(2)}, r"prior/t is torch.float32; golden values are float64"),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, tensors: dict[str, Tensor], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_folder(write(tmp_path / "g", tensors))


def test_a_result_without_its_input_is_refused(tmp_path: Path) -> None:
    golden = read_folder(write(tmp_path / "g"))
    with pytest.raises(DataError, match="holds prior/z_t but not prior/t, from which it follows"):
        golden.take("prior/t", "prior/z_t")


def test_an_input_of_another_shape_is_refused(tmp_path: Path) -> None:
    golden = read_folder(write(tmp_path / "g", IMAGES | {"prior/z0": torch.zeros(2, 3).double()}))
    with pytest.raises(DataError, match=r"prior/z0 has the shape \[2, 3\]"):
        golden.take_shaped("prior/z0", "prior/z_t", (4, 2, 2))


def test_groups_are_numbered_with_two_digits() -> None:
    assert numbered("vae_eval/z", 3) == "vae_eval/z/03"
