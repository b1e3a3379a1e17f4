"""What `manifest.json` of a run says, as typed records that the file is held against when it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call", "Dataset", "Hardware", "Manifest"]


@dataclass(frozen=True)
class Hardware:
    """The machine of a call."""

    processor: str
    cores: int | None
    threads: int
    processes: int
    gpus: tuple[str, ...] = ()
    system: str = ""


@dataclass(frozen=True)
class Call:
    """A call of `lsgm train` that went on with the run."""

    time: str | None = None
    argv: tuple[str, ...] = ()
    git_revision: str | None = None
    versions: dict[str, str | None] = field(default_factory=dict)
    hardware: Hardware | None = None
    changed: dict[str, tuple[Any, Any]] | None = None
    """Key -> what it was and what it is from this call on."""


@dataclass(frozen=True)
class Dataset:
    """The training images."""

    name: str | None = None
    version: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class OriginSaid:
    """Whose weights a run was begun from."""

    option: str
    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Manifest(Call):
    """`manifest.json`: the first call, what it trained on, and every call after it."""

    run_id: str | None = None
    seed: int | None = None
    dataset: Dataset | None = None
    origin: OriginSaid | None = None
    resumed: tuple[Call, ...] | None = None
