"""A run directory: config.toml, manifest.json, metrics.jsonl, checkpoints/, samples/."""

from __future__ import annotations

import json
import os
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
from lsgm.files import write
from lsgm.files.text import read_table, read_toml, record_of
from lsgm.runs.checkpoint import checkpoints
from lsgm.runs.provenance import provenance
from lsgm.runs.records import Manifest

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
        if not os.path.lexists(self.config_path):
            raise ConfigError(f"{self.config_path} cannot be read, as it is not there; give a run directory")
        return read_toml(self.config_path, ConfigError)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest, which is what `Manifest` says; keys of later versions are in it as well.

        Raises ConfigError where there is none, or another file in its place.
        """
        table = read_table(self.manifest_path, ConfigError)
        record_of(Manifest, table, self.manifest_path, ConfigError)
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
                    self._same(wanted, here)
                manifest = self._noted(seed, about, argv, changes or {})
                if here is not None:
                    wanted = _where_known(wanted, {*_flat(here), *(changes or ())})
                if here is None or _flat(here) != _flat(wanted):
                    write.replace_file(self.config_path, tomli_w.dumps(wanted).encode())
                write.replace_file(self.manifest_path, (json.dumps(manifest, indent=1) + "\n").encode())
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
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield
            return
        with write.open_append(self.directory / ".lock") as file:
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
    """Return ``{"a.b.c": value}``; a dash in a key, which is another spelling of it, as an underscore."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix + key.replace("-", "_")
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{name}."))
        else:
            flat[name] = value
    return flat


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


def _show(value: Any) -> str:
    return "nothing" if value is None else repr(value)
