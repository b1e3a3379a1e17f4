"""What must hold for a number or weights to come out again, and whether they did, told without torch."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from lsgm.results.manifest import Manifest
from lsgm.results.row import Row
from lsgm_reports.reproduce.apart import Foreign, shell_line

__all__ = [
    "NUMERICS",
    "Again",
    "Check",
    "Reproduced",
    "check_code",
    "check_data",
    "check_hardware",
    "check_versions",
    "same_measurement",
    "thread_setting",
    "verdict",
]

REVISION = re.compile(r"[0-9a-f]{7,64}([+-]dirty)?")
NUMERICS = 1e-5
"""Relative difference that rounding alone may make. A number in single precision is off by 6e-8 of itself;
sums over the 1e3 to 1e4 terms of a layer or an image, taken in another order by other threads, another
processor or another batch, differ by about 6e-8 times the root of their number, at most 6e-6."""
IDENTITY = ("task", "model", "metric", "group", "sampler", "split", "target")
"""Rows that agree in these measure the same thing."""
INPUTS = ("checkpoint_sha256", "dataset", "extractor", "reference_sha256", "levels_sha256", "seeds", "n")
"""What both must have been measured of; where one of these differs, so may the number."""


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and whether it does."""

    subject: str
    state: Literal["ok", "differs", "missing", "unknown"]
    text: str

    @property
    def line(self) -> str:
        """One line for a terminal."""
        return f"  {self.state:<8} {self.subject:<9} {self.text}"


@dataclass(frozen=True)
class Again:
    """A command that measures a row or trains a run again."""

    argv: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str]
    processes: int
    checks: Sequence[Check]
    remarks: Sequence[str]
    foreign: Sequence[Foreign] = ()
    """The code of others that it runs."""

    @property
    def missing(self) -> list[str]:
        """What is not here and without which the command cannot run."""
        return [check.text for check in self.checks if check.state == "missing"]

    @property
    def shell(self) -> str:
        """The command for a shell, with the directory and the environment where these are others."""
        here = Path.cwd() == self.directory
        words = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        line = " ".join([*words, shell_line(self.argv, self.processes)])
        return line if here else f"cd {shlex.quote(str(self.directory))} && {line}"


def check_code(recorded: str | None, here: str | None) -> Check:
    """Compare revisions; local changes leave open what the code was."""
    if recorded is not None and REVISION.fullmatch(recorded) is None:
        return Check("code", "unknown", f"what is recorded is no revision of git: {recorded[:60]!r}")
    if recorded is None:
        return Check("code", "unknown", "measured outside of a git checkout: no revision is recorded")
    clean = recorded[:40]
    if here is None:
        return Check("code", "unknown", f"measured at {clean[:12]}, and this code is in no git checkout")
    if here[:40] != clean:
        said = f"measured at {clean[:12]}, this checkout is at {here[:12]}: `git checkout {clean}`"
        return Check("code", "differs", said)
    changed = [where for where, it in (("then", recorded), ("now", here)) if it != clean]
    if changed:
        said = f"at {clean[:12]} as recorded, with local changes {' and '.join(changed)}"
        return Check("code", "unknown", said)
    return Check("code", "ok", f"this checkout is at {clean[:12]}, as recorded")


def check_versions(recorded: Mapping[str, str | None]) -> Check:
    """Compare the versions of Python and of the packages that move numbers with those installed here."""
    others = [
        f"{name} {_version(name) or 'absent'} (was {version or 'absent'})"
        for name, version in recorded.items()
        if _version(name) != version
    ]
    if others:
        return Check("versions", "differs", ", ".join(others))
    if not recorded:
        return Check("versions", "unknown", "none are recorded")
    return Check("versions", "ok", f"python and {len(recorded) - 1} packages as recorded")


def check_data(name: str, identity: str | None, roots: Sequence[Path], directory: Path) -> Check:
    """Say whether a task's images are at hand; whether they are the same is seen when they are loaded."""
    called = identity or name
    version, _, sha256 = called.rpartition("@")
    called = f"{version}, sha256 {sha256[:12]}" if version else called
    if name == "glyphs":
        return Check("data", "ok", f"{called}: rendered here, no file needed")
    path = directory / os.path.expanduser(name)
    if "/" in name or path.suffix == ".zip":
        there = os.path.exists(path)
        return Check("data", "ok" if there else "missing", f"{called} at {path}")
    found = next((root / name for root in roots if os.path.exists(root / name)), None)
    if found is not None:
        return Check("data", "ok", f"{called} in {found}")
    looked = ", ".join(map(str, roots))
    return Check("data", "unknown", f"{called}: no folder {name} in {looked}; see `lsgm data ls`")


def check_hardware(manifest: Manifest) -> Check:
    """Compare what can be seen of the machine; sums round otherwise on other hardware, and seconds differ."""
    was = manifest.hardware
    gpus = was.get("gpus")
    said = ", ".join(
        [
            *(map(str, gpus) if isinstance(gpus, list) else ()),
            f"{was.get('cores', '?')} cores ({was.get('processor', '?')})",
            "1 thread" if manifest.threads == 1 else f"{manifest.threads or '?'} threads",
            "1 process" if manifest.processes == 1 else f"{manifest.processes} processes",
        ]
    )
    same = (was.get("cores"), was.get("processor")) == (
        os.cpu_count(),
        platform.processor() or platform.machine(),
    )
    if manifest.device.startswith("cuda"):
        return Check("hardware", "unknown", f"measured on {manifest.device} of {said}")
    if same:
        return Check("hardware", "ok", f"as recorded: {said}")
    here = f"{os.cpu_count()} cores ({platform.processor() or platform.machine()})"
    return Check("hardware", "differs", f"measured with {said}; here are {here}")


def thread_setting(threads: int) -> dict[str, str]:
    """Return the variable that divides sums among so many threads, nothing where it is set so already."""
    asked = str(threads)
    return {} if os.environ.get("OMP_NUM_THREADS") == asked else {"OMP_NUM_THREADS": asked}


@dataclass(frozen=True)
class Reproduced:
    """What came of measuring a number again."""

    reproduced: bool
    sentence: str
    difference: float | None = None
    """New minus recorded."""


def same_measurement(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the last of ``rows`` that measures what ``row`` does, None where none of them does."""

    def identity(of: Row) -> tuple[object, ...]:
        return tuple(getattr(of, key) for key in IDENTITY)

    return next((other for other in reversed(rows) if identity(other) == identity(row)), None)


def verdict(recorded: Row, new: Row) -> Reproduced:
    """Compare a new measurement with the recorded one.

    Reproduced is what agrees to the last bit, up to `NUMERICS` times the larger of the value and half its
    interval, or lies inside the recorded 95 % interval; and a gap, where there is a gap again. Times are
    compared and not judged: they depend on the machine and on what else it does.
    """
    others = [
        key
        for key in INPUTS
        if None not in (ends := (getattr(recorded, key), getattr(new, key))) and ends[0] != ends[1]
    ]
    if others:
        return Reproduced(False, f"not the same measurement: it differs in {', '.join(others)}")
    if recorded.value is None or new.value is None:
        both = recorded.value is new.value
        return Reproduced(both, "no value, as recorded" if both else "a value only one of the two times")
    difference = new.value - recorded.value
    if difference == 0:
        return Reproduced(True, "equal to the last bit", difference)
    if abs(difference) <= NUMERICS * max(abs(recorded.value), recorded.half_width or 0.0):
        return Reproduced(True, "equal up to rounding", difference)
    if "seconds" in recorded.metric:
        return Reproduced(True, "a time, which is never the same twice: not judged", difference)
    if recorded.interval is None:
        return Reproduced(False, "different, and no interval is recorded", difference)
    low, high = recorded.interval
    if low <= new.value <= high:
        return Reproduced(True, "inside the recorded 95 % interval, and not equal", difference)
    return Reproduced(False, "outside the recorded 95 % interval", difference)


def _version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):  # of a name that no package can have
        return None
