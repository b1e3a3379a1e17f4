"""The last resort: one sentence, the file in hand, and the traceback where it can be found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsgm import cli
from lsgm.cli import told
from lsgm.errors import DataError
from lsgm.files import write
from lsgm.files.limits import DOCUMENT
from lsgm.files.regular import read_bytes


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let a command read a file and then raise an error."""

    def make(error: BaseException) -> None:
        def run(argv: list[str]) -> int:
            for name in argv:
                read_bytes(name, DOCUMENT)
            raise error

        point = SimpleNamespace(value="x", load=lambda: SimpleNamespace(run=run))
        monkeypatch.setattr(cli, "offers", lambda group: {"probe": point})

    return make


Fails = Callable[[BaseException], None]


@pytest.mark.parametrize(
    "error", [RecursionError("too deep"), KeyError("step"), OverflowError(), ValueError("a\nb")]
)
def test_an_unforeseen_error_is_one_sentence_and_status_2(
    error: Exception, fails: Fails, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(error)
    (tmp_path / "state.json").write_text("{}")
    assert cli.main(["probe", str(tmp_path / "state.json")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert f"lsgm: this should not have happened ({type(error).__name__}" in said.err
    assert f"with {tmp_path / 'state.json'} in hand" in said.err
    (log,) = (own_cache / "logs").iterdir()
    assert said.err.endswith(f"the traceback is in {log}\n")
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_log_holds_the_traceback_the_command_and_the_file(
    fails: Fails, tmp_path: Path, own_cache: Path
) -> None:
    fails(KeyError("step"))
    odd = tmp_path / "sta te\n.json"
    odd.write_text("{}")
    cli.main(["probe", str(odd)])
    (log,) = (own_cache / "logs").iterdir()
    text = log.read_text()
    assert "Traceback (most recent call last):" in text
    assert "KeyError: 'step'" in text
    assert f"file in hand: {tmp_path}/sta te\\n.json\n" in text
    assert f"command: lsgm probe '{tmp_path}/sta te\\n.json'\n" in text
    assert re.match(r"lsgm \S+, Python 3\.\d+", text)


def test_faults_of_one_second_have_logs_of_their_own(own_cache: Path) -> None:
    for _ in range(3):
        told(KeyError(), ["probe"])
    assert len(list((own_cache / "logs").iterdir())) == 3


@pytest.mark.parametrize("kind", ["a file in its place", "no home", "a user that is none"])
def test_where_the_cache_cannot_be_written_the_log_is_a_temporary_file(
    kind: str, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if kind == "a file in its place":
        own_cache.write_text("x")
    elif kind == "no home":
        monkeypatch.delenv("LSGM_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", without_home)
    else:
        monkeypatch.setenv("LSGM_CACHE", "~nobody-of-this-name/cache")
    said = told(KeyError("step"), ["probe"])
    (log,) = tmp_path.glob("lsgm-*.log")
    assert said.endswith(f"; the traceback is in {log}")


def without_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_where_nothing_can_be_written_the_sentence_says_how_to_have_the_traceback(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own_cache.write_text("x")
    monkeypatch.setattr("tempfile.tempdir", str(own_cache))
    said = told(KeyError("step"), ["probe"])
    assert said.endswith("; LSGM_CACHE=DIR has its traceback kept there")
    assert capsys.readouterr().err == ""


def test_an_error_that_cannot_say_what_it_is_has_a_name(own_cache: Path) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert "(OddError)" in told(OddError(), [])


def test_a_cache_that_has_no_place_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(Exception, match=r"there is no folder for the cache .*; set LSGM_CACHE to one"):
        write.cache_dir()


def test_an_error_for_the_user_leaves_no_log(fails: Fails, own_cache: Path) -> None:
    fails(DataError("x is damaged"))
    assert cli.main(["probe"]) == 2
    assert not own_cache.exists()


@pytest.mark.parametrize("leaving", [SystemExit(3), KeyboardInterrupt()])
def test_leaving_is_no_fault(leaving: BaseException, fails: Fails, own_cache: Path) -> None:
    fails(leaving)
    if isinstance(leaving, SystemExit):
        with pytest.raises(SystemExit):
            cli.main(["probe"])
    else:
        assert cli.main(["probe"]) == 130
    assert not own_cache.exists()
