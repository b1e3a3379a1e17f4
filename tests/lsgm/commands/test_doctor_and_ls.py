"""What ``lsgm doctor`` and ``lsgm ls`` print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lsgm.commands import doctor, ls
from lsgm.errors import ConfigError
from lsgm.recipes import find_recipes, shown_flops, shown_hours


def test_doctor_names_data_with_their_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "manifest.json").write_text('{"name": "mnist", "version": "official"}')
    (tmp_path / "loose").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "note.txt").write_text("")
    monkeypatch.setenv("LSGM_DATA", str(tmp_path))
    assert doctor.run([]) == 0
    page = capsys.readouterr().out
    assert f"{tmp_path}: mnist@official, loose" in page
    assert "hidden" not in page
    for word in ("python", "torch", "devices", "bfloat16", "threads", "torchvision", "cache", "GiB free"):
        assert word in page


def test_doctor_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(["--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["torch"]
    assert "cpu" in findings["devices"]


def test_doctor_reports_a_torch_that_does_not_import(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_torch", lambda: {"torch": None, "devices": ["none: no libtorch"]})
    assert doctor.run([]) == 1
    assert "does not import" in capsys.readouterr().out


def test_ls_recipes_shows_kind_dataset_and_budgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "letters.toml"
    file.write_text(
        'kind = "lsgm"\n[data]\ndataset = "omniglot"\n[stage1]\nseconds = 30.0\n[stage2]\nsteps = 200\n'
    )
    monkeypatch.setattr(ls, "find_recipes", lambda: {"letters": file})
    assert ls.run(["recipes", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row == {
        "recipe": "letters",
        "kind": "lsgm",
        "dataset": "omniglot",
        "stages": "stage1 30 s, stage2 200 steps",
        "parameters": "",
        "training": "",
        "estimate": "",
        "cost": None,
    }


def test_ls_recipes_shows_parameters_and_cost_without_torch() -> None:
    script = """
import sys
from lsgm.cli import main
assert main(["ls", "recipes"]) == 0
assert main(["ls", "recipes", "--json"]) == 0
assert not {"torch", "numpy", "pandas"} & sys.modules.keys()
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("cifar10-fid ")]
    assert "vae 100.87 M, prior 375.56 M" in line
    (row,) = [json.loads(line) for line in shown.splitlines() if '"cifar10-fid"' in line]
    assert shown_flops(row["cost"]["flops"]) == row["training"]
    assert row["training"] in line
    assert row["estimate"] in line
    assert "{" not in line  # what is for machines alone


def test_a_cost_is_shown_at_the_rate_of_the_machine_that_it_suits() -> None:
    assert shown_flops(3.84e19) == "3.8e19 FLOP"
    assert shown_hours(3.6e14) == "1 h at 100 GFLOP/s"
    assert shown_hours(3.6e19) == "100 h at 100 TFLOP/s"
    assert (shown_flops(None), shown_hours(None)) == ("", "")


def test_ls_lists_every_installed_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert ls.run(["recipes", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    if find_recipes():
        assert [json.loads(line)["recipe"] for line in lines] == list(find_recipes())


@pytest.mark.parametrize(
    ("noun", "name"),
    [("samplers", "heun"), ("datasets", "glyphs"), ("commands", "doctor"), ("tasks", "glyphs@3")],
)
def test_ls_knows_the_common_names(noun: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ls.run([noun]) == 0
    assert name in capsys.readouterr().out


def test_an_unknown_noun_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"cannot list 'recips'; did you mean 'recipes'\?"):
        ls.run(["recips"])
    with pytest.raises(ConfigError, match="there are recipes, samplers"):
        ls.run(["zzz"])
