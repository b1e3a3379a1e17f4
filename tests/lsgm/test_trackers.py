"""Trackers hold what they are told, go on where a run goes on, and never end what they follow."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lsgm import trackers
from lsgm.errors import ConfigError
from lsgm.trackers import MLflow, TensorBoard, Trackers, WeightsAndBiases, named

PICTURE = Image.new("L", (6, 4), 200)
ROW = {"task": "glyphs@3/quick", "model": "mine", "metric": "nelbo", "value": 1.5, "group": "nelbo"}
AT_COST = {
    "task": "glyphs@3/quick",
    "model": "mine",
    "metric": "frechet",
    "value": 2.5,
    "group": "curve",
    "sampler": "heun(steps=10)",
}


def tell(tracker: Any, step: int, folder: Path) -> None:
    tracker.scalars(step, {"stage1/nelbo": 100.0 - step, "lr/vae": 0.5})
    tracker.picture(step, "samples", PICTURE)
    tracker.rows([ROW, AT_COST])
    PICTURE.save(folder / "curve.png")
    (folder / "notes.txt").write_text("notes")
    tracker.file(folder / "curve.png")
    tracker.file(folder / "notes.txt")
    tracker.close()


def test_tensorboard_holds_scalars_pictures_and_rows(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell(TensorBoard(tmp_path, "mine", 0), 3, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("stage1/nelbo")] == [(3, 97.0)]
    assert events.Scalars("glyphs@3/quick/mine/frechet/heun(steps=10)")[0].value == 2.5
    assert (events.Images("samples")[0].width, events.Images("samples")[0].height) == (6, 4)
    assert events.Images("curve")


def test_mlflow_holds_them_in_files_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is an extra")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tell(MLflow(tmp_path, "mine", 0), 3, tmp_path)
    again = MLflow(tmp_path, "mine", 3)
    again.scalars(4, {"stage1/nelbo": 96.0})
    again.close()

    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("lsgm")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "stage1/nelbo")
    assert [(each.step, each.value) for each in history] == [(3, 97.0), (4, 96.0)]
    assert run.data.metrics["glyphs_3/quick/mine/frechet/heun_steps_10_"] == 2.5
    kept = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert {"samples", "results.json", "curve.png", "notes.txt"} <= kept


def test_wandb_holds_them_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is an extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = WeightsAndBiases(tmp_path, "mine", 0)
    tell(first, 3, tmp_path)
    second = WeightsAndBiases(tmp_path, "mine", 3)
    assert second._run.id == first._run.id
    second.close()
    logs = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{first._run.id}.wandb"))
    assert len(logs) == 2
    content = b"".join(path.read_bytes() for path in logs)
    for word in (b"stage1/nelbo", b"97", b"glyphs@3/quick/mine/frechet/heun(steps=10)", b"2.5"):
        assert word in content
    kept = {path.name for path in (tmp_path / "wandb").rglob("*") if path.is_file()}
    assert "notes.txt" in kept
    assert [name for name in kept if name.startswith("samples_") and name.endswith(".png")]


class Note:
    """A tracker that notes what it is told and raises at its second row."""

    told: list[str]

    def __init__(self, folder: Path, name: str, step: int) -> None:
        self.told = TOLD

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.told += [f"{step} {name} {value:g}" for name, value in values.items()]
        if len(self.told) > 1:
            raise ValueError("no network\nand more")

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        self.told.append(name)

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.told.append("rows")

    def file(self, path: Path) -> None:
        self.told.append(path.name)

    def close(self) -> None:
        self.told.append("closed")


TOLD: list[str] = []


def offered(monkeypatch: pytest.MonkeyPatch, **places: str) -> None:
    points = {name: EntryPoint(name, place, "lsgm.trackers") for name, place in places.items()}
    monkeypatch.setattr(trackers, "offers", lambda group: points)


def test_one_that_raises_is_left_out_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    TOLD.clear()
    offered(monkeypatch, note=f"{__name__}:Note", absent="no_such_module:Tracker")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Note.__module__])
    several = Trackers.open(["note", "absent", "note"], tmp_path, "mine")
    for step in range(4):
        several.scalars(step, {"loss": float(step), "stage": "stage1", "bad": float("nan")})
    several.close()
    assert TOLD == ["0 loss 0", "1 loss 1"]
    assert capsys.readouterr().err.splitlines() == [
        "lsgm: absent does not track this run (no_such_module is not installed; python -m pip install "
        "no_such_module); it goes on without",
        "lsgm: note tracks no further (ValueError: no network); what it follows goes on without",
    ]


def test_a_server_that_is_down_is_said_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", reason="MLflow is an extra")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    began = time.monotonic()
    assert not Trackers.open(["mlflow"], tmp_path, "mine")
    assert time.monotonic() - began < 30
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lsgm: mlflow does not track this run (")


def test_an_unknown_name_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no tracker 'wandbb'; did you mean 'wandb'"):
        Trackers.open(["wandbb"], tmp_path, "mine")


def test_names_come_from_options_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trackers.VARIABLE, "tensorboard, wandb")
    assert named([]) == ["tensorboard", "wandb"]
    assert named(["mlflow,wandb"]) == ["mlflow", "wandb", "tensorboard"]
    assert named(["none"]) == []
