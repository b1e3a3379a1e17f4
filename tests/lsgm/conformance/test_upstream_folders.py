"""`lsgm conformance` on folders of files that the original codes wrote, and on ours laid out as these."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles.score_sde import SlowScoreSDE, contents, save
from safetensors.torch import load_file, save_file
from torch import Tensor
from upstream import stage2, write_folder

from lsgm.cli import main

SHARED = Path(os.environ.get("LSGM_SHARED", Path(__file__).parents[3].parent / "shared"))
UPSTREAM = SHARED / "upstream"
FOLDERS = sorted(path.parent for path in UPSTREAM.rglob("expected.safetensors"))
upstream = pytest.mark.skipif(not FOLDERS, reason=f"the authors' own files are not here: {UPSTREAM}")

PINNED = "a dropped channel's logit is pinned at -15 here, where the file says "
BINS = "bins of less than 1e-5 have their probability here, where the authors' code takes the density"


def label(path: Path) -> str:
    return path.relative_to(UPSTREAM).as_posix()


def conform(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    status = main(["conformance", str(folder), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return status, {row["stage"]: row for row in rows}


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["conformance", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def spoil(folder: Path, change: dict[str, Tensor]) -> Path:
    values = load_file(folder / "expected.safetensors")
    save_file({**values, **change}, folder / "expected.safetensors")
    return folder


@upstream
@pytest.mark.parametrize("folder", FOLDERS, ids=label)
def test_every_stage_of_every_file_of_theirs_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = conform(folder, capsys)
    assert status == 0
    assert {row["verdict"] for row in found.values()} == {"PASS"}
    given = ("x_uint8", "prior/t", "prior/z0", "prior/noise", "x", "t")
    values = load_file(folder / "expected.safetensors")
    assert set(found) == {name for name in values if name not in given and "encoder_noise" not in name}
    for stage, row in found.items():  # what is allowed for by design is named, and nothing else is
        assert row["tolerance"] <= 1e-9 or row["reason"].startswith((PINNED, BINS)), stage


@pytest.mark.parametrize("adam", ["apex", "torch"])
def test_a_file_of_our_own_making_conforms(
    adam: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "f", stage2(adam=adam, steps=200, dropped=(1,)), (1,))
    status, found = conform(folder, capsys)
    assert (status, {row["verdict"] for row in found.values()}) == (0, {"PASS"})
    assert found["prior/raw/eps_prediction"]["tolerance"] == 1e-9
    moved = found["prior/raw_masked/eps_prediction"]
    assert moved["reason"].startswith(PINNED)
    # Decoupled decay leaves the logit where it was, the other lifts it.
    assert (moved["tolerance"] > 1e-7) == (adam == "torch")


def test_a_logit_that_climbed_is_allowed_for_and_a_wrong_mask_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = stage2(adam="torch", steps=600, dropped=(1,))
    status, found = conform(write_folder(tmp_path / "right", content, (1,)), capsys)
    assert (status, found["prior/is_active"]["verdict"]) == (0, "PASS")
    status, found = conform(write_folder(tmp_path / "wrong", content, (2,)), capsys)
    failed = {stage for stage, row in found.items() if row["verdict"] == "FAIL"}
    assert status == 1
    assert {"prior/is_active", "prior/raw_masked/network_output", "prior/ema_masked/eps_prediction"} <= failed
    assert not {stage for stage in failed if "masked" not in stage} - {"prior/is_active"}


def test_averages_that_are_not_the_files_fail_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "f", stage2(steps=5))
    values = load_file(folder / "expected.safetensors")
    name = "prior/ema/network_output"
    status, found = conform(spoil(folder, {name: values[name] * (1 + 1e-6)}), capsys)
    assert status == 1
    assert [stage for stage, row in found.items() if row["verdict"] == "FAIL"] == [name]


def test_reasons_are_part_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "f", stage2(adam="torch", steps=60, dropped=(1,)), (1,))
    assert main(["conformance", str(folder)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "raw_masked/eps" in line)
    assert f"PASS     {PINNED}-14.42" in line


def test_an_incomplete_or_damaged_folder_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "f", stage2(steps=2))
    whole = (folder / "expected.safetensors").read_bytes()
    (folder / "expected.safetensors").write_bytes(whole[:-8])
    assert "expected.safetensors is truncated or damaged" in refused(folder, capsys)
    (folder / "expected.safetensors").unlink()
    assert "has no meta.json" in refused(folder, capsys)
    (folder / "expected.safetensors").write_bytes(whole)
    spoil(folder, {"prior/z0": torch.zeros(2, 7, 8, 8).double()})
    assert "expected.safetensors: prior/z0 has the shape [2, 7, 8, 8]" in refused(folder, capsys)
    spoil(folder, {"prior/z0": torch.zeros(2, 4, 8, 8)})
    assert "prior/z0 is torch.float32" in refused(folder, capsys)


SETTINGS: dict[str, Any] = {
    "image_size": 8,
    "nf": 8,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [4],
}
EXPLODING = {"sde": "vesde", "scale_by_sigma": True, "embedding_type": "fourier", "centered": False}


def score_sde_folder(folder: Path, settings: dict[str, Any]) -> Path:
    """A checkpoint of score_sde_pytorch with its settings and what the slow copy computes of it."""
    import tomli_w

    folder.mkdir()
    slow = SlowScoreSDE(settings)
    save(contents(slow), folder / "checkpoint.pth")
    (folder / "config.toml").write_text(tomli_w.dumps(settings))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    std = slow.kernel(t)[1]
    exploding = settings.get("sde") == "vesde"

    def output() -> Tensor:
        score = slow.score(x, t)
        return score if exploding else -score * std.reshape(-1, 1, 1, 1)

    values = {
        "x": x,
        "t": t,
        "std": std,
        "labels": std.clone() if exploding else 999 * t,
        "ema/output": output(),
    }
    last = {
        name: value if value.ndim == 1 and name.endswith(".W") else value / 2
        for name, value in slow.weights.items()
    }
    slow.weights = last
    save_file({**values, "raw/output": output()}, folder / "expected.safetensors")
    return folder


@pytest.mark.parametrize("settings", [SETTINGS, {**SETTINGS, **EXPLODING}], ids=["vp", "ve"])
def test_a_checkpoint_of_score_sde_conforms(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = score_sde_folder(tmp_path / "f", settings)
    status, found = conform(folder, capsys)
    assert status == 0
    assert {row["verdict"] for row in found.values()} == {"PASS"}
    assert sorted(found) == ["ema/output", "labels", "raw/output", "std"]
    values = load_file(folder / "expected.safetensors")
    status, found = conform(spoil(folder, {"raw/output": values["ema/output"]}), capsys)
    assert (status, found["raw/output"]["verdict"], found["ema/output"]["verdict"]) == (1, "FAIL", "PASS")


def test_an_incomplete_folder_of_score_sde_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = score_sde_folder(tmp_path / "f", SETTINGS)
    spoil(folder, {"x": torch.zeros(2, 3, 4, 4).double()})
    assert "x has the shape [2, 3, 4, 4]" in refused(folder, capsys)
    (folder / "config.toml").unlink()
    assert "has no config.toml" in refused(folder, capsys)
