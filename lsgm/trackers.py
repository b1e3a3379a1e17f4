"""Trackers: what follows a run or an evaluation from elsewhere. TensorBoard, Weights & Biases, MLflow.

A tracker is opened by name (``lsgm train --track wandb``; the variable ``LSGM_TRACK`` for every command) and
told scalars, pictures, rows of results and files. It never ends what it follows: one that is not installed,
whose server is down, or that raises later is said once and left out from then on. Packages offer others
through the entry-point group ``lsgm.trackers``, each a function ``(folder, name, step) -> Tracker``.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lsgm.discovery import offers
from lsgm.errors import ConfigError, did_you_mean
from lsgm.files import write
from lsgm.files.text import read_json
from lsgm.logs import log

if TYPE_CHECKING:
    from PIL.Image import Image

VARIABLE = "LSGM_TRACK"
"""Trackers of every command, as ``wandb,tensorboard``."""


class Tracker(Protocol):
    """What follows from elsewhere; any of its methods may raise, which ends it and nothing else."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers of a training step, by names such as ``stage2/nelbo``."""

    def picture(self, step: int, name: str, image: Image) -> None:
        """Take a picture of a training step, as a sheet of samples."""

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows of results (`lsgm.results.Row`, by their fields' names)."""

    def file(self, path: Path) -> None:
        """Take a file: a figure or a report."""

    def close(self) -> None:
        """Finish; nothing is told afterwards."""


Opener = Callable[[Path, str, int], Tracker]
"""(folder, name, step): where a run or an evaluation lies, what it is called, and the training step from
which it goes on. What was told of later steps is told again."""


class Trackers:
    """Several trackers as one, none of which can fail."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    @classmethod
    def open(cls, names: Sequence[str], folder: Path, name: str, step: int = 0) -> Trackers:
        """Return the trackers of these names, without those that cannot be opened, of which it is said.

        Raises ConfigError for a name that no package offers.
        """
        check_names(names)
        opened: dict[str, Tracker] = {}
        points = offers("lsgm.trackers")
        for each in dict.fromkeys(names):
            try:
                opener: Opener = points[each].load()
                opened[each] = opener(folder, name, step)
            except Exception as error:
                log.warning(f"{each} does not track this run ({_why(error)}); it goes on without")
        return cls(opened)

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Tell the finite numbers among the values."""
        finite = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        self._tell(lambda tracker: tracker.scalars(step, finite))

    def picture(self, step: int, name: str, image: Image) -> None:
        """Tell a picture."""
        self._tell(lambda tracker: tracker.picture(step, name, image))

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tell rows of results."""
        if rows:
            self._tell(lambda tracker: tracker.rows([dict(row) for row in rows]))

    def file(self, path: Path) -> None:
        """Tell a file."""
        self._tell(lambda tracker: tracker.file(path))

    def close(self) -> None:
        """Finish all."""
        self._tell(lambda tracker: tracker.close())
        self._trackers.clear()

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                what(tracker)
            except Exception as error:
                del self._trackers[name]
                log.warning(f"{name} tracks no further ({_why(error)}); what it follows goes on without")


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError for a name of a tracker that no package offers."""
    points = offers("lsgm.trackers")
    for each in names:
        if each not in points:
            hint = did_you_mean(each, points) or f"; there are {', '.join(sorted(points))}"
            raise ConfigError(f"there is no tracker '{each}'{hint}")


def named(words: Sequence[str]) -> list[str]:
    """Return the trackers that options and ``$LSGM_TRACK`` name, each once; ``none`` stands for none."""
    given = [*words, *os.environ.get(VARIABLE, "").split(",")]
    parts = [part.strip() for word in given for part in word.split(",")]
    return [] if "none" in words else list(dict.fromkeys(part for part in parts if part and part != "none"))


def _why(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; python -m pip install {error.name}"
    line = str(error).strip().splitlines()
    return f"{type(error).__name__}: {line[0][:160]}" if line else type(error).__name__


class TensorBoard:
    """Event files in ``FOLDER/tensorboard``."""

    def __init__(self, folder: Path, name: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = write.make_folder(folder / "tensorboard")
        self._board: Any = SummaryWriter(str(place), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Image) -> None:
        """Write a picture."""
        import numpy as np

        pixels = np.asarray(image)
        self._board.add_image(name, pixels, step, dataformats="HW" if pixels.ndim == 2 else "HWC")

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write each row's value under task, model and metric, and all of them as a table of text."""
        for name, value in _values(rows):
            self._board.add_scalar(name, value, 0)
        lines = [f"| {name} | {value:.6g} |" for name, value in _values(rows)]
        self._board.add_text("results", "\n".join(["| what | value |", "|---|---|", *lines]), 0)

    def file(self, path: Path) -> None:
        """Show a picture; other files have no place in TensorBoard."""
        if path.suffix.lower() == ".png":
            from PIL import Image

            with Image.open(path) as image:
                self.picture(0, path.stem, image.convert("RGB"))

    def close(self) -> None:
        """Close the file."""
        self._board.close()


class WeightsAndBiases:
    """A run of Weights & Biases, kept in ``FOLDER/wandb``; ``WANDB_MODE=offline`` asks no server.

    Project, entity, mode and key are those of wandb's own variables; the project is ``lsgm`` unless named.
    The run goes on where the folder's run goes on.
    """

    def __init__(self, folder: Path, name: str, step: int) -> None:
        import wandb

        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lsgm"),
            name=name,
            id=_identity(folder, "wandb", lambda: secrets.token_hex(4)),
            resume="allow",
            dir=str(write.make_folder(folder / "wandb").parent),
            settings=wandb.Settings(init_timeout=30, silent=True, console="off"),
        )
        # Steps told twice, after a resumption, are points of one axis of their own, and no error.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars."""
        self._run.log({**values, "step": step})

    def picture(self, step: int, name: str, image: Image) -> None:
        """Log a picture."""
        self._run.log({name: self._wandb.Image(image), "step": step})

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put each row's value into the run's summary, and all of them into a table."""
        self._run.summary.update(dict(_values(rows)))
        columns = sorted({key for row in rows for key in row})
        cells = [[_cell(row.get(key)) for key in columns] for row in rows]
        self._run.log({"results": self._wandb.Table(columns=columns, data=cells)})

    def file(self, path: Path) -> None:
        """Keep a picture as one, any other file as it is."""
        if path.suffix.lower() == ".png":
            self._run.log({path.stem: self._wandb.Image(str(path))})
        else:
            self._run.save(str(path), base_path=str(path.parent), policy="now")

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow, at ``$MLFLOW_TRACKING_URI`` or in ``FOLDER/mlruns``.

    The experiment is ``$MLFLOW_EXPERIMENT_NAME``, or ``lsgm``.
    """

    def __init__(self, folder: Path, name: str, step: int) -> None:
        # A server that is down is told in seconds, not after minutes of trying again.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            # MLflow keeps folders of files for those who say that they want them.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = write.make_folder(folder / "mlruns").resolve().as_uri()
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(uri)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "lsgm")
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run: str = _identity(
            folder, "mlflow", lambda: self._client.create_run(place, run_name=name).info.run_id
        )
        self._client.update_run(self._run, status="RUNNING")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars at once."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # A name of MLflow has letters, digits, _ - . : / and spaces.
        points = [Metric(_plain(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=points)

    def picture(self, step: int, name: str, image: Image) -> None:
        """Keep a picture as an artifact."""
        self._client.log_image(self._run, image, artifact_file=f"{_plain(name)}/{step:07d}.png")

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log each row's value, and keep all of them as one artifact."""
        self.scalars(0, dict(_values(rows)))
        self._client.log_dict(self._run, {"rows": [dict(row) for row in rows]}, "results.json")

    def file(self, path: Path) -> None:
        """Keep a file as an artifact."""
        self._client.log_artifact(self._run, str(path))

    def close(self) -> None:
        """Finish the run."""
        self._client.set_terminated(self._run)


def _values(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return the value of each row under task, model and metric; of a point of a curve also its sampler."""
    found: dict[str, float] = {}
    for row in rows:
        value = row.get("value")
        if isinstance(value, int | float) and math.isfinite(value):
            parts = [row.get("task"), row.get("model"), row.get("metric")]
            if row.get("group") == "curve":
                parts.append(row.get("sampler"))
            found["/".join(str(part) for part in parts if part)] = float(value)
    return list(found.items())


def _identity(folder: Path, kind: str, make: Callable[[], str]) -> str:
    """Return the run of a tracker that a folder had before, else a new one, which is kept."""
    path = folder / f".{kind}.json"
    with contextlib.suppress(Exception):
        known = read_json(path, ConfigError)["run"]
        if isinstance(known, str) and known.isalnum():
            return known
    made = make()
    write.replace_file(path, f'{{"run": "{made}"}}\n'.encode())
    return made


def _cell(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else str(value)


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)
