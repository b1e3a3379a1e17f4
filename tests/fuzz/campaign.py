"""Many inputs: drawn kind by kind from a seed, each judged, and kept as files where they fail."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

import fuzz.foreign  # noqa: F401  it offers parts of the world
from fuzz.kind import Kind
from fuzz.kinds import KINDS, cases
from fuzz.sandbox import Case, Edit, Outcome, build, judge, warm
from fuzz.specimens import make_world

__all__ = ["BATCH", "Found", "drawn", "repeat", "run", "valid", "world_of"]

BATCH = 10
"""Inputs of a kind that come from one seed of Hypothesis."""

DEAR = ("matplotlib.pyplot", "scipy.stats", "torch.export", "diffusers.models", "lsgm.train.loop")
"""What takes seconds to import, and is imported once for the valid files and the inputs."""

Found = dict[str, Any]
"""What is known of one input: kind, seed, number, words, verdict, said, wrong, seconds, memory."""


def drawn(kind: Kind, world: Mapping[str, Path], number: int, count: int) -> list[Case]:
    """Return ``count`` inputs of a kind; the same of a seed, whatever else is drawn."""
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(kind, world))
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return [replace(case, number=k) for k, case in enumerate(found[:count])]


def world_of(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Write the valid files of some kinds, in a process that ends: threads do not live through a fork."""
    for module in DEAR:
        importlib.import_module(module)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sorted({part for name in names for part in KINDS[name].parts})
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(folder)
            os.environ.update(
                LSGM_CACHE=str(folder.with_name("world-cache")),
                LSGM_PROGRESS="0",
                LSGM_DATA=str(folder / "data"),
            )
            with (
                Path("../made.txt").open("w") as said,
                contextlib.redirect_stdout(said),
                contextlib.redirect_stderr(said),
            ):
                made = make_world(folder, wanted)
            Path("../parts.json").write_text(json.dumps({name: str(path) for name, path in made.items()}))
            Path("../modules.json").write_text(json.dumps(sorted(sys.modules)))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(
            f"the valid files could not be written; {folder.parent}/made.txt says how far it came"
        )
    warm(Outcome("result", "", modules=tuple(json.loads((folder.parent / "modules.json").read_text()))))
    return {name: Path(path) for name, path in json.loads((folder.parent / "parts.json").read_text()).items()}


def valid(world: Mapping[str, Path], names: Sequence[str], scratch: Path) -> list[Found]:
    """Run every command of the kinds on the valid files; return those that do not end in a result."""
    bad = []
    for name in names:
        for command in dict.fromkeys(KINDS[name].commands):
            found = _judged(
                Case(name, KINDS[name].parts, (), tuple(command.split()), KINDS[name].outs), world, scratch
            )
            if found["verdict"] != "result":
                bad.append(found)
    return bad


def _judged(case: Case, world: Mapping[str, Path], scratch: Path) -> Found:
    base = Path(tempfile.mkdtemp(dir=scratch, prefix="input-"))
    try:
        outcome = judge(case, build(case, world, base, KINDS[case.kind].seal))
        if outcome.modules:
            warm(outcome)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    told = {key: value for key, value in asdict(outcome).items() if key != "modules"}
    return {"kind": case.kind, "words": list(case.words), **told}


def run(
    world: Mapping[str, Path],
    plan: Sequence[tuple[str, int, int]],
    scratch: Path,
    keep: Path | None = None,
) -> Iterator[Found]:
    """Yield what came of the inputs of ``plan``: kind, seed and number of them."""
    # A search for garbage in a child would have it copy every page that it shares with this process.
    gc.collect()
    gc.freeze()
    for name, number, count in plan:
        for case in drawn(KINDS[name], world, number, count):
            found = {**_judged(case, world, scratch), "seed": number, "number": case.number}
            if found["verdict"] == "failure" and keep is not None:
                found["kept"] = str(_kept(case, found, keep))
            yield found


def _kept(case: Case, found: Found, keep: Path) -> Path:
    """Write an input that failed, so that it can be run again; return its folder."""
    folder = keep / f"{case.kind.replace(' ', '-')}-{found['seed']}-{case.number}"
    folder.mkdir(parents=True, exist_ok=True)
    edits = []
    for k, edit in enumerate(case.edits):
        if edit.content is not None:
            (folder / f"{k}-{Path(edit.path).name}").write_bytes(edit.content)
        edits.append(
            {
                "path": edit.path,
                "place": edit.place,
                "file": None if edit.content is None else f"{k}-{Path(edit.path).name}",
            }
        )
    told = {"kind": case.kind, "words": list(case.words), "sealed": case.sealed, "edits": edits}
    (folder / "case.json").write_text(json.dumps(told, indent=1))
    said = [f"lsgm {shlex.join(case.words)}", *found["wrong"], found["said"]]
    (folder / "said.txt").write_text("\n".join(said) + "\n", errors="backslashreplace")
    return folder


def repeat(folder: Path, world: Mapping[str, Path], scratch: Path) -> Found:
    """Run a kept input again."""
    told = json.loads((folder / "case.json").read_text())
    edits = tuple(
        Edit(edit["path"], (folder / edit["file"]).read_bytes() if edit["file"] else None, edit["place"])
        for edit in told["edits"]
    )
    kind = KINDS[told["kind"]]
    return _judged(
        Case(kind.name, kind.parts, edits, tuple(told["words"]), kind.outs, told["sealed"]), world, scratch
    )
