"""Checkpoints appear whole or not at all, and say in one sentence what is wrong with them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import load_weights
from torch import nn
from train_toy import CONFIG, run_toy, two_stages, weights

from lsgm.errors import CheckpointError
from lsgm.files import write
from lsgm.runs.checkpoint import (
    checkpoints,
    find_checkpoint,
    prune,
    read_state,
    read_weights,
    save_checkpoint,
)
from lsgm.runs.directory import Run


def save(parent: Path, step: int = 1, module: nn.Module | None = None, **state: object) -> Path:
    tensors = (module or nn.Linear(2, 3)).state_dict()
    return save_checkpoint(parent, {"step": step, "stage_done": False, **state}, tensors, tensors, {})


def test_weights_go_there_and_back(tmp_path: Path) -> None:
    module, other = nn.Linear(2, 3), nn.Linear(2, 3)
    path = save(tmp_path / "checkpoints", 7, module, meta={"kind": "x"})
    assert load_weights(other, path)["meta"] == {"kind": "x"}
    assert load_weights(other, tmp_path)["step"] == 7
    assert torch.equal(module.weight, other.weight)
    assert read_state(path)["shapes"] == {"weight": [3, 2], "bias": [3]}


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    module = nn.ModuleList([nn.Linear(2, 2)] * 2)
    load_weights(module, save(tmp_path, module=module))


@pytest.mark.parametrize("failing", ["model.safetensors", "ema.safetensors", "optimizer.pt", "state.json"])
def test_a_full_disk_names_the_path_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    run_toy(tmp_path, max_steps=4)
    before = weights(tmp_path)
    whole = write.write_synced

    def full(path: Path, content: bytes) -> None:
        if path.name == failing:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(write, "write_synced", full)
        with pytest.raises(
            CheckpointError, match=r"step-0000008 could not be saved \(No space left on device\)"
        ):
            run_toy(tmp_path, max_steps=4)
    assert [p.name for p in Run(tmp_path).checkpoints.iterdir()] == ["step-0000004"]
    assert weights(tmp_path) == before
    run_toy(tmp_path)
    run_toy(tmp_path / "whole")
    assert weights(tmp_path) == weights(tmp_path / "whole")


def test_a_crash_between_write_and_rename_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-0000001"]
    read_weights(find_checkpoint(tmp_path / "step-0000001"))


def test_a_replaced_file_is_the_old_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write.replace_file(path, b"old")

    def crash(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="full"):
        write.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer.pt"])
@pytest.mark.parametrize(
    ("harm", "what"), [(truncate, "is truncated"), (flip, "is damaged"), (os.remove, "cannot be read")]
)
def test_a_harmed_file_is_named_with_the_remedy(
    tmp_path: Path, name: str, harm: Callable[[Path], None], what: str
) -> None:
    run_toy(tmp_path, max_steps=4)
    newest = find_checkpoint(tmp_path)
    harm(newest / name)
    with pytest.raises(CheckpointError, match=what) as caught:
        run_toy(tmp_path)
    assert str(newest / name) in str(caught.value)
    assert f"delete {newest} to go on from the one before" in str(caught.value)


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    path = save(tmp_path)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 2}))
    with pytest.raises(CheckpointError, match="has format 2 and this version reads up to 1; update"):
        load_weights(nn.Linear(2, 3), path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff"])
def test_a_state_that_is_not_ours_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path)
    (path / "state.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.json is not the JSON that was written"):
        read_state(path)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (nn.Linear(2, 4), r"'weight' is \[3, 2\] there and \[4, 2\] here"),
        (nn.Linear(2, 3, bias=False), "it has 'bias', which this model has not"),
        (nn.Sequential(nn.Linear(2, 3)), "it lacks '0.weight'"),
    ],
)
def test_weights_of_another_model_name_the_first_difference(
    tmp_path: Path, other: nn.Module, problem: str
) -> None:
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"belongs to another model: {problem}"):
        load_weights(other, save(tmp_path))
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_missing_checkpoints_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_weights(nn.Linear(2, 3), tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(nn.Linear(2, 3), tmp_path / "checkpoints" / "step-0000009")


def test_the_newest_and_the_last_of_each_stage_are_kept(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, stage_done=step in (2, 4))
    prune(tmp_path, 2)
    assert [int(p.name[5:]) for p in checkpoints(tmp_path)] == [2, 4, 6, 7]


def test_a_run_keeps_what_its_stages_say(tmp_path: Path) -> None:
    from dataclasses import replace

    run_toy(tmp_path, two_stages(replace(CONFIG, checkpoint_every=1e-9, keep=3)))
    assert [int(p.name[5:]) for p in checkpoints(tmp_path / "checkpoints")] == [12, 22, 23, 24]


@pytest.mark.parametrize("name", ["step-by-step", "step-5", "step-0000003", "step-²"])
def test_a_run_may_be_called_like_a_checkpoint(tmp_path: Path, name: str) -> None:
    module = nn.Linear(2, 3)
    path = save(tmp_path / name / "checkpoints", 7, module)
    (tmp_path / name / "checkpoints" / "step-²").mkdir()
    assert find_checkpoint(tmp_path / name) == path
    assert load_weights(nn.Linear(2, 3), tmp_path / name)["step"] == 7
    with pytest.raises(CheckpointError, match="step-else holds no checkpoint; give a run directory"):
        find_checkpoint(tmp_path / "step-else")
