"""What the fuzzing test would not forgive: each misdeed of a command is seen."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import readers, sandbox
from fuzz.sandbox import Case, Edit, Outcome, build, judge
from lsgm.errors import DataError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="every input runs in a forked process")


def _refuse(path: Path) -> None:
    raise DataError("it is damaged; get it again")


def _fail(path: Path) -> None:
    raise KeyError("seeds")


def _crash(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang(path: Path) -> None:
    time.sleep(60)


def _write_outside(path: Path) -> None:
    Path("../beside/victim").write_text("changed")


def _write_through(path: Path) -> None:
    path.write_text("changed")


def _execute(path: Path) -> None:
    exec((path.parent / "evil.py").read_text(), {"__file__": str(path.parent / "evil.py")})


def _import(path: Path) -> None:
    sys.path.insert(0, str(path.parent.resolve()))
    __import__("evil")


def _leave(path: Path) -> None:
    (path.parent / "out").mkdir()
    (path.parent / "out" / ".tmp-x").touch()


def _start(path: Path) -> None:
    subprocess.run(["true"], check=True)


def _call(path: Path) -> None:
    socket.getaddrinfo("localhost", 9)


def _colour(path: Path) -> None:
    os.write(1, b"\x1b[31mred")


def _swell(path: Path) -> None:
    held = bytearray(2**28)
    held[:: 2**12] = bytes(len(held[:: 2**12]))


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a function on a file as if it were a command."""

    def judge_it(deed: Callable[[Path], None], place: str = "", seconds: float = 20.0) -> Outcome:
        monkeypatch.setitem(readers.READERS, "deed", deed)
        edits = [Edit("file", b"content")] + [Edit("file", place=place)] * bool(place)
        case = Case("a kind", (), tuple(edits), ("call:deed", "file"), ("out",))
        return judge(case, build(case, {}, tmp_path / "base"), seconds)

    return judge_it


def test_a_result_and_a_sentence_are_what_they_are(judged: Callable[..., Outcome], tmp_path: Path) -> None:
    assert judged(lambda path: None).verdict == "result"
    (tmp_path / "base").rename(tmp_path / "first")
    outcome = judged(_refuse)
    assert (outcome.verdict, outcome.said) == ("sentence", "it is damaged; get it again")


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (_fail, "KeyError: 'seeds'"),
        (_crash, "SIGSEGV"),
        (_write_outside, "CHANGED beside/victim"),
        (_execute, "EXECUTED"),
        (_import, "RAN "),
        (_leave, "left here/out/.tmp-x"),
        (_start, "subprocess.Popen of 'true'"),
        (_call, "socket.getaddrinfo"),
        (_colour, "control characters"),
    ],
)
def test_a_misdeed_is_a_failure_and_is_named(
    judged: Callable[..., Outcome], deed: Callable[[Path], None], words: str
) -> None:
    outcome = judged(deed)
    assert outcome.verdict == "failure"
    assert words in " ".join([outcome.said, *outcome.wrong])


def test_more_memory_than_a_command_may_take_is_a_failure(
    judged: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MEMORY", 2**27)
    outcome = judged(_swell)
    assert outcome.verdict == "failure"
    assert "took 0.2 GiB" in " ".join(outcome.wrong) or "took 0.3 GiB" in " ".join(outcome.wrong)


def test_a_command_without_an_end_is_stopped(judged: Callable[..., Outcome]) -> None:
    outcome = judged(_hang, seconds=0.5)
    assert outcome.verdict == "failure"
    assert "no end within" in outcome.said


def test_what_is_written_through_a_link_is_seen(judged: Callable[..., Outcome]) -> None:
    outcome = judged(_write_through, "link out")
    assert outcome.verdict == "failure"
    assert "moved-file" in " ".join(outcome.wrong)
