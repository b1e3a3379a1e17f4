"""A run directory: one configuration, one data set, one process, and where it all came from."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from beside import begin
from train_toy import hold

from lsgm.errors import ConfigError, DataError, UserError
from lsgm.runs.directory import Run

CONFIG = {"model": {"width": 8, "lr": 1e-3, "note": None}, "seed": 1, "sizes": (1, 2), "at": Path("x")}
DATA = {"name": "glyphs", "version": "1", "sha256": "ab"}


def test_config_and_manifest_are_written_and_read_back(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "a")
    run.start(CONFIG, seed=3, dataset=DATA, argv=["lsgm", "train"])
    assert run.config() == {"model": {"width": 8, "lr": 1e-3}, "seed": 1, "sizes": [1, 2], "at": "x"}
    manifest = run.manifest()
    assert (manifest["seed"], manifest["dataset"], manifest["argv"]) == (3, DATA, ["lsgm", "train"])
    assert manifest["versions"]["torch"]
    assert manifest["hardware"]["cores"] == os.cpu_count()
    assert "git_revision" in manifest
    assert run.samples.is_dir()


def test_going_on_is_noted_under_the_same_run_id(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.start(CONFIG, seed=3, dataset=DATA)
    first = run.manifest()["run_id"]
    run.start(CONFIG, seed=3, dataset=DATA, argv=["again"])
    assert run.manifest()["run_id"] == first
    assert [entry["argv"] for entry in run.manifest()["resumed"]] == [["again"]]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({**CONFIG, "model": {"width": 8, "lr": 2e-3}}, r"model\.lr = 0\.001, not 0\.002"),
        ({**CONFIG, "new": 1}, "new = nothing, not 1"),
        ({"model": CONFIG["model"], "sizes": (1, 2), "at": "x"}, "seed = 1, not nothing"),
    ],
)
def test_another_configuration_names_the_first_key_that_differs(
    tmp_path: Path, changed: dict[str, object], sentence: str
) -> None:
    run = Run(tmp_path)
    run.start(CONFIG, seed=1)
    before = run.config_path.read_bytes()
    with pytest.raises(ConfigError, match=f"was started with {sentence}; give another directory"):
        run.start(changed, seed=1)
    assert run.config_path.read_bytes() == before


def test_other_data_are_refused(tmp_path: Path) -> None:
    Run(tmp_path).start(CONFIG, seed=1, dataset=DATA)
    with pytest.raises(DataError, match="sha256 ab, and the data here have cd"):
        Run(tmp_path).start(CONFIG, seed=1, dataset={**DATA, "sha256": "cd"})


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Run(tmp_path / "file" / "run").start(CONFIG, seed=1)
    with pytest.raises(ConfigError, match=r"file cannot be written|cannot be written \(File exists\)"):
        Run(tmp_path / "file").start(CONFIG, seed=1)


@pytest.mark.parametrize("name", ["config.toml", "manifest.json"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path)
    with pytest.raises(UserError, match=name):
        run.config() if name == "config.toml" else run.manifest()
    run.start(CONFIG, seed=1)
    (tmp_path / name).write_text("[[[")
    with pytest.raises(UserError, match=name):
        run.start(CONFIG, seed=1)


def test_two_processes_do_not_train_in_one_directory(tmp_path: Path) -> None:
    other = begin(hold, tmp_path, said=tmp_path / "said.txt")
    while not (tmp_path / "in").exists():
        assert other.is_alive()
        time.sleep(0.01)
    with pytest.raises(ConfigError, match="another process is training"), Run(tmp_path).locked():
        pass
    # A killed process leaves no lock behind.
    other.kill()
    other.join()
    with Run(tmp_path).locked():
        pass


def test_the_manifest_is_json_for_everyone(tmp_path: Path) -> None:
    Run(tmp_path).start({}, seed=1)
    json.loads((tmp_path / "manifest.json").read_text())
