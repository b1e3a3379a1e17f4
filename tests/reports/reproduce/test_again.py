"""Where weights, code and data are, told by checksums and revisions, and the whole plan of a measurement."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reports.fake_manifest import fake_manifest, write_manifest

from lsgm.errors import DataError
from lsgm.results.manifest import MeasuredModel, manifest_of, read_manifest
from lsgm.results.row import Row
from lsgm_reports.reproduce.again import (
    check_code,
    check_data,
    check_hardware,
    check_versions,
    row_again,
)
from lsgm_reports.reproduce.weights import find_weights, locate, newest_checkpoint, same_weights


def checkpoint(folder: Path, content: bytes) -> str:
    """Write what a checkpoint's reader looks at, and return the weights' sha256."""
    folder.mkdir(parents=True)
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / "ema.safetensors").write_bytes(content)
    (folder / "state.json").write_text(json.dumps({"files": {"ema.safetensors": {"sha256": sha256}}}))
    return sha256


def test_weights_are_where_they_were(tmp_path: Path) -> None:
    sha256 = checkpoint(tmp_path / "run" / "checkpoints" / "step-0000006", b"w")
    model = MeasuredModel("m", "run", str(tmp_path / "run"), sha256)
    word, check = locate(model, tmp_path, [])
    assert (word, check.state) == ("run", "ok")


def test_a_run_that_went_on_is_measured_where_it_was(tmp_path: Path) -> None:
    steps = tmp_path / "run" / "checkpoints"
    sha256 = checkpoint(steps / "step-0000006", b"w")
    checkpoint(steps / "step-0000012", b"later")
    word, check = locate(MeasuredModel("m", "run", str(tmp_path / "run"), sha256), tmp_path, [])
    assert (word, check.state) == (f"m={steps / 'step-0000006'}", "ok")
    assert newest_checkpoint(tmp_path / "run") == steps / "step-0000012"


def test_weights_that_moved_are_found_by_their_checksum(tmp_path: Path) -> None:
    sha256 = checkpoint(tmp_path / "elsewhere" / "new name", b"w")
    model = MeasuredModel("m", "m=runs/m", "/gone/runs/m", sha256)
    assert locate(model, tmp_path, [tmp_path / "elsewhere"])[0] == f"m={tmp_path}/elsewhere/new name"
    assert locate(model, tmp_path, [])[1].state == "missing"


def test_a_file_that_is_not_what_it_says_is_not_taken(tmp_path: Path) -> None:
    sha256 = checkpoint(tmp_path / "run", b"w")
    (tmp_path / "run" / "ema.safetensors").write_bytes(b"x")
    assert find_weights(sha256, [tmp_path]) is None
    word, check = locate(MeasuredModel("m", "run", str(tmp_path / "run"), sha256), tmp_path, [])
    assert (word, check.state) == (None, "missing")
    assert "has others" in check.text


def test_images_and_factories_are_named_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "pngs").mkdir()
    images = MeasuredModel("p", "p=pngs", str(tmp_path / "pngs"), "1f" * 32)
    factory = MeasuredModel("f", "package.module:factory", None, "2e" * 32)
    for model, named in ((images, "p=pngs"), (factory, "package.module:factory")):
        word, check = locate(model, tmp_path, [])
        assert (word, check.state) == (named, "unknown")


A, B = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("recorded", "here", "state"),
    [
        (A, A, "ok"),
        (A, B, "differs"),
        (f"{A}+dirty", f"{B}+dirty", "differs"),
        (f"{A}+dirty", A, "unknown"),
        (A, f"{A}+dirty", "unknown"),
        (f"{A}-dirty", f"{A}+dirty", "unknown"),
        (None, A, "unknown"),
        (A, None, "unknown"),
    ],
)
def test_the_code_is_the_same_only_without_local_changes(
    recorded: str | None, here: str | None, state: str
) -> None:
    assert check_code(recorded, here).state == state


def test_versions_that_differ_are_named() -> None:
    check = check_versions({"python": "2.7.18", "no-such-package": "1.0", "nor-this": None})
    assert check.state == "differs"
    assert "(was 2.7.18), no-such-package absent (was 1.0)" in check.text
    assert "nor-this" not in check.text


def test_data_are_looked_for_where_they_are_read_from(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "photos").mkdir()
    states = [
        check_data(name, None, [tmp_path], tmp_path).state
        for name in ("glyphs", "mnist", "cifar10", "./photos", "./absent", "images.zip")
    ]
    assert states == ["ok", "ok", "unknown", "ok", "missing", "missing"]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "differs"),
        ({"cores": os.cpu_count()}, "ok"),
        ({"cores": os.cpu_count(), "device": "cuda:0"}, "unknown"),
    ],
)
def test_hardware_is_compared_as_far_as_it_is_seen(
    tmp_path: Path, changes: dict[str, Any], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.processor", lambda: "x86_64")
    device = changes.pop("device", "cpu")
    hardware = fake_manifest()["hardware"] | {"cores": 0} | changes
    path = write_manifest(tmp_path, fake_manifest(hardware=hardware, device=device))
    assert check_hardware(read_manifest(path)).state == state


ROW = Row("glyphs@1/quick", "vae", "nelbo_nats", 1.0, group="likelihood", manifest="abcabcabcabc")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result folder whose call was made right here, with weights that are still there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("LSGM_DATA", raising=False)
    models = fake_manifest()["models"]
    for model in models:
        model["path"] = str(tmp_path / "runs" / model["name"])
        model["sha256"] = checkpoint(tmp_path / "runs" / model["name"], model["name"].encode())
    write_manifest(tmp_path / "out", fake_manifest(models=models, directory=str(tmp_path)))
    return tmp_path / "out"


def test_the_command_keeps_models_device_threads_and_data(folder: Path) -> None:
    again = row_again(ROW, manifest_of(ROW, folder), folder, Path("fresh"))
    assert again.shell == (
        "OMP_NUM_THREADS=1 LSGM_DATA=/far/data lsgm eval glyphs --model 'a b=runs/a b' --model vae=runs/vae "
        "--device cpu --out fresh"
    )
    assert not again.missing
    assert row_again(ROW, manifest_of(ROW, folder), folder, Path("fresh"), "cuda").argv[-4:] == (
        *("--device", "cuda"),
        *("--out", "fresh"),
    )


def test_elsewhere_the_command_goes_there_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other place").mkdir()
    monkeypatch.chdir(tmp_path / "other place")
    again = row_again(ROW, manifest_of(ROW, folder), folder, Path("fresh"))
    assert again.shell.startswith(f"cd {tmp_path} && ")
    assert again.shell.endswith(f"--out '{tmp_path}/other place/fresh'")


def test_what_is_not_here_any_more_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*fake_manifest()["command"], "--time-budget", "60"]
    write_manifest(tmp_path / "out", fake_manifest(command=command))
    again = row_again(ROW, manifest_of(ROW, tmp_path / "out"), tmp_path / "out", Path("fresh"))
    assert again.missing == [
        "a b with weights of sha256 1f1f1f1f1f1f: not at /far/runs/a b",
        "vae with weights of sha256 3d3d3d3d3d3d: not at /far/runs/vae",
    ]
    assert "--model vae=CHECKPOINT" in again.shell
    assert [remark.split()[0] for remark in again.remarks] == ["/far", "its", "the"]
    assert "--time-budget" not in again.argv


def test_the_command_that_a_manifest_has_for_its_rows_is_taken_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its rows say of themselves, it is what measured them."""
    monkeypatch.chdir(folder)
    exact = ("lsgm", "eval", "glyphs", "--tier", "full", "--only", "quality", "--model", "vae", "--json")
    manifest = replace(manifest_of(ROW, folder), again=exact)
    again = row_again(replace(ROW, metric="nelbo_nats"), manifest, folder, Path("fresh"))
    assert again.argv[:8] == ("lsgm", "eval", "glyphs", "--tier", "full", "--only", "quality", "--model")
    assert "--json" not in again.argv
    hostile = replace(manifest, again=("lsgm", "data", "rm", "glyphs"))
    with pytest.raises(DataError, match="which measures no row"):
        row_again(ROW, hostile, folder, Path("fresh"))


def test_a_damaged_manifest_is_an_error(folder: Path) -> None:
    (folder / "manifests" / "abcabcabcabc.json").write_text("{")
    with pytest.raises(DataError, match="restore it, or remove it"):
        manifest_of(ROW, folder)


@pytest.mark.parametrize("content", [b"w", None])
def test_a_word_that_leads_elsewhere_does_not_stand_for_what_was_found(
    content: bytes | None, tmp_path: Path
) -> None:
    good, here = tmp_path / "good", tmp_path / "here"
    sha256 = checkpoint(good, content) if content else "1f" * 32
    good.mkdir(exist_ok=True)
    checkpoint(here / "run", b"others")
    for spec in ("run", "x=run", "evil:factory", "--out=run"):
        assert locate(MeasuredModel("m", spec, str(good), sha256), here, [])[0] == f"m={good}"
    assert locate(MeasuredModel("m", "good", str(good), sha256), tmp_path, [])[0] == "good"


def test_weights_that_no_file_can_be_are_passed_over_at_once(tmp_path: Path) -> None:
    sha256 = checkpoint(tmp_path / "run", b"w")
    weights = tmp_path / "run" / "ema.safetensors"
    with weights.open("r+b") as file:
        file.truncate(2**40)
    assert find_weights(sha256, [tmp_path]) is None
    weights.unlink()
    os.mkfifo(weights)
    assert find_weights(sha256, [tmp_path]) is None


def test_weights_that_cannot_be_read_are_not_said_to_differ(tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoint(tmp_path / name / "checkpoints" / "step-0000006", b"w")
    (tmp_path / "b" / "checkpoints" / "step-0000006" / "ema.safetensors").unlink()
    same, sentence = same_weights(tmp_path / "a", tmp_path / "b")
    assert not same
    assert (
        sentence
        == f"the weights of {tmp_path}/b/checkpoints/step-0000006 cannot be read, and so not compared"
    )
