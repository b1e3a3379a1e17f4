"""Where the very weights of a number lie, told by checksums and files, without torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lsgm.errors import DataError, UserError
from lsgm.files.limits import WEIGHTS
from lsgm.files.names import shown
from lsgm.files.regular import open_regular
from lsgm.files.text import read_table
from lsgm.hub import COMMIT, HubName, hub_name
from lsgm.results.manifest import MeasuredModel


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and whether it does."""

    subject: str
    state: Literal["ok", "differs", "missing", "unknown"]
    """``unknown`` where only measuring can tell."""
    text: str

    @property
    def line(self) -> str:
        """One line for a terminal."""
        return f"  {self.state:<8} {self.subject:<9} {self.text}"


def locate(model: MeasuredModel, directory: Path, places: Sequence[Path]) -> tuple[str | None, Check]:
    """Return what to write for a model on a command line, and how sure it is that it is the same one.

    It is looked for where it was, then below ``places`` by the checksum of its weights; None stands for one
    that is not found. The word that named it is kept where it leads there from ``directory``; another may
    name something else. A run that was trained further still holds what it was measured with as one of its
    checkpoints, unless that was removed. Ready images and factories are named as they were: their checksum is
    seen when measured.
    """
    name, sha256 = model.name, model.sha256
    was = Path(model.path) if model.path is not None else None
    if (on_hub := hub_name(model.spec.rpartition("=")[2])) is not None:
        return _on_hub(model, on_hub, was)
    if was is None and ":" in model.spec:
        said = f"{name} is made by {model.spec.rpartition('=')[2]}"
        return model.spec, Check("weights", "unknown", said)
    here = was is not None and os.path.exists(was)
    if was is not None and here and not _checkpoints(was):
        said = f"{name} is {was}: its images are checked when measured"
        return _word(model, was, directory), Check("weights", "unknown", said)
    if sha256 is None:
        return None, Check("weights", "missing", f"nothing says which weights {name} had")
    if was is not None and (found := find_weights(sha256, [was])) is not None:
        newest = found == _checkpoints(was)[-1]
        said = f"{name} is {was if newest else found}, sha256 {sha256[:12]}"
        word = _word(model, was, directory) if newest else _named(name, found)
        return word, Check("weights", "ok", said)
    if (found := find_weights(sha256, [_place_of(model.spec, directory), *places])) is not None:
        return _named(name, found), Check("weights", "ok", f"{name} is {found} now, sha256 {sha256[:12]}")
    there = f"{was} has others" if here else f"not at {was}" if was else "nowhere"
    return None, Check("weights", "missing", f"{name} with weights of sha256 {sha256[:12]}: {there}")


def _on_hub(model: MeasuredModel, asked: HubName, was: Path | None) -> tuple[str, Check]:
    """Return what to write for a model of the Hub: at its commit, by which its folder was called."""
    commit = was.name if was is not None and was.parent.name == "snapshots" else ""
    there = HubName(asked.repo, commit) if COMMIT.fullmatch(commit) else asked
    here = was is not None and model.sha256 is not None and find_weights(model.sha256, [was]) is not None
    said = f"{model.name} is {there}"
    said += f", sha256 {model.sha256[:12]}" if here and model.sha256 else ": it is checked when measured"
    word = str(there) if "/" in model.name or "=" in model.name else f"{model.name}={there}"
    return word, Check("weights", "ok" if here else "unknown", said)


def _word(model: MeasuredModel, place: Path, directory: Path) -> str:
    """Return the word of a model at a place: as it was, where that means this place in ``directory``."""
    same = os.path.realpath(_place_of(model.spec, directory)) == os.path.realpath(place)
    return model.spec if same else _named(model.name, place)


def _place_of(spec: str, directory: Path) -> Path:
    """Return the place of ``PLACE`` or ``NAME=PLACE``, as `lsgm_eval.models` reads it."""
    name, equals, rest = spec.partition("=")
    named = equals and "/" not in name and not os.path.exists(directory / spec)
    return directory / os.path.expanduser(rest if named else spec)


def find_weights(sha256: str, places: Sequence[Path]) -> Path | None:
    """Return the first checkpoint, at or below ``places``, whose averaged weights have this checksum.

    The file itself is hashed, not only what lies beside it asked.
    """
    for place in places:
        for checkpoint in reversed(_checkpoints(place)):
            try:
                state = read_table(checkpoint / "state.json")
                recorded = state["files"][_weights_file(state)]["sha256"]
            except (UserError, KeyError, TypeError):
                continue
            if recorded == sha256 and _weights_sha256(checkpoint) == sha256:
                return checkpoint
    return None


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint of a run, or the checkpoint that a folder is; None where there is none."""
    found = _checkpoints(run)
    return found[-1] if found else None


def _checkpoints(place: Path) -> list[Path]:
    return sorted(set(_found(place))) if os.path.isdir(place) else []


def _found(place: Path) -> Iterator[Path]:
    if os.path.isfile(place / "state.json"):
        yield place
        return
    try:
        for depth in ("", "*/", "*/*/"):
            for file in place.glob(f"{depth}state.json"):
                yield file.parent
            for file in place.glob(f"{depth}checkpoints/*/state.json"):
                yield file.parent
    except OSError as error:
        raise DataError(
            f"{shown(str(place))} cannot be looked through ({error.strerror}); make it readable"
        ) from error


def _weights_file(state: Mapping[str, Any]) -> str:
    """Return the file of averaged weights, as `lsgm.runs.checkpoint.weights_file` knows it."""
    exported = "exported" in state and "ema.safetensors" not in state["files"]
    return "model.safetensors" if exported else "ema.safetensors"


def _weights_sha256(checkpoint: Path) -> str | None:
    """Return the sha256 of a checkpoint's averaged weights, None where they cannot be read."""
    try:
        path = checkpoint / _weights_file(read_table(checkpoint / "state.json"))
        about = os.stat(path)
        return _sha256(path, about.st_size, about.st_mtime_ns)
    except (UserError, OSError, KeyError, TypeError):
        return None


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, modified: int) -> str:
    """Return a file's sha256, found once while it stays as it is: many models may name one file."""
    WEIGHTS.hold(path, size)
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(name: str, path: Path) -> str:
    """Return ``NAME=PATH``, with a path that holds in every working directory."""
    return str(path.absolute()) if "/" in name or "=" in name else f"{name}={path.absolute()}"


def same_weights(folder: Path, out: Path) -> tuple[bool, str]:
    """Return whether the newest averaged weights of two runs are the same, and a sentence."""
    ends = [newest_checkpoint(place) for place in (folder, out)]
    if ends[0] is None or ends[1] is None:
        return False, f"{folder if ends[0] is None else out} holds no checkpoint to compare"
    if ends[0].name != ends[1].name:
        return False, f"trained to {ends[1].name}, and the run went to {ends[0].name}"
    first, second = (_weights_sha256(end) for end in ends if end is not None)
    if first is None or second is None:
        unread = ends[0] if first is None else ends[1]
        return False, f"the weights of {unread} cannot be read, and so not compared"
    if first == second:
        return True, f"equal to the last bit: {ends[0].name} has weights of sha256 {first[:12]} in both"
    return False, (
        f"the weights of {ends[0].name} differ: they are the same only on the same code, versions, processor "
        "and threads; `lsgm compare` tells whether what they measure does"
    )
