"""One input: its folder, a process of its own for the command, and what is held against it.

A command ends well in a result (status 0, or 1 of the commands that judge) or in one `UserError`. It must not
run anything of the input, touch anything outside of what it may write to, leave temporary files, take 60
seconds or 2 GiB. Whatever else ends it, a signal too, is a failure.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.audit import watch
from fuzz.hostile import CANARY
from fuzz.places import put
from fuzz.readers import READERS
from fuzz.traces import changed, left, printed, shown_in, snapshot

__all__ = ["Case", "Edit", "Outcome", "build", "judge", "warm"]

SECONDS = 60.0
MEMORY = 2 * 2**30
LONGEST = 4_100
"""Characters of a sentence: more is a file's content, not a sentence."""


@dataclass(frozen=True)
class Edit:
    """A file with another content, or with something else in its place."""

    path: str
    """Below the folder of the input."""
    content: bytes | None = None
    place: str = ""


@dataclass(frozen=True)
class Case:
    """An input: parts of the world, what is changed in them, and the command that reads them."""

    kind: str
    parts: tuple[str, ...]
    edits: tuple[Edit, ...]
    words: tuple[str, ...]
    outs: tuple[str, ...]
    """What the command may write to, below the folder of the input."""
    sealed: bool = False
    """Whether the checksums beside the files are made right again."""
    number: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what is held against it."""

    verdict: str
    """result, sentence or failure"""
    said: str
    """The sentence, or the traceback of a failure."""
    wrong: tuple[str, ...] = ()
    seconds: float = 0.0
    memory: int = 0
    """Bytes by which the process grew."""
    modules: tuple[str, ...] = field(default=(), compare=False)


def build(case: Case, world: Mapping[str, Path], base: Path, seal: Any = None) -> Path:
    """Lay out an input below ``base`` and return the folder in which its command runs."""
    here, beside = base / "here", base / "beside"
    for folder in (here, beside, base / "cache", base / "tmp"):
        folder.mkdir(parents=True)
    (beside / "victim").write_text("a file outside")
    evil = (
        f"open(__file__.replace('{here.name}/evil.py', '{CANARY}').replace('hubconf.py', '{CANARY}'), 'w')\n"
    )
    for name in ("evil.py", "hubconf.py"):
        (here / name).write_text(f"import os\nopen({str(base / CANARY)!r}, 'w').close()\n" + evil)
    for part in case.parts:
        if part == "cache":
            shutil.copytree(world[part], base / "cache", dirs_exist_ok=True, symlinks=True)
        elif world[part].is_dir():
            shutil.copytree(world[part], here / world[part].name, symlinks=True)
        else:
            shutil.copyfile(world[part], here / world[part].name)
    for edit in case.edits:
        path = here / edit.path
        if edit.content is not None:
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(edit.content)
    if case.sealed and seal is not None:
        seal(here)
    for edit in case.edits:
        if edit.place:
            put(edit.place, here / edit.path, beside)
    return here


def judge(case: Case, here: Path, seconds: float = SECONDS) -> Outcome:
    """Run the command of an input that lies at ``here`` and return what it came to."""
    base = here.parent
    before = snapshot(base, case.outs)
    started = time.perf_counter()
    told, status = _in_child(case, here, seconds)
    took = time.perf_counter() - started
    wrong = list(told.get("wrong", ()))
    if told.get("verdict") is None:
        ended = (
            f"signal {signal.Signals(os.WTERMSIG(status)).name}"
            if os.WIFSIGNALED(status)
            else f"status {status}"
        )
        last = _tail(base / "stderr")
        told = {
            "verdict": "failure",
            "said": f"{'no end within' if took > seconds else 'died after'} {took:.1f} s ({ended}): {last}",
        }
    memory = int(told.get("memory", 0))
    if memory > MEMORY:
        wrong.append(f"took {memory / 2**30:.1f} GiB")
    wrong += changed(before, snapshot(base, case.outs))
    wrong += left(base)
    wrong += printed(base)
    if case.words[0] == "report":
        wrong += shown_in(here)
    if (base / CANARY).exists():
        wrong.append("EXECUTED something of the input")
    verdict = "failure" if wrong else told["verdict"]
    return Outcome(verdict, told.get("said", ""), tuple(wrong), took, memory, tuple(told.get("modules", ())))


def _in_child(case: Case, here: Path, seconds: float) -> tuple[dict[str, Any], int]:
    """Return what the child said of itself, nothing where it could not, and its status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.setpgid(0, 0)
            answer = _run(case, here)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = b""
    deadline = time.monotonic() + seconds
    while (rest := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reading], [], [], rest)
        piece = os.read(reading, 2**20) if ready else b""
        if not piece:
            break
        said += piece
    os.close(reading)
    # Whatever it started ends with it; of a process that has ended already a signal is not the cause.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    try:
        return json.loads(said), status
    except ValueError:
        return {}, status


def _run(case: Case, here: Path) -> dict[str, Any]:
    """Run a command in this process, which ends afterwards, and return what came of it."""
    base = here.parent
    os.chdir(here)
    os.environ.update(
        LSGM_CACHE=str(base / "cache"),
        LSGM_DATA=f"{here / 'data'}:{here / 'mirror'}",
        LSGM_PROGRESS="0",
        TMPDIR=str(base / "tmp"),
        HOME=str(base / "tmp"),
    )
    tempfile.tempdir = str(base / "tmp")
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(base / name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.enable(file=2)  # where a crash was is told with it
    modules = set(sys.modules)
    _limit()
    start = _memory("VmRSS")
    # Our own canaries lie where the command runs; they must not be importable by accident of the tests.
    sys.path[:] = [entry for entry in sys.path if entry not in ("", ".")]
    fonts = Path(os.environ.get("MPLCONFIGDIR", base / "tmp"))
    wrong = watch([base / "cache", base / "tmp", fonts, *(here / out for out in case.outs)], base)
    verdict, said = _dispatched(case.words)
    if len(said) > LONGEST and verdict == "sentence":
        wrong.append(f"a sentence of {len(said):,} characters")
        said = said[:LONGEST]
    if verdict == "sentence" and not said.strip():
        wrong.append("an empty sentence")
    if " object at 0x" in said and verdict == "sentence":
        wrong.append("a sentence that shows an object's address")
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    return {
        "verdict": verdict,
        "said": said[-6_000:].encode("utf-8", "backslashreplace").decode(),
        "memory": _memory("VmHWM") - start,
        "wrong": list(dict.fromkeys(wrong))[:20],
        "modules": sorted(set(sys.modules) - modules),
    }


def _dispatched(words: Sequence[str]) -> tuple[str, str]:
    from lsgm.cli import _dispatch, _sentence
    from lsgm.errors import UserError

    try:
        if words[0].startswith("call:"):
            READERS[words[0].removeprefix("call:")](Path(words[1]))
            return "result", ""
        status = _dispatch(list(words))
    except UserError as error:
        return "sentence", _sentence(error, words)
    except SystemExit as leaving:
        return ("failure", f"left with {leaving.code!r}") if leaving.code else ("result", "left")
    except BaseException:
        return "failure", traceback.format_exc()
    # `reproduce --run` runs a command by `lsgm.cli.main`, which prints the sentence.
    return ("result", f"status {status}") if status in (0, 1, 2) else ("failure", f"status {status}")


def _limit() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**30, 3 * 2**30))
    if room := _memory("VmSize"):
        resource.setrlimit(resource.RLIMIT_AS, (room + 6 * 2**30,) * 2)


def _memory(what: str) -> int:
    """Return a number of bytes of this process, as Linux tells it; 0 elsewhere."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(what)), 0)


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-1500:] if path.exists() else ""


def warm(outcome: Outcome) -> None:
    """Import here what a child had to import, so that its successors need not."""
    for name in outcome.modules:
        if name.split(".")[0] in ("evil", "hubconf", "__main__"):
            continue
        with contextlib.suppress(Exception):
            importlib.import_module(name)
