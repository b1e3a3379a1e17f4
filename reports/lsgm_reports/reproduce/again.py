"""All that it takes to measure a row again: the command, where to run it, and what must hold."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.revision import git_revision
from lsgm_reports.provenance import Manifest, MeasuredModel, manifest_of
from lsgm_reports.reproduce.checks import (
    Check,
    check_code,
    check_data,
    check_hardware,
    check_versions,
    thread_setting,
)
from lsgm_reports.reproduce.command_line import CommandLine
from lsgm_reports.reproduce.copied import shell_line
from lsgm_reports.reproduce.foreign import Foreign, foreign_code
from lsgm_reports.reproduce.guess import guessed_command, guessed_models
from lsgm_reports.reproduce.narrow import ELSEWHERE, models_of, narrowed, with_models
from lsgm_reports.reproduce.weights import locate
from lsgm_reports.rows import Row

__all__ = ["Again", "plan_again"]


@dataclass(frozen=True)
class Again:
    """A command that measures a row again."""

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


def plan_again(row: Row, folder: Path, siblings: Sequence[Row], out: Path, device: str = "") -> Again:
    """Return how to measure a row of ``folder`` again, into ``out``, and what is known to stand in the way.

    ``siblings`` are all rows of its file. Without a manifest the command is told from the row's own keys, and
    a remark says so. Raises DataError for a damaged manifest, for a row whose command cannot be told, and for
    a command that is none that measures or says more than data (`allowed`).
    """
    manifest = manifest_of(row, folder)
    places = [folder, folder.parent, Path.cwd() / "checkpoints", Path.cwd() / "runs"]
    if manifest is None:
        return _guessed(row, siblings, places, out, device)
    recorded = CommandLine.parse(manifest.command)
    recorded.without(*ELSEWHERE).checked()
    directory, remarks = Path(manifest.directory), []
    if not _is_place(manifest.directory):
        remarks.append(f"{directory} is not here: relative paths are taken from the current directory")
        directory = Path.cwd()
    line = narrowed(recorded, row, siblings)
    wanted = models_of(row, [model.name for model in manifest.models])
    models = [model for model in manifest.models if model.name in wanted]
    line, found = _with_weights(line, models, directory, places)
    if device or manifest.processes == 1:
        # As it was chosen then: what `auto` chooses here may be another kind of device.
        line = line.with_values("device", device or manifest.device)
    data = check_data(manifest.task.data, manifest.task.dataset, _roots(manifest), directory)
    checks = [
        check_code(manifest.git_revision or row.git_revision, git_revision()),
        check_versions(manifest.versions),
        *found,
        data,
        check_hardware(manifest),
    ]
    if recorded.values("time-budget"):
        remarks.append("the call had a time budget, which is left out: it may have ended before some points")
    folder_word = str(out if directory == Path.cwd() else out.absolute())
    line = line.without("out").checked().with_values("out", folder_word)
    foreign = foreign_code(line, directory, Path.cwd())
    return Again(line.argv, directory, _environment(manifest), manifest.processes, checks, remarks, foreign)


def _is_place(directory: str) -> bool:
    """Say whether a recorded directory is here, and of a name that a terminal prints as it is."""
    return os.path.isabs(directory) and directory.isprintable() and os.path.isdir(directory)


def _guessed(row: Row, siblings: Sequence[Row], places: Sequence[Path], out: Path, device: str) -> Again:
    """Return what the row alone tells."""
    here = Path.cwd()
    line, found = _with_weights(guessed_command(row, siblings), guessed_models(row, siblings), here, places)
    line = line.with_values("device", device) if device else line
    why = (
        "the row names no manifest"
        if row.manifest is None
        else f"the manifest {row.manifest} is not beside the row"
    )
    remarks = [
        f"{why}: the command is told from the row's own keys, with the task's feature spaces and images, and "
        "neither versions nor hardware are known"
    ]
    if row.group == "reach":
        remarks.append("it depends on all points of its sweep, which the row does not name")
    name = row.dataset_name
    checks = [
        check_code(row.git_revision, git_revision()),
        *found,
        check_data(name, row.dataset, _roots(None), here),
    ]
    line = line.checked("the command that the row's keys tell").with_values("out", str(out))
    return Again(line.argv, here, {}, 1, checks, remarks, foreign_code(line, here, here))


def _with_weights(
    line: CommandLine, models: Sequence[MeasuredModel], directory: Path, places: Sequence[Path]
) -> tuple[CommandLine, list[Check]]:
    """Return the line with its models as they are found here, and what is to be said of each."""
    located = [locate(model, directory, places) for model in models]
    words = [where.word or f"{model.name}=CHECKPOINT" for model, where in zip(models, located, strict=True)]
    return with_models(line, words), [Check("weights", where.state, where.text) for where in located]


def _environment(manifest: Manifest) -> dict[str, str]:
    """Return what must be set: the threads, by which sums are divided, and the data's place if unset here."""
    found: dict[str, str] = {}
    if manifest.threads is not None:
        found |= thread_setting(manifest.threads)
    data = _data(manifest)
    if data and "LSGM_DATA" not in os.environ:
        found["LSGM_DATA"] = data
    return found


def _data(manifest: Manifest) -> str:
    """Return the folders of data that were looked in, whole paths between colons; nothing of odd ones."""
    recorded = manifest.environment.get("LSGM_DATA", "")
    if not recorded.isprintable():
        return ""
    parts = [os.path.expanduser(part) for part in recorded.split(os.pathsep) if part]
    return os.pathsep.join(os.path.join(manifest.directory, part) for part in parts)


def _roots(manifest: Manifest | None) -> list[Path]:
    """Return the folders in which data are looked for, as `lsgm.data` does."""
    recorded = _data(manifest) if manifest is not None else ""
    named = os.environ.get("LSGM_DATA", recorded)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsgm"
    cache = Path(os.environ.get("LSGM_CACHE") or base)
    return [Path(os.path.expanduser(part)) for part in named.split(os.pathsep) if part] + [cache / "data"]
