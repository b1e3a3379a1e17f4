"""From a training run to the command that trains it again, and whether the weights came out the same."""

from __future__ import annotations

import json
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from lsgm.errors import DataError
from lsgm.revision import git_revision
from lsgm_reports.reproduce.checks import Check, check_code, check_versions, thread_setting
from lsgm_reports.reproduce.weights import newest_checkpoint, weights_sha256

__all__ = ["Training", "is_training_run", "read_training_run", "same_weights", "write_recipe"]

ORIGINS = ("init_from", "init_vae_from")
"""Keys of a run's configuration that are options of `lsgm train` and no part of its recipe."""


@dataclass(frozen=True)
class Training:
    """A training run and how to train it again."""

    folder: Path
    recipe: dict[str, Any]
    """The resolved configuration without `ORIGINS`."""
    argv: tuple[str, ...]
    """``lsgm train RECIPE --out OUT ...``; RECIPE is the run's own configuration where it is no more than a
    recipe, else the file that `write_recipe` writes."""
    needs_recipe: bool
    environment: dict[str, str]
    checks: list[Check]
    remarks: list[str]

    @property
    def missing(self) -> list[str]:
        """What is not here and without which the command cannot run."""
        return [check.text for check in self.checks if check.state == "missing"]

    @property
    def shell(self) -> str:
        """The command for a shell."""
        words = [f"{name}={value}" for name, value in self.environment.items()]
        line = " ".join([*words, shlex.join(self.argv)])
        if not self.needs_recipe:
            return line
        # Keys above all tables: what remains is the recipe.
        config, recipe = shlex.quote(str(self.folder / "config.toml")), shlex.quote(self.argv[2])
        return f"grep -v '^init_' {config} > {recipe} && {line}"


def is_training_run(place: Path) -> bool:
    """Say whether a folder is one of a training run."""
    return (place / "config.toml").is_file() and (place / "manifest.json").is_file()


def read_training_run(folder: Path, out: Path, device: str = "") -> Training:
    """Return how to train a run again, into ``out``. Raises DataError where its files cannot be read."""
    try:
        config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
        manifest = json.loads((folder / "manifest.json").read_bytes())
        versions, data = dict(manifest["versions"]), dict(manifest["dataset"])
        hardware, resumed = dict(manifest["hardware"]), list(manifest.get("resumed", []))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no complete training run ({error}); restore it from a copy") from None
    origins = {key: str(config[key]) for key in ORIGINS if config.get(key)}
    recipe = {key: value for key, value in config.items() if key not in ORIGINS}
    file = out.with_name(f"{out.name}.toml") if origins else folder / "config.toml"
    options = [part for key, value in origins.items() for part in (f"--{key.replace('_', '-')}", value)]
    options += ["--device", device] if device else []
    remarks = [f"it was resumed {len(resumed)} times, which changes no weight"] if resumed else []
    if by_time := [
        name for name, stage in recipe.items() if isinstance(stage, dict) and stage.get("seconds")
    ]:
        remarks.append(
            f"{' and '.join(by_time)} ends after seconds of training: other machines take other steps"
        )
    images = f"{data.get('name')}@{data.get('version')}, sha256 {str(data.get('sha256'))[:12]}"
    machine = ", ".join(f"{hardware.get(key)} {key}" for key in ("cores", "threads", "processes"))
    return Training(
        folder,
        recipe,
        ("lsgm", "train", _path(file), "--out", str(out), *options),
        bool(origins),
        thread_setting(threads) if isinstance(threads := hardware.get("threads"), int) else {},
        [
            check_code(manifest.get("git_revision"), git_revision()),
            check_versions(versions),
            *(_origin(Path(origin)) for origin in origins.values()),
            Check("data", "unknown", f"{images}: compare with `lsgm data ls`"),
            Check("hardware", "unknown", f"trained with {machine}"),
        ],
        remarks,
    )


def _origin(place: Path) -> Check:
    """Say whether the run is still there that another one was begun from."""
    found = newest_checkpoint(place)
    if found is None:
        return Check("weights", "missing", f"it was begun from {place}, which holds no checkpoint here")
    said = f"it was begun from {place}, now at {found.name}, whose checksum was not recorded"
    return Check("weights", "unknown", said)


def write_recipe(training: Training) -> None:
    """Write the recipe that the command reads, where it is not the run's own configuration."""
    if training.needs_recipe:
        path = Path(training.argv[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomli_w.dumps(training.recipe), encoding="utf-8")


def same_weights(folder: Path, out: Path) -> tuple[bool, str]:
    """Return whether the newest averaged weights of two runs are the same, and a sentence."""
    ends = [newest_checkpoint(place) for place in (folder, out)]
    if ends[0] is None or ends[1] is None:
        return False, f"{folder if ends[0] is None else out} holds no checkpoint to compare"
    if ends[0].name != ends[1].name:
        return False, f"trained to {ends[1].name}, and the run went to {ends[0].name}"
    first, second = (weights_sha256(end) for end in ends if end is not None)
    if first is not None and first == second:
        return True, f"equal to the last bit: {ends[0].name} has weights of sha256 {first[:12]} in both"
    return False, (
        f"the weights of {ends[0].name} differ: they are the same only on the same code, versions, processor "
        "and threads; `lsgm compare` tells whether what they measure does"
    )


def _path(file: Path) -> str:
    """Return a path that `lsgm train` cannot take for the name of a recipe."""
    return str(file) if "/" in str(file) or file.suffix == ".toml" else f"./{file}"
