"""What the images in a place are of, and which of them are drawn: a hidden record that grows with them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError, DataError, UserError
from lsgm.files.limits import LINES
from lsgm.files.names import shown
from lsgm.files.regular import read_bytes, refuse_special
from lsgm.files.text import parse_json, record_of
from lsgm.files.write import open_append
from lsgm.sampling.keep import keeping
from lsgm.structure import from_dict, to_dict

FORMAT = 1
"""Version of the record; a newer one is of other images, for all that this version knows."""


@dataclass(frozen=True)
class Identity:
    """What an image depends on besides its seed."""

    model: str
    sha256: str
    """Of the model's weights."""
    sampler: SamplerConfig | None
    """None of a model without a diffusion, of which only the temperature means something."""
    temperature: float = 1.0
    first_seed: int | None = None
    """Of an npz, which has no other place to say of which seeds its rows are; in a folder names do."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the sampler was told, as JSON values."""
        return {"temperature": self.temperature} if self.sampler is None else to_dict(self.sampler)

    @property
    def key(self) -> str:
        """A sha256 of the whole but for the model's name, because folders may be renamed.

        Settings count where they are not the default, so that one more of them changes no key.
        """
        usual = to_dict(SamplerConfig())
        told = {name: value for name, value in self.settings.items() if value != usual.get(name)}
        text = json.dumps([FORMAT, self.sha256, told, self.first_seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the record's first line."""
        begun = {} if self.first_seed is None else {"first_seed": self.first_seed}
        return {
            "format": FORMAT,
            "model": self.model,
            "sha256": self.sha256,
            "sampler": self.settings,
            **begun,
        }

    def difference(self, line: Mapping[str, Any]) -> str:
        """Return how the images of another first line differ from these, or an empty string."""
        if line.get("format") != FORMAT:
            return f"images of a record that this version does not read (format {line.get('format')})"
        try:
            other = record_of(_Begun, line, "it")
        except DataError as error:
            return f"images of a record that cannot be read ({str(error).partition(';')[0]})"
        if other.sha256 != self.sha256:
            return (
                f"images of {other.model} (weights {other.sha256[:12]}), not of "
                f"{self.model} (weights {self.sha256[:12]})"
            )
        then, now = _completed(other.sampler), _completed(self.settings)
        for name in sorted(then.keys() | now.keys()):
            if then.get(name) != now.get(name):
                option = name.replace("_", "-")
                was = shown(str(then.get(name)))[:60]
                return f"images drawn with sampler.{option} = {was}, not {now.get(name)}"
        if other.first_seed != self.first_seed:
            return f"images from seed {other.first_seed} on, not from {self.first_seed}"
        return ""


@dataclass(frozen=True)
class _Begun:
    """The first line of a record."""

    model: str
    sha256: str
    sampler: dict[str, Any]
    first_seed: int | None = None


@dataclass(frozen=True)
class _Batch:
    """Any other line of a record."""

    seeds: tuple[tuple[int, int], ...]
    nfe: tuple[float, ...]
    seconds: float

    def __post_init__(self) -> None:
        count = sum(last - first + 1 for first, last in self.seeds)
        ordered = all(0 <= first <= last for first, last in self.seeds)
        require(ordered and 0 < count == len(self.nfe), "seeds are not those of nfe")
        require(all(map(math.isfinite, (*self.nfe, self.seconds))), "nfe or seconds are not finite")


class Record:
    """A file of lines: first what the images are of, then the seeds, evaluations and seconds of each batch.

    A line is written once its images are, so that whatever ends a process, the images of the lines are there.
    """

    def __init__(self, path: Path, identity: Identity, place: Path) -> None:
        self.path, self.identity, self.place = path, identity, place
        self.costs: dict[int, tuple[float, float]] = {}
        """Network evaluations and seconds, its share of its batch's, of each seed that is drawn."""
        self._file: IO[bytes] | None = None

    def check(self) -> None:
        """Take in what is recorded. Raises UserError where that is of other images than these."""
        lines = self._lines()
        if not lines:
            return
        if different := self.identity.difference(lines[0]):
            raise UserError(
                f"{self.place} holds {different}: name another place with --out, or repeat the command that "
                "drew them"
            )
        for line in lines[1:]:
            self._take(line)

    @contextlib.contextmanager
    def open(self, *, fresh: bool) -> Iterator[None]:
        """Keep the file open for `add`, and other processes from drawing into the same place.

        ``fresh`` begins anew, because the images that were recorded are gone. Raises UserError where another
        process is at it and where the disk refuses.
        """
        with keeping(self.place):
            # Without a buffer: what a full disk refuses must not be tried again when the file is closed.
            self._file = open_append(self.path)
        with self._file as file:
            self._lock(file)
            with keeping(self.place):
                whole = read_bytes(self.path, LINES).rpartition(b"\n")
                if fresh:
                    self.costs = {}
                # What a kill has cut short is no line.
                file.truncate(0 if fresh else len(whole[0] + whole[1]))
                if fresh or not whole[1]:
                    self._write(self.identity.as_dict())
            yield
        self._file = None

    def add(self, seeds: Sequence[int], nfe: Sequence[float], seconds: float) -> None:
        """Record a batch whose images are written."""
        line = {"seeds": spans(seeds), "nfe": list(nfe), "seconds": seconds}
        with keeping(self.place):
            self._write(line)
        self._take(line)

    def summary(self, seeds: Container[int]) -> dict[str, Any]:
        """Return of which seeds, among some, images are drawn, and what these have cost."""
        there = sorted(seed for seed in self.costs if seed in seeds)
        nfe = [self.costs[seed][0] for seed in there]
        return {
            "n": len(there),
            "seeds": spans(there),
            "nfe_mean": sum(nfe) / len(nfe) if nfe else None,
            "nfe_max": max(nfe, default=None),
            "seconds": sum(self.costs[seed][1] for seed in there),
        }

    def _lines(self) -> list[dict[str, Any]]:
        refuse_special(self.path)
        if not self.path.is_file():
            return []
        found = []
        for line in read_bytes(self.path, LINES).splitlines():
            with contextlib.suppress(DataError):  # of what is damaged the images are drawn again
                content = parse_json(line, self.path)
                if isinstance(content, dict):
                    found.append(content)
        return found

    def _take(self, line: Mapping[str, Any]) -> None:
        try:
            batch = record_of(_Batch, line, self.path)
        except DataError:  # its images are drawn again
            return
        seeds = [seed for first, last in batch.seeds for seed in range(first, last + 1)]
        each = batch.seconds / len(seeds)
        self.costs.update((seed, (nfe, each)) for seed, nfe in zip(seeds, batch.nfe, strict=True))

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        content = json.dumps(line).encode() + b"\n"
        if self._file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _lock(self, file: IO[bytes]) -> None:
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is drawing into {self.place}: wait for it, or name another place"
            ) from error
        except OSError:  # some network disks have none
            return


def spans(seeds: Iterable[int]) -> list[list[int]]:
    """Return ascending whole numbers as [first, last] of each run of neighbours."""
    found: list[list[int]] = []
    for seed in seeds:
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return found


def _completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sampler's settings with the defaults of those that did not exist when they were recorded."""
    if "name" not in settings:
        return dict(settings)
    try:
        return to_dict(from_dict(SamplerConfig, settings, "a record"))
    except ConfigError:  # another version's, with settings that this one has not
        return dict(settings)
