"""What is said beside results: the levels of commands, and nothing from a library that nobody asked."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsgm import cli
from lsgm.files.regular import open_regular
from lsgm.logs import log, speaking
from lsgm.progress import say, silent, warn

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "glyphs-vae"


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return what runs a command line of a command that says something at every level, and its words."""

    def run(*line: str) -> list[str]:
        heard: list[str] = []

        def command(argv: list[str]) -> int:
            heard.extend(argv)
            log.debug("details")
            say("a sentence")
            warn("a warning")
            heard.append("silent" if silent() else "bars")
            return 0

        point = SimpleNamespace(value="lsgm.commands.ls", load=lambda: SimpleNamespace(run=command))
        with monkeypatch.context() as patch:
            patch.setattr(cli, "offers", lambda group: {"probe": point})
            patch.delenv("LSGM_PROGRESS", raising=False)
            assert cli.main(line) == 0
        return heard

    return run


@pytest.mark.parametrize(
    ("line", "said", "words"),
    [
        (["probe", "x"], ["a sentence", "a warning"], ["x", "bars"]),
        (["-q", "probe", "x"], ["a warning"], ["x", "silent"]),
        (["probe", "x", "-q"], ["a warning"], ["x", "silent"]),
        (["probe", "-v", "x"], ["s: details", "a sentence", "a warning"], ["x", "bars"]),
        (["probe", "--", "-q"], ["a sentence", "a warning"], ["--", "-q", "bars"]),
    ],
)
def test_a_command_says_what_its_words_ask_for(
    line: list[str],
    said: list[str],
    words: list[str],
    probe: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert probe(*line) == words
    lines = capsys.readouterr().err.splitlines()
    assert all(text.startswith("lsgm: ") for text in lines)
    assert [text.endswith(end) for text, end in zip(lines, said, strict=True)] == [True] * len(said)


@pytest.mark.parametrize(("level", "count"), [("debug", 3), ("INFO", 2), ("warning", 1), ("error", 0)])
def test_the_variable_sets_the_level_and_words_set_another(
    level: str,
    count: int,
    probe: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LSGM_LOG", level)
    probe("probe")
    assert len(capsys.readouterr().err.splitlines()) == count
    probe("probe", "-v")
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_what_makes_no_sense_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ls", "-q", "-v"]) == 2
    assert capsys.readouterr().err == "lsgm: -q and -v contradict each other; give one of them\n"
    monkeypatch.setenv("LSGM_LOG", "debugg")
    assert cli.main(["ls"]) == 2
    assert capsys.readouterr().err == "lsgm: LSGM_LOG is 'debugg', which is no level; did you mean 'debug'?\n"


def test_a_command_within_a_command_speaks_as_the_outer_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(argv: list[str]) -> int:
        say(f"within, {argv}")
        warn("a warning")
        return cli.main(["probe"]) if argv else 0

    point = SimpleNamespace(value="lsgm.commands.ls", load=lambda: SimpleNamespace(run=command))
    monkeypatch.setattr(cli, "offers", lambda group: {"probe": point})
    assert cli.main(["probe", "-q", "again"]) == 0
    assert capsys.readouterr().err == "lsgm: a warning\n" * 2
    assert "LSGM_LOG" not in os.environ


def test_of_a_folder_of_many_files_a_few_are_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(8):
        (tmp_path / str(k)).write_text("x")
    log.setLevel(logging.DEBUG)
    try:
        for k in [0, 0, *range(8)]:
            open_regular(tmp_path / str(k)).close()
    finally:
        log.setLevel(logging.INFO)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" s: ")[2] for line in lines] == [
        *(f"read: {tmp_path / str(k)} (1 bytes)" for k in range(5)),
        f"read: further files of {tmp_path}, which are not named",
    ]


def test_errors_are_said_at_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-q", "trian"]) == 2
    assert capsys.readouterr().err == "lsgm: there is no command 'trian'; did you mean 'train'?\n"


def test_details_say_which_files_are_read_and_when(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "drawn.npz")]
    assert cli.main(["sample", "-v", str(CHECKPOINT), "--n", "1", *out, "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert f"read: {CHECKPOINT / 'ema.safetensors'} (" in said
    assert "s: model glyphs-vae: ema weights of" in said


def test_afterwards_everything_is_as_it_was(probe: Callable[..., list[str]]) -> None:
    before = (log.level, log.propagate, list(log.handlers))
    probe("probe", "-v")
    assert (log.level, log.propagate, list(log.handlers)) == before


LIBRARY = """
import logging, sys
import lsgm.logs, lsgm.progress, lsgm.trackers
from lsgm.logs import log
assert [type(handler).__name__ for handler in log.handlers] == ["NullHandler"]
assert not logging.root.handlers and log.level == logging.NOTSET and log.propagate
assert not lsgm.progress.silent()
lsgm.progress.warn("nobody listens")
logging.basicConfig(level=logging.INFO, format="%(name)s|%(levelname)s|%(message)s")
lsgm.progress.say("somebody listens")
log.setLevel(logging.WARNING)
assert lsgm.progress.silent()
"""


def test_a_library_configures_nothing_and_an_application_decides() -> None:
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("LSGM_")}
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY],
        capture_output=True,
        text=True,
        env=surroundings | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, "lsgm|INFO|somebody listens\n")


def test_a_handler_of_the_root_prints_nothing_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with speaking():
            say("once")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().err == "lsgm: once\n"


def test_no_code_says_anything_but_by_the_logger() -> None:
    sources = [
        path for home in ("lsgm", "eval", "baselines", "reports") for path in (ROOT / home).rglob("*.py")
    ]
    printing = {path.name for path in sources if "file=sys.stderr" in path.read_text(encoding="utf-8")}
    # The handler itself, and lines that begin with a dollar.
    assert printing == {"logs.py", "steps.py"}
