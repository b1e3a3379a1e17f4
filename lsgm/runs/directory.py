"""A run directory: config.toml, manifest.json, checkpoints/, samples/ and the log, metrics.jsonl.

The log is a JSON object per logged step, each step once, however often the run was resumed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import tomllib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from lsgm.distributed import join
from lsgm.errors import CheckpointError, ConfigError, DataError, UserError
from lsgm.files import write
from lsgm.files.limits import LINES
from lsgm.files.regular import read_bytes
from lsgm.files.text import parse_json, read_table, read_toml, record_of
from lsgm.runs.checkpoint import checkpoints
from lsgm.runs.provenance import provenance
from lsgm.runs.records import RunManifest
from lsgm.structure import differences, flat, worded
from lsgm.trackers import Trackers


class Run:
    """The files of one run. Making one touches nothing; `start` writes or checks config and manifest."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.config_path = self.directory / "config.toml"
        """The complete, resolved configuration."""
        self.manifest_path = self.directory / "manifest.json"
        """Where the run comes from."""
        self.metrics_path = self.directory / "metrics.jsonl"
        """The log."""
        self.checkpoints = self.directory / "checkpoints"
        self.samples = self.directory / "samples"
        """The pictures made while training."""

    def config(self) -> dict[str, Any]:
        """Return the configuration. Raises ConfigError where there is none or it is not TOML."""
        if not os.path.lexists(self.config_path):
            raise ConfigError(f"{self.config_path} cannot be read, as it is not there; give a run directory")
        return read_toml(self.config_path, ConfigError)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest, which is what `Manifest` says; keys of later versions are in it as well.

        Raises ConfigError where there is none, or another file in its place.
        """
        table = read_table(self.manifest_path, ConfigError)
        record_of(RunManifest, table, self.manifest_path, ConfigError)
        return table

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint."""
        found = checkpoints(self.checkpoints)
        return found[-1] if found else None

    def start(
        self,
        config: Mapping[str, Any],
        *,
        seed: int,
        dataset: Mapping[str, Any] | None = None,
        argv: Sequence[str] | None = None,
        changes: Mapping[str, Sequence[Any]] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        """Write config and manifest, or check that the run here is the same one and note that it goes on.

        `config` is nested mappings of TOML values, None meaning absent. `dataset` has the keys name, version,
        sha256. `changes`, key -> (before, now), say that the caller has compared the configurations
        (`lsgm.train.resume`) and in what the run here goes on under others: they are noted, and the file here
        comes to say what `config` says, but for keys that it never had; without them every key has to be the
        same. `origin` says which weights a fresh run starts from. All processes call this; the first one
        writes. Raises ConfigError naming the first key that differs, DataError where the data are others.
        """
        wanted = tomllib.loads(tomli_w.dumps(_plain(config)))
        manifest = {"dataset": dict(dataset or {}), **({"origin": dict(origin)} if origin else {})}
        join("cpu").on_main(lambda: self._start(wanted, changes, seed, manifest, argv))

    def _start(
        self,
        wanted: dict[str, Any],
        changes: Mapping[str, Sequence[Any]] | None,
        seed: int,
        about: dict[str, Any],
        argv: Sequence[str] | None,
    ) -> None:
        try:
            with self.locked():
                for folder in (self.checkpoints, self.samples):
                    write.make_folder(folder)
                write.sweep(self.directory)
                here = self.config() if self.config_path.exists() else None
                if here is not None and changes is None:
                    for key, (before, now) in differences(here, wanted).items():
                        raise ConfigError(
                            f"{self.directory} was started with {key} = {worded(before)}, not {worded(now)}; "
                            "give another directory to start another run"
                        )
                manifest = self._noted(seed, about, argv, changes or {})
                if here is not None:
                    wanted = _where_known(wanted, {*flat(here), *(changes or ())})
                if here is None or differences(here, wanted):
                    write.replace_file(self.config_path, tomli_w.dumps(wanted).encode())
                write.replace_file(self.manifest_path, (json.dumps(manifest, indent=1) + "\n").encode())
        except OSError as error:
            raise ConfigError(
                f"the run directory {self.directory} cannot be written ({error.strerror or error}); "
                "choose another one"
            ) from error

    def _noted(
        self,
        seed: int,
        about: dict[str, Any],
        argv: Sequence[str] | None,
        changes: Mapping[str, Sequence[Any]],
    ) -> dict[str, Any]:
        """Return the manifest with this call in it."""
        if not self.manifest_path.exists():
            return {"run_id": uuid.uuid4().hex, "seed": seed, **about, **provenance(argv), "resumed": []}
        manifest = self.manifest()
        before, now = (manifest.get("dataset") or {}).get("sha256"), about["dataset"].get("sha256")
        if before != now:
            raise DataError(
                f"{self.directory} was trained on data with sha256 {before}, and the data here have {now}; "
                "restore the data or start another run"
            )
        if "origin" in about:
            manifest["origin"] = about["origin"]
        noted = {"changed": {key: list(both) for key, both in changes.items()}} if changes else {}
        manifest["resumed"] = [*(manifest.get("resumed") or []), {**provenance(argv), **noted}]
        return manifest

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process from training in this directory, and what is written within it.

        Raises ConfigError where one trains, and DataError where the directory holds a link: somebody may have
        made it lead elsewhere.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        write.claim(self.directory)
        for entry in sorted(self.directory.iterdir()):
            write.refuse_links(entry)
        write.open_append(self.directory / ".lock").close()
        try:
            held = FileLock(self.directory / ".lock").acquire(blocking=False)
        except Timeout as error:
            raise ConfigError(
                f"another process is training in {self.directory}; wait for it or give another directory"
            ) from error
        with held:
            yield


def _plain(value: Any) -> Any:
    """Return TOML's types: mappings without None, lists for sequences."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _where_known(config: Mapping[str, Any], known: set[str], prefix: str = "") -> dict[str, Any]:
    """Return the part of a configuration whose dotted keys are known."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            if inner := _where_known(value, known, f"{prefix}{key}."):
                out[key] = inner
        elif prefix + key in known:
            out[key] = value
    return out


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file; a last line torn by a kill, and what else is no row, are left out.

    A row has a step that is a whole number and a stage that is a text; its other values are numbers, texts or
    None. Raises DataError for a file that cannot be read, or is too large.
    """
    if not os.path.lexists(path):
        return []
    rows: list[dict[str, Any]] = []
    # A line may be no text where a disk or a kill has damaged it.
    for line in filter(bytes.strip, read_bytes(path, LINES).split(b"\n")):
        try:
            row = parse_json(line, path)
        except UserError:
            continue
        if _is_row(row):
            rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or type(row.get("step")) is not int or row["step"] < 0:
        return False
    if not isinstance(row.get("stage", ""), str):
        return False
    return all(value is None or isinstance(value, str | int | float) for value in row.values())


class MetricsLog:
    """Appends rows; on opening drops those after `step`, which the resumed run is about to write again."""

    def __init__(self, path: Path, step: int, trackers: Trackers | None = None) -> None:
        self._path = path
        self.trackers = trackers or Trackers({})
        """What follows the run from elsewhere, told every row too."""
        try:
            kept = [row for row in read_metrics(path) if row["step"] <= step]
            write.replace_file(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
            self._file = write.open_append(path)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, row: dict[str, Any]) -> None:
        """Append one row, at least ``step`` and ``stage``; numbers that are not finite become null."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        try:
            line = (json.dumps(clean) + "\n").encode()
            if self._file.write(line) != len(line):  # a full disk takes what it has room for
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._failed(error) from error
        values = {f"{row['stage']}/{key}": value for key, value in clean.items() if key != "step"}
        self.trackers.scalars(row["step"], values)

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file and the trackers.

        Every row was flushed when it was written, and a failure told then: what closing says of it once more
        must not stand in the place of that.
        """
        with contextlib.suppress(OSError):
            self._file.close()
        self.trackers.close()

    def _failed(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self._path} could not be written ({error.strerror or error}); "
            f"the checkpoints are intact: {write.remedy(error)}, then run the same command again"
        )
