"""Every call that measures says what it was given and what it ran on, and its rows name it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from bernoulli import BernoulliModel

from lsgm.cli import main
from lsgm.config import SamplerConfig
from lsgm.data import ImageSet
from lsgm.options import parse
from lsgm.results.manifest import Manifest, digest_of, read_manifest
from lsgm_eval import models as model_words
from lsgm_eval.commands.fid import FidOptions
from lsgm_eval.run import manifest as manifest_module
from lsgm_eval.run import plan
from lsgm_eval.run.manifest import describe_call, words_of, write_manifest
from lsgm_eval.task import load_task
from lsgm_reports.reproduce.allowed import CommandLine
from lsgm_reports.reproduce.apart import copied

TASK = (
    tiny.TASK
    + """
[tiers.quick]
n_samples = 60
nelbo_images = 20
ode_images = 0
sampler = { name = "heun", steps = 3 }
"""
)


def typed(call: Manifest) -> str:
    return copied(call.command, call.directory, call.processes).line


@pytest.fixture
def write(tmp_path: Path, bernoulli: Callable[..., Any]) -> Callable[..., Path]:
    """Return what writes the manifest of a call, with some of it changed."""

    def make(**changes: Any) -> Path:
        given = {
            "command": ["lsgm", "eval", "glyphs", "--model", "a"],
            "models": {"a": bernoulli(name="a")},
            "task": load_task("glyphs"),
            "tier": "smoke",
            "dataset": "glyphs@1@ab",
        } | changes
        return tmp_path / "manifests" / f"{write_manifest(tmp_path, describe_call(**given))}.json"

    return make


def test_the_id_is_the_hash_of_all_but_the_time(write: Callable[..., Path]) -> None:
    content = json.loads(write().read_text())
    named, started, version = (content.pop(key) for key in ("id", "started", "format"))
    assert (named, version) == (digest_of(content)[:12], 1)
    assert started.endswith("+00:00")


def test_the_same_call_again_keeps_the_manifest_of_the_first(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    before = path.read_bytes()
    monkeypatch.setattr(manifest_module, "_now", lambda: "later")
    assert write() == path
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"command": ["lsgm", "eval", "glyphs"]},
        {"tier": "quick"},
        {"dataset": "glyphs@1@cd"},
        {"device": torch.device("cuda", 1)},
        {"task": replace(load_task("glyphs"), binarisation_seed=2)},
    ],
)
def test_another_call_has_another_manifest(write: Callable[..., Path], change: dict[str, Any]) -> None:
    assert write(**change) != write()


def test_the_reports_read_what_is_written(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSGM_DATA", "/somewhere")
    found = read_manifest(write(dataset="glyphs@1@ef"))
    assert typed(found) == "lsgm eval glyphs --model a"
    assert (found.directory, found.environment["LSGM_DATA"]) == (str(tmp_path), "/somewhere")
    assert (found.threads, found.processes, found.device) == (torch.get_num_threads(), 1, "cpu")
    assert found.versions["torch"] == version("torch")
    assert {"python", "numpy", "scipy", "torch-fidelity", "clean-fid"} <= set(found.versions)
    assert (found.task.identity, found.task.dataset) == ("glyphs@3/smoke", "glyphs@1@ef")
    assert (found.task.data, found.task.extractors) == ("glyphs", ("glyphs",))


def test_a_model_is_described_by_weights_place_and_training_run(
    write: Callable[..., Path], bernoulli: Callable[..., Any], tmp_path: Path
) -> None:
    step = tmp_path / "run" / "checkpoints" / "step-0000006"
    step.mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").write_text('{"run_id": "r1"}')
    (tmp_path / "run" / "config.toml").write_text("seed = 1\n")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "state.json").write_text('{"exported": {"run_id": "r2"}}')
    words = [str(tmp_path / "run"), f"n={step}", str(tmp_path / "exported"), "package.module:factory"]
    models = {word: bernoulli(name=f"m{k}") for k, word in enumerate(words)}
    described = read_manifest(write(models=models)).models
    assert [model.run_id for model in described] == ["r1", "r1", "r2", None]
    paths = [str(tmp_path / "run"), str(step), str(tmp_path / "exported"), None]
    assert [model.path for model in described] == paths
    # printf 'seed = 1\n' | sha256sum
    sha256 = "46545c629053298cb8b068758bd6cb0ba83f1533f50a054de71575535afea66b"
    assert {model.config_sha256 for model in described[:2]} == {sha256}
    assert [model.spec for model in described] == words
    assert {model.sha256 for model in described} == {bernoulli().sha256}


def test_of_ready_images_the_reports_read_how_many_there_are(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    np.save(tmp_path / "rows.npy", np.full((7, 4, 4, 3), 9, np.uint8))
    word = f"theirs={tmp_path / 'rows.npy'}"
    (described,) = read_manifest(write(models={word: model_words.open_model(word)})).models
    assert (described.name, described.path, described.images) == ("theirs", word.partition("=")[2], 7)


def test_odd_words_of_the_command_line_survive(write: Callable[..., Path]) -> None:
    command = ["lsgm", "eval", "glyphs", "--model", 'a"b\n\x1b[2J é']
    assert read_manifest(write(command=command)).command == tuple(command)


def test_a_name_of_a_file_that_is_no_utf8_is_spelt_out(write: Callable[..., Path]) -> None:
    command = ["lsgm", "eval", "glyphs", "--model", "caf\udce9 é"]
    found = read_manifest(write(command=command))
    assert found.command[-1] == "caf\\xe9 é"


@pytest.fixture
def task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bars: ImageSet, bernoulli: Callable[..., Any]
) -> str:
    """Let every spec be a Bernoulli model of that name, under a task of bars."""
    monkeypatch.setattr(plan, "load", lambda name, **options: bars)
    monkeypatch.setattr(model_words, "open_model", lambda spec, device="cpu": bernoulli(name=spec))
    path = tmp_path / "bars.toml"
    path.write_text(TASK)
    return str(path)


MODELS = {"a": BernoulliModel(name="a"), "b": BernoulliModel(name="b", p=0.3, sha256="c" * 64)}


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "TASK", "--model", "a", "--model", "b", "--only", "quality", "--only", "nelbo"],
        ["nll", "a", "b", "--task", "TASK", "--method", "nelbo", "--method", "iw", "--limit", "9"],
        ["nll", "a", "b", "--task", "TASK", "--times", "3"],
        [
            *("nfe", "--model", "a", "--model", "b", "--task", "TASK", "--images", "40"),
            *("--samplers", "heun,ddim@logsnr:eta=0.5", "--nfe", "4", "--tol", "0.1", "--reach", "500"),
            *("--time-budget", "1000"),
        ],
    ],
    ids=["eval", "nll", "changed", "nfe"],
)
def test_every_new_row_names_a_manifest_whose_command_makes_it_again_and_little_else(
    task: str, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pixels of one model are blacker than the other's, so that no number is another's by chance.
    monkeypatch.setattr(model_words, "open_model", lambda spec, device="cpu": MODELS[spec])
    argv = [task if word == "TASK" else word for word in words]
    out = ["--device", "cpu", "--out"]
    assert main([*argv, *out, str(tmp_path / "out")]) == 0
    rows, again = rows_of(tmp_path / "out"), dict[tuple[str, ...], list[dict[str, Any]]]()
    for row in rows:
        found = read_manifest(tmp_path / "out" / "manifests" / f"{row['manifest']}.json")
        assert found.command == ("lsgm", *argv, *out, str(tmp_path / "out"))
        # Most calls load their images when the manifest is described already: its rows name them.
        assert found.task.dataset == (row["dataset"] if words[0] == "nll" else None)
        assert row["dataset"]
        assert not {"--out", "--json", "--report", "--time-budget"} & set(found.again)
        named = {model.name for model in found.models}
        # What is derived of curves is of all of them, and a protocol changed by hand is one for all models.
        whole = row["group"] == "reach" or row["task"].endswith("-custom")
        assert named == ({"a", "b"} if whole else set(row["model"].split(" - ")))
        again.setdefault(found.again, []).append(row)
    for k, (command, made) in enumerate(again.items()):
        assert main([*command[1:], "--out", str(tmp_path / str(k))]) == 0
        fresh = rows_of(tmp_path / str(k))
        numbers = {(row["task"], row["model"], row["metric"], row["sampler"]): row["value"] for row in fresh}
        for row in made:
            same = numbers[row["task"], row["model"], row["metric"], row["sampler"]]
            assert same == row["value"] or "seconds" in row["metric"]
        assert len(again) == 1 or len(fresh) < len(rows) or made[0]["group"] == "reach"


@pytest.mark.parametrize(
    "options",
    [
        FidOptions("a", "m=b", images=5, extractor=("x", "y"), sampler=SamplerConfig("ddim", eta=0.5)),
        FidOptions("a", "b", reference_images="all", sampler=SamplerConfig(times=(1.0, 0.5), denoise=True)),
    ],
)
def test_words_of_options_are_parsed_back_to_them(options: FidOptions) -> None:
    words = words_of(options, "reference", "samples")
    assert parse(FidOptions, words, prog="lsgm fid", description="") == options
    assert CommandLine.parse(["lsgm", "fid", *words]).checked()


def test_a_finished_measurement_keeps_the_manifest_that_measured_it(task: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shared = ["eval", task, "--only", "quality", "--out", str(out)]
    assert main([*shared, "--model", "a"]) == 0
    first = {row["manifest"] for row in rows_of(out)}
    # The next call takes the first model out of its cell, also where nobody has its manifest any more.
    shutil.rmtree(out / "manifests")
    begun = time.time()
    assert main([*shared, "--model", "a", "--model", "b"]) == 0
    rows = rows_of(out)
    assert {row["manifest"] for row in rows if row["model"] == "a"} == first
    assert {row["manifest"] for row in rows if row["model"] != "a"}.isdisjoint(first)
    cells = sorted((out / "cells").iterdir(), key=lambda file: file.stat().st_mtime)
    assert cells[0].stat().st_mtime <= begun  # it was not measured again
