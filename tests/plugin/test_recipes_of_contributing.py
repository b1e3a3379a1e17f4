"""CONTRIBUTING's recipes, followed to the letter: its blocks are a package that adds one of each thing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))
"""What the page says to write, by the file to write it in."""

WALK = """
import json, sys
from lsgm import cli
from lsgm.kinds import recipe_from
from lsgm.recipes import load_recipe
from lsgm.sampling.registry import sampler_names
free = "torch" not in sys.modules
import torch
from lsgm.sde import make_sde
def call(words):
    if status := cli.main(words.split()):
        sys.exit(f"{words}: {status}")
for words in (
    "train stripes --device cpu --out run",
    "sample run --sampler.name midpoint --sampler.steps 3 --n 2 --out drawn",
    "eval stripes --model run --tier smoke --device cpu --out results",
    "report results",
):
    call(words)
t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
sde = make_sde(recipe_from(load_recipe("stripes"), "stripes").prior.sde)
h = 1e-6
print("FOUND", json.dumps({
    "free": free, "midpoint": "midpoint" in sampler_names(), "sde": type(sde).__name__,
    "slope": ((sde.var(t + h) - sde.var(t - h)) / (2 * h) - sde.dvar(t)).abs().max().item(),
    "inverse": (sde.inv_var(sde.var(t)) - t).abs().max().item(),
}))
"""


def write_plugin(folder: Path) -> None:
    """Lay the package into a folder as an installer would: its files and its metadata."""
    for name, text in BLOCKS.items():
        if name.startswith("lsgm_plugin/"):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    (folder / "lsgm_plugin" / "__init__.py").touch()
    about = folder / "lsgm_plugin-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lsgm-plugin\nVersion: 1\n")
    groups = tomllib.loads(BLOCKS["pyproject.toml"])["project"]["entry-points"]
    lines = [f"[{group}]\n{name} = {at}\n" for group, known in groups.items() for name, at in known.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))


def run(script: str, folder: Path, *before: Path) -> str:
    """Run a script in a folder, with further places to look for packages first."""
    paths = [*map(str, before), *filter(None, sys.path)]
    known = {"LSGM_CACHE": str(folder / "cache"), "LSGM_TRACK": "diary"}
    environment = os.environ | known | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where the plug-in was trained, sampled, measured and reported on, and what the script found."""
    folder = tmp_path_factory.mktemp("plugin")
    write_plugin(folder / "site")
    return folder, json.loads(run(WALK, folder, folder / "site").rsplit("FOUND", 1)[1])


def test_every_command_takes_what_the_package_adds(walked: tuple[Path, dict[str, Any]]) -> None:
    folder, found = walked
    assert (found["free"], found["midpoint"], found["sde"]) == (True, True, "CosineVP")
    # Differences of 1e-6 in float64: rounding of 1e-16 / 1e-6, and slopes of at most 2 a.
    assert found["slope"] < 1e-8
    assert found["inverse"] < 1e-12
    assert list((folder / "drawn").glob("*.png"))


def test_the_metric_is_a_row_with_an_interval_and_a_column_under_its_label(
    walked: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = walked
    rows = [json.loads(line) for line in (folder / "results" / "results.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["metric"] == "mean_gap_squares"]
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert (row["unit"], row["higher_is_better"], row["group"]) == ("distance", False, "quality")
    assert row["sampler"].startswith("midpoint(steps=4")
    assert row["dataset"].startswith("stripes@1+")
    assert row["extractor"].startswith("squares@")
    pages = [file.read_text() for file in (folder / "results").rglob("*.md")]
    assert any("Gap of means" in page for page in pages)


def test_the_tracker_is_told_of_training_of_every_row_and_of_the_page(
    walked: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = walked
    rows = [json.loads(line) for line in (folder / "results" / "results.jsonl").read_text().splitlines()]
    told = (folder / "results" / "diary.txt").read_text().splitlines()
    assert {line.split()[1] for line in told if " " in line} == {row["metric"] for row in rows}
    assert "report.html" in told
    trained = (folder / "run" / "diary.txt").read_text()
    assert "stage1/samples" in trained
    assert "stage2/nelbo" in trained


COLUMN = """
import lsgm, sys
from pathlib import Path
from lsgm import results
from lsgm.results import files
assert Path(lsgm.__file__).is_relative_to(Path.cwd())
rows = [results.Row("t@1/full", "m", "nfe", 3.0, watts=41.5), results.Row("t@1/full", "n", "nfe", 4.0)]
assert files.from_jsonl(files.to_jsonl(rows)) == rows
assert files.from_csv(files.to_csv(rows)) == rows
frame = results.frame(rows)
assert str(frame["watts"].dtype) == "Float64" and frame["watts"][0] == 41.5
assert results.rows(frame) == rows
print("kept")
"""


def test_a_column_is_one_field(tmp_path: Path) -> None:
    package = tmp_path / "lsgm"
    shutil.copytree(ROOT / "lsgm", package, ignore=shutil.ignore_patterns("__pycache__"))
    file = package / "results" / "row.py"
    source, field = file.read_text(), BLOCKS["lsgm/results/row.py"]
    last = source.index("    more: Mapping")  # what later versions wrote stays behind all fields
    file.write_text(source[:last] + field + source[last:])
    assert run(COLUMN, tmp_path, tmp_path).strip() == "kept"
