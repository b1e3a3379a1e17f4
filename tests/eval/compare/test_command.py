"""`lsgm compare` as a user meets it: two trained runs that were measured, and two folders of results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from lsgm.data import ImageSet
from lsgm.errors import ConfigError, UserError
from lsgm.train.loop import train_recipe
from lsgm_eval import models
from lsgm_eval.commands import eval as measuring
from lsgm_eval.commands.compare import run
from lsgm_eval.run import plan

TASK = (
    tiny.TASK
    + """
[tiers.quick]
n_samples = 60
nelbo_images = 40
ode_images = 0
sampler = { name = "heun", steps = 3 }
[tiers.smoke]
n_samples = 40
nelbo_images = 20
ode_images = 0
"""
)

Runs = tuple[Path, Path]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("task") / "bars.toml"
    path.write_text(TASK)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two tiny LSGMs of one seed, the second trained for longer and by another learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("a", {}), ("b", {"stage2": {"steps": 9}, "stage1": {"vae": {"lr": 1e-2}}})):
        train_recipe(tiny.recipe(changes), folder / name, images=tiny.bars())
    return folder / "a", folder / "b"


@pytest.fixture(scope="module")
def measured(trained: Runs, task: str) -> Runs:
    """Both measured into their own directories."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "load", lambda name, **options: tiny.bars())
        for place in trained:
            measure(task, place, f"model={place}", "--only", "nelbo")
    return trained


@pytest.fixture
def runs(measured: Runs, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setattr(plan, "load", lambda name, **options: tiny.bars())
    return measured


@pytest.fixture
def results(
    task: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bars: ImageSet,
    bernoulli: Callable[..., Any],
) -> Runs:
    """Results of a model of the right ink and of one that draws too much of it."""
    monkeypatch.setattr(plan, "load", lambda name, **options: bars)
    known = {
        "right": bernoulli(name="ink", p=0.05, sha256="a" * 64),
        "wrong": bernoulli(name="ink", p=0.3, sha256="c" * 64),
    }
    monkeypatch.setattr(models, "open_model", lambda spec, device="cpu": known[spec])
    for name in known:
        measure(task, tmp_path / name, name)
    return tmp_path / "right", tmp_path / "wrong"


def measure(task: str, out: Path, model: str, *words: str) -> None:
    assert measuring.run([task, "--model", model, "--out", str(out), "--device", "cpu", *words]) == 0


Compare = Callable[..., str]


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compare:
    """Compare two folders, end with the status and return what was printed."""

    def call(places: Runs, *words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert run([*map(str, places), *words]) == status
        return capsys.readouterr().out

    return call


def rows_of(text: str, part: str) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in text.splitlines()]
    return {row.get("name") or row["metric"]: row for row in rows if row["part"] == part}


def test_two_runs_show_what_changed_and_what_it_did(runs: Runs, compare: Compare) -> None:
    text = compare(runs)
    assert re.search(r"2 of \d+ keys differ\.", text)
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["stage2.steps"][1:] == ["6", "9"]
    assert lines["stage1.vae.lr"][1:] == ["0.003", "0.01"]
    assert lines["steps"][1:] == ["12", "15", "+3"]
    assert "training data sha256, measured data, bits scored" in text
    assert "paired over 40 images" in text
    assert "CODE THAT TRAINED\n" in text
    assert "CODE THAT MEASURED\n" in text


def test_json_rows_hold_the_same_unrounded(runs: Runs, compare: Compare) -> None:
    text = compare(runs, "--json")
    assert set(rows_of(text, "config")) == {"stage2.steps", "stage1.vae.lr"}
    row = rows_of(text, "numbers")["nelbo_nats"]
    measured = [json.loads((place / "results.jsonl").read_text().splitlines()[0]) for place in runs]
    assert [row["value_a"], row["value_b"]] == [made["value"] for made in measured]
    assert row["manifest_a"] == measured[0]["manifest"]
    assert row["difference"] == pytest.approx(row["value_b"] - row["value_a"], rel=1e-6)
    assert row["ci_low"] < row["difference"] < row["ci_high"]
    assert row["paired"] is True


def test_a_run_and_itself_are_the_same_in_everything(runs: Runs, compare: Compare) -> None:
    text = compare((runs[0], runs[0]), "--json", "--fail-if-worse")
    assert not rows_of(text, "config")
    assert {row["verdict"] for row in rows_of(text, "numbers").values()} == {"same"}


def test_results_elsewhere_lead_to_the_runs_that_they_are_of(
    runs: Runs, task: str, tmp_path: Path, compare: Compare
) -> None:
    places = tmp_path / "one", tmp_path / "two"
    for place, model in zip(places, runs, strict=True):
        measure(task, place, f"m={model}", "--only", "nelbo")
    text = compare(places)
    assert f"That of A is read from {runs[0]}, where" in text
    assert "stage2.steps" in text


def test_markdown_has_the_numbers_in_a_table(runs: Runs, compare: Compare) -> None:
    text = compare(runs, "--md")
    assert text.startswith("# Two runs side by side\n")
    assert "\n| key | A | B |\n| --- | --- | --- |\n" in text
    assert "\n| nelbo\\_nats | " in text


def test_distances_are_paired_by_seed_and_the_worse_model_fails(
    results: Runs, compare: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(compare(results, "--json"), "numbers")
    for metric in ("frechet_glyphs", "kernel_glyphs"):
        assert rows[metric]["how"] == "paired over 60 seeds"
        assert rows[metric]["verdict"] == "worse"
    assert rows["nelbo_nats"]["verdict"] == "worse"
    assert rows["nfe"]["verdict"] == "same"
    assert rows["frechet_glyphs"]["p_holm"] >= rows["frechet_glyphs"]["p"]
    assert run([*map(str, results), "--fail-if-worse"]) == 1
    said = capsys.readouterr().err
    assert "lsgm: worse: bars@1/quick frechet_glyphs of ink: B - A is +" in said
    compare(results[::-1], "--fail-if-worse")


def test_another_tier_is_refused_with_its_name(
    results: Runs, task: str, tmp_path: Path, compare: Compare
) -> None:
    measure(task, tmp_path / "smoke", "right", "--tier", "smoke", "--only", "nelbo")
    places = results[0], tmp_path / "smoke"
    text = compare(places)
    assert "not compared, another task: bars@1/quick and bars@1/smoke: " in text
    assert "Nothing here compares." in text
    with pytest.raises(UserError, match="no number of both runs could be judged"):
        run([*map(str, places), "--fail-if-worse"])


def test_a_run_without_results_is_told_how_to_get_some(
    trained: Runs, compare: Compare, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.toml").write_bytes((trained[0] / "config.toml").read_bytes())
    text = compare((trained[0], bare))
    assert "There are not results of both: `lsgm eval TASK --model RUN --out RUN`" in text


def test_slips_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--json and --md are two formats"):
        run([str(tmp_path), str(tmp_path), "--json", "--md"])
    with pytest.raises(UserError, match="there is nothing to compare in"):
        run([str(tmp_path), str(tmp_path)])


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom lsgm_eval.commands.compare import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "lsgm compare runs/a runs/b" in done.stdout
