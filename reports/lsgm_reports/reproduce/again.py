"""All that it takes to measure a row or train a run again: the command, where to run it, and what must hold.

Told without torch; and whether the number came out again.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from lsgm.config import require
from lsgm.errors import DataError
from lsgm.files.text import read_record, read_toml
from lsgm.hub import hub_name
from lsgm.recipes import ORIGINS
from lsgm.results.manifest import MOST, Manifest
from lsgm.results.row import Row
from lsgm.runs.provenance import git_revision
from lsgm_reports.reproduce.allowed import CommandLine
from lsgm_reports.reproduce.apart import Foreign, foreign_code, no_option, shell_line
from lsgm_reports.reproduce.weights import Check, locate, newest_checkpoint


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


# Measuring a row again

_LEFT_OUT = ("json", "save", "export-reference", "time-budget", "out")
"""Options that change no number, stop before the one that is wanted, or say where to write."""


def row_again(row: Row, manifest: Manifest, folder: Path, out: Path, device: str = "") -> Again:
    """Return how to measure a row of ``folder`` again, into ``out``, and what is known to stand in the way.

    The command is the one that the manifest has for its rows, else the whole call. Raises DataError for a
    command that is none that measures or says more than data (`allowed`).
    """
    recorded = CommandLine.parse(manifest.again or manifest.command)
    directory, remarks = Path(manifest.directory), []
    # A name that a terminal does not print as it is counts as none.
    if not (os.path.isabs(directory) and manifest.directory.isprintable() and os.path.isdir(directory)):
        remarks.append(f"{directory} is not here: relative paths are taken from the current directory")
        directory = Path.cwd()
    if not manifest.again:
        remarks.append("its manifest has no command for this row alone: the whole call is made again")
    if recorded.values("time-budget"):
        remarks.append("the call had a time budget, which is left out: it may have ended before some points")
    # The command, its models where they lie now, on the device that was chosen then.
    places = [folder, folder.parent, Path.cwd() / "checkpoints", Path.cwd() / "runs"]
    located = [locate(model, directory, places) for model in manifest.models]
    pairs = zip(manifest.models, located, strict=True)
    words = [word or f"{model.name}=CHECKPOINT" for model, (word, _) in pairs]
    line = recorded.without(*_LEFT_OUT)
    if line.command == "nll":
        line = replace(line, words=tuple(words))
    elif line.command != "fid":  # whose words are a reference and samples, of whatever kind
        line = line.with_values("model", *words)
    if device or manifest.processes == 1:
        line = line.with_values("device", device or manifest.device)
    recorded.without(*_LEFT_OUT).checked()
    line = line.checked().with_values("out", str(out if directory == Path.cwd() else out.absolute()))
    # Threads, by which sums are divided, and the data's place if unset here.
    data = _data(manifest)
    environment = _threads(manifest.threads)
    if data and "LSGM_DATA" not in os.environ:
        environment["LSGM_DATA"] = data
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsgm"
    looked = [part for part in os.environ.get("LSGM_DATA", data).split(os.pathsep) if part]
    roots = [Path(os.path.expanduser(part)) for part in looked]
    roots.append(Path(os.environ.get("LSGM_CACHE") or base) / "data")
    checks = [
        check_code(manifest.git_revision or row.git_revision, git_revision()),
        check_versions(manifest.versions),
        *(check for _, check in located),
        check_data(manifest.task.data, manifest.task.dataset, roots, directory),
        check_hardware(manifest),
    ]
    foreign = foreign_code(line, directory, Path.cwd())
    return Again(line.argv, directory, environment, manifest.processes, checks, remarks, foreign)


def _data(manifest: Manifest) -> str:
    """Return the folders of data that were looked in, whole paths between colons; nothing of odd ones."""
    recorded = manifest.environment.get("LSGM_DATA", "")
    if not recorded.isprintable():
        return ""
    parts = [os.path.expanduser(part) for part in recorded.split(os.pathsep) if part]
    return os.pathsep.join(os.path.join(manifest.directory, part) for part in parts)


def _threads(threads: int | None) -> dict[str, str]:
    """Return the variable that divides sums among so many threads, nothing where it is set so already."""
    known = threads is None or os.environ.get("OMP_NUM_THREADS") == str(threads)
    return {} if known else {"OMP_NUM_THREADS": str(threads)}


# What must hold


def check_code(recorded: str | None, here: str | None) -> Check:
    """Compare revisions; local changes leave open what the code was."""
    if recorded is not None and not re.fullmatch(r"[0-9a-f]{7,64}([+-]dirty)?", recorded):
        return Check("code", "unknown", f"what is recorded is no revision of git: {recorded[:60]!r}")
    if recorded is None:
        return Check("code", "unknown", "measured outside of a git checkout: no revision is recorded")
    clean = recorded[:40]
    if here is None:
        return Check("code", "unknown", f"measured at {clean[:12]}, and this code is in no git checkout")
    if here[:40] != clean:
        said = f"measured at {clean[:12]}, this checkout is at {here[:12]}: `git checkout {clean}`"
        return Check("code", "differs", said)
    if changed := [where for where, it in (("then", recorded), ("now", here)) if it != clean]:
        said = f"at {clean[:12]} as recorded, with local changes {' and '.join(changed)}"
        return Check("code", "unknown", said)
    return Check("code", "ok", f"this checkout is at {clean[:12]}, as recorded")


def check_versions(recorded: Mapping[str, str | None]) -> Check:
    """Compare the versions of Python and of the packages that move numbers with those installed here."""
    here = {name: _version(name) for name in recorded}
    both = ((name, version, here[name]) for name, version in recorded.items() if version != here[name])
    if others := [f"{name} {now or 'absent'} (was {was or 'absent'})" for name, was, now in both]:
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
    parts = [
        *(map(str, gpus) if isinstance(gpus, list) else ()),
        f"{was.get('cores', '?')} cores ({was.get('processor', '?')})",
        "1 thread" if manifest.threads == 1 else f"{manifest.threads or '?'} threads",
        "1 process" if manifest.processes == 1 else f"{manifest.processes} processes",
    ]
    said, cores, processor = ", ".join(parts), os.cpu_count(), platform.processor() or platform.machine()
    if manifest.device.startswith("cuda"):
        return Check("hardware", "unknown", f"measured on {manifest.device} of {said}")
    if (was.get("cores"), was.get("processor")) == (cores, processor):
        return Check("hardware", "ok", f"as recorded: {said}")
    return Check("hardware", "differs", f"measured with {said}; here are {cores} cores ({processor})")


def _version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):  # of a name that no package can have
        return None


# Training a run again


@dataclass(frozen=True)
class _Images:
    """What a run's manifest says of its images."""

    name: str = "unknown"
    version: int | str | None = None
    sha256: str = ""


@dataclass(frozen=True)
class _Hardware:
    """What is read of the machine that a run was trained on."""

    cores: int | None = None
    threads: int | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            require(count is None or 1 <= count <= MOST, f"{name} are {count}; there are 1 to {MOST}")


@dataclass(frozen=True)
class _Run:
    """What is read of a training run's ``manifest.json``."""

    versions: dict[str, str | None]
    dataset: _Images
    hardware: _Hardware
    git_revision: str | None = None
    resumed: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(len(self.versions) <= MOST, f"versions are {len(self.versions)}; at most {MOST} are read")


def is_training_run(place: Path) -> bool:
    """Say whether a folder is one of a training run."""
    return all(os.path.exists(place / name) for name in ("config.toml", "manifest.json"))


def training_again(folder: Path, out: Path, device: str = "") -> Again:
    """Return how to train a run again, into ``out``. Raises DataError where its files cannot be read.

    Of its configuration nothing is run and nowhere is written by it: it names images and weights that are
    read, kinds of models that are installed, and numbers.
    """
    place = folder / "config.toml"
    config, run = read_toml(place, DataError), read_record(_Run, folder / "manifest.json", DataError)
    checks = [check_code(run.git_revision, git_revision()), check_versions(run.versions)]
    for key in ORIGINS:
        if not isinstance(origin := config.get(key) or "", str):
            raise DataError(f"{place}: '{key}' is {origin!r:.60}, not a path; restore it from a copy")
        if origin and (on_hub := hub_name(origin)):
            checks.append(Check("weights", "unknown", f"it was begun from {on_hub}, which is fetched again"))
        elif origin:
            begun = Path(os.path.expanduser(os.path.expandvars(origin)))
            found = newest_checkpoint(begun)
            said = f"now at {found.name}, whose checksum was not recorded" if found else ""
            said = f"it was begun from {begun}, {said or 'which holds no checkpoint here'}"
            checks.append(Check("weights", "unknown" if found else "missing", said))
    data = config.get("data")
    named = data.get("dataset") if isinstance(data, dict) else None
    read_from = named if isinstance(named, str) else "what its recipe says"
    images = f"{run.dataset.name}@{run.dataset.version}, sha256 {run.dataset.sha256[:12]}"
    machine = ", ".join(f"{count} {name}" for name, count in vars(run.hardware).items())
    checks += [
        Check("data", "unknown", f"{images}, read from {read_from}: compare with `lsgm data ls`"),
        Check("hardware", "unknown", f"trained with {machine}"),
    ]
    remarks = [f"it was resumed {len(run.resumed)} times, which changes no weight"] if run.resumed else []
    if timed := [name for name, each in config.items() if isinstance(each, dict) and each.get("seconds")]:
        words = " and ".join(timed)
        remarks.append(f"{words} ends after seconds of training: other machines take other steps")
    argv = ["lsgm", "train", no_option(str(place)), "--out", str(out)]
    argv += ["--device", device] if device else []
    return Again(tuple(argv), Path.cwd(), _threads(run.hardware.threads), 1, checks, remarks)


# Whether the number came out again

NUMERICS = 1e-5
"""Relative difference that rounding alone may make. A number in single precision is off by 6e-8 of itself;
sums over the 1e3 to 1e4 terms of a layer or an image, taken in another order by other threads, another
processor or another batch, differ by about 6e-8 times the root of their number, at most 6e-6."""
IDENTITY = ("task", "model", "metric", "group", "sampler", "split", "target")
"""Rows that agree in these measure the same thing."""
INPUTS = ("checkpoint_sha256", "dataset", "extractor", "reference_sha256", "levels_sha256", "seeds", "n")
"""What both must have been measured of; where one of these differs, so may the number."""


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
