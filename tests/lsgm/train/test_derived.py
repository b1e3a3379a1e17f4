"""A run that no training made is there whole or not at all, and what is said names it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import tiny
import torch

from lsgm.errors import CheckpointError
from lsgm.files import write
from lsgm.runs.derived import write_derived_run


@pytest.mark.parametrize("failing", ["config.toml", "manifest.json", "model.safetensors", "state.json"])
def test_a_full_disk_names_the_run_that_was_asked_for_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(whole: object) -> object:
        def written(path: Path, content: bytes) -> None:
            if path.name == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            whole(path, content)  # type: ignore[operator]

        return written

    for name in ("write_synced", "replace_file"):
        monkeypatch.setattr(write, name, full(getattr(write, name)))
    weights = {"x": torch.zeros(1)}
    with pytest.raises(CheckpointError) as found:
        write_derived_run(
            tmp_path / "mine", tiny.TABLES, {"step": 1}, weights, weights, seed=0, dataset={}, argv=[]
        )
    wanted = (
        f"{tmp_path / 'mine'} could not be written (No space left on device); make room or choose another"
    )
    assert str(found.value).startswith(wanted)
    assert os.listdir(tmp_path) == []
