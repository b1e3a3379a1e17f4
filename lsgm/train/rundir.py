"""A run directory: config.toml, manifest.json, metrics.jsonl, checkpoints/, samples/."""

from __future__ import annotations

import json
import tomllib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from lsgm.distributed import join
from lsgm.errors import ConfigError, DataError
from lsgm.train import atomic
from lsgm.train.checkpoint import checkpoints
from lsgm.train.provenance import provenance

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """The files of one run. Making one touches nothing; `start` writes or checks config and manifest."""

    directory: Path

    def __init__(self, directory: Path | str) -> None:
        object.__setattr__(self, "directory", Path(directory))

    @property
    def config_path(self) -> Path:
        """The complete, resolved configuration."""
        return self.directory / "config.toml"

    @property
    def manifest_path(self) -> Path:
        """Where the run comes from."""
        return self.directory / "manifest.json"

    @property
    def metrics_path(self) -> Path:
        """The log."""
        return self.directory / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def samples(self) -> Path:
        """The directory of the pictures made while training."""
        return self.directory / "samples"

    def config(self) -> dict[str, Any]:
        """Return the configuration. Raises ConfigError where there is none or it is not TOML."""
        try:
            return tomllib.loads(self.config_path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"{self.config_path} cannot be read ({error.strerror}); give a run directory"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"{self.config_path} is not valid TOML ({error}); restore it from a copy"
            ) from error

    def manifest(self) -> dict[str, Any]:
        """Return the manifest. Raises ConfigError where there is none or it is not JSON."""
        try:
            return dict(json.loads(self.manifest_path.read_bytes()))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.manifest_path} cannot be read; restore it from a copy") from error

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
        begun: Mapping[str, Any] | None = None,
    ) -> None:
        """Write config and manifest, or check that the run here is the same one and note that it goes on.

        `config` is nested mappings of TOML values, None meaning absent. `dataset` has the keys name, version,
        sha256. `begun` is the configuration that the run here has, completed by keys that did not exist when
        it was written; without it that is the file as it stands. All processes call this; the first one
        writes. Raises ConfigError naming the first key that differs, DataError where the data are others.
        """
        wanted = tomllib.loads(tomli_w.dumps(_plain(config)))
        before = None if begun is None else tomllib.loads(tomli_w.dumps(_plain(begun)))
        join("cpu").on_main(lambda: self._start(wanted, before, seed, dict(dataset or {}), argv))

    def _start(
        self,
        wanted: dict[str, Any],
        before: dict[str, Any] | None,
        seed: int,
        dataset: dict[str, Any],
        argv: Sequence[str] | None,
    ) -> None:
        try:
            with self.locked():
                for folder in (self.checkpoints, self.samples):
                    folder.mkdir(exist_ok=True)
                atomic.sweep(self.directory)
                if self.config_path.exists():
                    self._same(wanted, self.config() if before is None else before)
                else:
                    atomic.replace_file(self.config_path, tomli_w.dumps(wanted).encode())
                self._note(seed, dataset, argv)
        except OSError as error:
            raise ConfigError(
                f"the run directory {self.directory} cannot be written ({error.strerror or error}); "
                "choose another one"
            ) from error

    def _same(self, wanted: dict[str, Any], begun: dict[str, Any]) -> None:
        before, now = _flat(begun), _flat(wanted)
        for key in dict.fromkeys([*before, *now]):
            if before.get(key) != now.get(key):
                raise ConfigError(
                    f"{self.directory} was started with {key} = {_show(before.get(key))}, not "
                    f"{_show(now.get(key))}; give another directory to start another run"
                )

    def _note(self, seed: int, dataset: dict[str, Any], argv: Sequence[str] | None) -> None:
        if not self.manifest_path.exists():
            manifest = {"run_id": uuid.uuid4().hex, "seed": seed, "dataset": dataset, **provenance(argv)}
            manifest["resumed"] = []
        else:
            manifest = self.manifest()
            if manifest.get("dataset", {}).get("sha256") != dataset.get("sha256"):
                raise DataError(
                    f"{self.directory} was trained on data with sha256 {manifest['dataset'].get('sha256')}, "
                    f"and the data here have {dataset.get('sha256')}; restore the data or start another run"
                )
            manifest.setdefault("resumed", []).append(provenance(argv))
        atomic.replace_file(self.manifest_path, (json.dumps(manifest, indent=1) + "\n").encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process from training in this directory. Raises ConfigError where one does."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"another process is training in {self.directory}; wait for it or give another directory"
                ) from error
            yield


def _plain(value: Any) -> Any:
    """Return TOML's types: mappings without None, lists for sequences."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``{"a.b.c": value}``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _show(value: Any) -> str:
    return "nothing" if value is None else repr(value)
