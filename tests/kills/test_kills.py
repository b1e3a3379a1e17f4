"""Commands that are killed while a file is on its way into its place: again, they end as if never killed.

Each is a real process, ended by SIGKILL when half of its files are written: the one in hand is whole under a
temporary name, and nothing has its own. The next attempt is killed at its first file, and the third goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
from kills.forged import Forge

from lsgm.runs.checkpoint import checkpoints, find_checkpoint
from lsgm.runs.directory import Run, read_metrics
from lsgm.train.loop import train_recipe

TASK = """
name = "bars"
version = 1
summary = "bars"
dataset = "bars"
spaces = [{ extractor = "ink" }]
[tiers.quick]
n_samples = 60
nelbo_images = 12
ode_images = 0
iw_images = 6
curve_samples = 40
iw = { method = "iw", samples = 3 }
sampler = { name = "heun", steps = 2 }
"""

CLOCK = {
    "seconds", "cpu_seconds", "decoder_seconds", "images_per_second", "peak_bytes", "run_id",
    "manifest", "date",
}  # fmt: skip
"""What differs from one run of a command to the next."""


def same(value: Any, place: Path) -> Any:
    """Return a JSON value without the clock's readings, and without the folder that it was written in."""
    if isinstance(value, Mapping):
        kept = {name: item for name, item in value.items() if name not in CLOCK}
        return {name: same(item, place) for name, item in kept.items()}
    if isinstance(value, list):
        return [same(item, place) for item in value]
    return value.replace(str(place), "PLACE") if isinstance(value, str) else value


def rows(place: Path, file: str) -> list[Any]:
    """Return result rows that are no seconds, nor made of them."""
    found = [json.loads(line) for line in (place / file).read_text().splitlines()]
    return [same(row, place) for row in found if not row["metric"].startswith("seconds_")]


def leftovers(place: Path) -> list[Path]:
    """Return what nobody reads, because a kill came before it had a name."""
    return [path for path in place.rglob("*") if path.name.startswith(".tmp-")]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    train_recipe(tiny.recipe(), folder / "tiny", images=tiny.bars())
    return folder / "tiny"


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "bars.toml"
    path.write_text(TASK)
    return path


def killed_and_not(forge: Forge, folder: Path, *words: object) -> tuple[Path, Path]:
    """Run a command in one folder, and in another where it is killed twice; return both."""
    whole, killed = folder / "whole", folder / "killed"
    count = forge.run(words, whole)
    forge.kill(words, killed, before=count // 2)
    forge.kill(words, killed, before=0)
    forge.run(words, killed)
    assert len(leftovers(killed)) <= 2  # at most one for each kill
    return whole, killed


def test_train(forge: Forge, tmp_path: Path) -> None:
    photos = tiny.folder_of_images(tmp_path / "photos")
    often = {"steps": 4, "checkpoint_every": 1e-5}
    data = {"dataset": str(photos), "image_size": 8, "bits": 5, "flip": True}
    recipe = tiny.toml(tmp_path / "r.toml", {"data": data, "stage1": often, "stage2": often})
    whole, killed = killed_and_not(forge, tmp_path, "train", recipe, "--out", "run", "--device", "cpu")
    for name in ("model.safetensors", "ema.safetensors", "optimizer.pt"):
        one, other = (find_checkpoint(place / "run") / name for place in (whole, killed))
        assert one.read_bytes() == other.read_bytes(), name
    logs = [read_metrics(place / "run" / "metrics.jsonl") for place in (whole, killed)]
    assert same(logs[0], whole) == same(logs[1], killed)


def test_eval(forge: Forge, model: Path, task: Path, tmp_path: Path) -> None:
    words = ["eval", task, "--model", model, "--out", "out", "--device", "cpu", "--report", "no"]
    whole, killed = killed_and_not(forge, tmp_path, *words)
    assert rows(whole, "out/results.jsonl") == rows(killed, "out/results.jsonl")
    assert (whole / "out/samples/tiny.png").read_bytes() == (killed / "out/samples/tiny.png").read_bytes()


def test_nll(forge: Forge, model: Path, task: Path, tmp_path: Path) -> None:
    words = ["nll", model, "--task", task, "--method", "nelbo", "--method", "iw", "--out", "out"]
    whole, killed = killed_and_not(forge, tmp_path, *words, "--batch-size", "4", "--device", "cpu")
    assert rows(whole, "out/results.jsonl") == rows(killed, "out/results.jsonl")


def test_nfe(forge: Forge, model: Path, task: Path, tmp_path: Path) -> None:
    words = ["nfe", "--model", model, "--task", task, "--samplers", "heun", "--nfe", "2,4,6", "--tol", "none"]
    words += ["--out", "out", "--device", "cpu", "--report", "no"]
    whole, killed = killed_and_not(forge, tmp_path, *words)
    assert rows(whole, "out/results.jsonl") == rows(killed, "out/results.jsonl")


def test_gate(forge: Forge, model: Path, task: Path, tmp_path: Path) -> None:
    """New golden rows: those that were there stay whole until the new ones are."""
    plan = ["--images", "12", "--draws", "2", "--samples", "0", "--repeats", "2"]
    # The VAE of the first stage, which has no flow to be solved.
    vae = checkpoints(Run(model).checkpoints)[0]
    words = ["gate", vae, "--golden", "g.json", "--task", task, "--update", *plan]
    for place in ("whole", "killed"):
        forge.run([*words, "--reason", "first"], tmp_path / place)
    before = (tmp_path / "killed" / "g.json").read_bytes()
    forge.kill([*words, "--reason", "second"], tmp_path / "killed", before=0)
    assert (tmp_path / "killed" / "g.json").read_bytes() == before
    for place in ("whole", "killed"):
        forge.run([*words, "--reason", "second"], tmp_path / place)
    found = [json.loads((tmp_path / place / "g.json").read_text()) for place in ("whole", "killed")]
    assert same(found[0], tmp_path / "whole") == same(found[1], tmp_path / "killed")


def test_report(forge: Forge, model: Path, task: Path, tmp_path: Path) -> None:
    words = ["nll", model, "--task", task, "--method", "nelbo", "--out", tmp_path / "out", "--device", "cpu"]
    forge.run(words, tmp_path)
    whole, killed = killed_and_not(forge, tmp_path, "report", tmp_path / "out", "--out", "report")
    names = [sorted(path.name for path in (place / "report").glob("[!.]*")) for place in (whole, killed)]
    assert names[0] == names[1]
    for name in names[0]:
        assert (whole / "report" / name).read_bytes() == (killed / "report" / name).read_bytes(), name
