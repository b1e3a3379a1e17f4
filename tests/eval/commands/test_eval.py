"""`lsgm eval` as a user meets it: help without torch, one line for each mistake, rows as JSON lines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import tiny
import torch

from lsgm.cli import main
from lsgm.data import ImageSet
from lsgm.errors import CheckpointError, UserError
from lsgm_eval import models
from lsgm_eval.commands.eval import EvalOptions
from lsgm_eval.models import Renamed, open_model
from lsgm_eval.run import plan, steps

TASK = (
    tiny.TASK
    + """
[tiers.quick]
n_samples = 60
nelbo_images = 20
ode_images = 0
iw_flow_images = 10
iw_flow = { method = "iw", samples = 3 }
sampler = { name = "heun", steps = 3 }
"""
)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bars: ImageSet) -> str:
    monkeypatch.setattr(plan, "load", lambda name, **options: bars)
    path = tmp_path / "bars.toml"
    path.write_text(TASK)
    return str(path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, bernoulli: Callable[..., Any]) -> None:
    """Let every spec be a Bernoulli model of that name."""
    monkeypatch.setattr(models, "open_model", lambda spec, device="cpu": bernoulli(name=spec))


@pytest.mark.usefixtures("opened")
def test_rows_go_to_standard_output_as_json_lines(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["eval", task, "--model", "a", "--model", "b", "--out", str(out), "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["model"] for row in printed} == {"a", "b", "a - b"}
    assert len((out / "results.jsonl").read_text().splitlines()) == len(printed)


@pytest.mark.usefixtures("opened")
def test_without_json_there_is_a_table(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", task, "--model", "a", "--out", str(tmp_path), "--only", "nelbo"]) == 0
    captured = capsys.readouterr()
    head, first, *_ = captured.out.splitlines()
    assert head.split()[:3] == ["model", "metric", "value"]
    assert first.split()[:2] == ["a", "nelbo_nats"]
    assert "results.jsonl" in captured.err


def test_every_measurement_can_be_asked_for_alone() -> None:
    choices, _ = get_args(get_type_hints(EvalOptions)["only"])
    assert get_args(choices) == steps.MEASUREMENTS == get_args(steps.Measurement)


@pytest.mark.usefixtures("opened")
def test_importance_weighting_is_asked_for_by_name(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", task, "--model", "a", "--out", str(tmp_path), "--only", "iw", "--json"]
    assert main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["metric"] for row in rows} >= {"iw_nats", "iw_bpd"}
    assert all(row["sampler"].startswith("iw(samples=3") for row in rows)


@pytest.mark.usefixtures("opened")
def test_an_image_that_cannot_be_scored_may_be_left_out(
    task: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bernoulli: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(type(bernoulli())):  # type: ignore[misc]
        def density(self, levels: Any, seeds: Any, config: Any) -> Any:
            found = super().density(levels, seeds, config)
            found.nats[0] = float("nan")
            return found

    monkeypatch.setattr(models, "open_model", lambda spec, device="cpu": Broken(name=spec))
    words = ["eval", task, "--model", "a", "--out", str(tmp_path), "--only", "nelbo"]
    assert main(words) == 2
    assert "--allow-failures leaves such images out" in capsys.readouterr().err
    assert main([*words, "--allow-failures", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["n"] for row in rows} == {19}


@pytest.mark.usefixtures("opened")
def test_another_extractor_takes_the_place_of_the_tasks_and_names_its_rows(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = torch.jit.script(Means())
    script.save(str(tmp_path / "means.ts"))
    words = ["eval", task, "--model", "a", "--out", str(tmp_path / "out"), "--only", "quality", "--json"]
    assert main([*words, "--extractor", f"torchscript:{tmp_path / 'means.ts'}"]) == 0
    found = {row["metric"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {"frechet_means", "kernel_means"} <= found
    assert not {name for name in found if "glyphs" in name or "fid" in name}


@pytest.mark.usefixtures("opened")
def test_reference_statistics_are_written_and_read(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", task, "--model", "a", "--only", "quality", "--json", "--out"]
    assert main([*words, str(tmp_path / "x"), "--export-reference", str(tmp_path / "stats")]) == 0
    file = tmp_path / "stats" / "glyphs.npz"
    with np.load(file) as saved:
        assert saved["mu"].shape == (saved["sigma"].shape[0],)
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert main([*words, str(tmp_path / "y"), "--reference", f"glyphs={file}"]) == 0
    captured = capsys.readouterr()
    second = json.loads(captured.out.splitlines()[0])
    assert second["value"] == pytest.approx(first["value"], rel=1e-6)
    assert "lsgm: not measured: the reference is a file of mean and covariance" in captured.err


@pytest.mark.usefixtures("opened")
def test_images_of_ones_own_are_another_data_set(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bars: ImageSet
) -> None:
    asked: list[tuple[str, Any]] = []

    def load(name: str, **options: Any) -> ImageSet:
        asked.append((name, options.get("image_size")))
        return bars

    monkeypatch.setattr(plan, "load", load)
    words = ["eval", task, "--model", "a", "--only", "quality", "--out", str(tmp_path)]
    assert main([*words, "--data", "./photos"]) == 0
    assert asked == [("./photos", (28, 28))]


class Means(torch.nn.Module):
    """Two features of an image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float().flatten(1)
        return torch.stack([x.mean(dim=1), x[:, :300].mean(dim=1)], dim=1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["image-folder", "--model", "x"],
            "image-folder has no data set of its own: name a folder or zip by",
        ),
        (["glyphs", "--model", "x", "--extractor", "incepton"], "did you mean 'inception'?"),
        (["glyphs", "--model", "x", "--reference", "a.npz"], "--reference is 'a.npz': give SPACE=FILE.npz"),
        (["glyphs", "--model", "x", "--save", "jpg"], "jpg"),
        (["glyfs", "--model", "x"], "unknown task 'glyfs'; did you mean 'glyphs'?"),
        (["glyphs"], "name a run with --model DIR"),
        (["glyphs", "--model", "x", "--tier", "huge"], "no tier 'huge'"),
        (["glyphs", "--modle", "x"], "did you mean '--model'?"),
        (["glyphs", "--model", "x", "--batch-size", "0"], "batch-size is 0"),
        (["glyphs", "--model", "x", "--workers", "-1"], "workers is -1"),
        (["glyphs", "--model", "no_such_module:factory"], "cannot import 'no_such_module'"),
        (["glyphs", "--model", "lsgm.errors:nothing"], "has no 'nothing'"),
        (["glyphs", "--model", "lsgm.progress:bar_of"], "has no 'bar_of'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *words]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_help_shows_worked_examples_and_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom lsgm_eval.commands.eval import run\n"
        "try: run(['--help'])\nexcept SystemExit: pass\n"
        "print('loaded', [m for m in ('torch', 'numpy', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "lsgm eval glyphs --model runs/glyphs-lsgm" in done.stdout, done.stderr
    assert "loaded []" in done.stdout


def test_a_factory_in_the_working_directory_is_found_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_factory.py").write_text(
        "class Model:\n    name, sha256, pixels, parameters, has_prior = 'mine', 'a', None, {}, True\n"
        "    sample = density = lambda *_: None\n"
        "def whole(): return Model()\ndef half(): return object()\n"
    )
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert open_model("my_factory:whole").name == "mine"
    with pytest.raises(UserError, match="object is no model; give a run, or an object with sample"):
        open_model("my_factory:half")
    assert sys.path == path


def test_a_name_before_the_model_renames_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bernoulli: Callable[..., Any]
) -> None:
    model = bernoulli()
    monkeypatch.setattr(models, "_from_factory", lambda spec: model)
    renamed = open_model("mine=pkg:factory")
    assert isinstance(renamed, Renamed)
    assert (renamed.name, renamed.sha256, renamed.has_prior) == ("mine", model.sha256, True)


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        open_model(str(tmp_path))
