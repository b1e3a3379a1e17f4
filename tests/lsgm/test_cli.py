"""The command line: cheap to ask for help, one line for what is wrong, quiet when a pipe closes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsgm import __version__, cli
from lsgm.discovery import help_line, offers, source_file
from lsgm.errors import DataError

HEAVY = ("torch", "numpy", "pandas", "matplotlib", "scipy")


def loaded_by(code: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter holds after running the code."""
    script = f"{code}\nimport sys; print('MODULES', *sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(out.rsplit("MODULES", 1)[1].split())


def test_the_list_of_commands_is_printed_without_importing_any_of_them() -> None:
    modules = loaded_by("from lsgm.cli import main; main(['--help'])")
    assert not modules & {*HEAVY, "tyro", "lsgm_eval", "lsgm_baselines", "lsgm_reports"}
    assert not [name for name in modules if name.startswith("lsgm.commands")]


@pytest.mark.parametrize("name", sorted(offers("lsgm.commands")))
def test_the_help_of_every_command_costs_no_torch(name: str) -> None:
    code = f"""
from lsgm.cli import main
try:
    main(['{name}', '--help'])
except SystemExit as leaving:
    assert leaving.code == 0
"""
    assert not loaded_by(code) & set(HEAVY)


@pytest.mark.parametrize("name", sorted(offers("lsgm.commands")))
def test_every_command_has_one_line_of_help_readable_without_import(name: str) -> None:
    point = offers("lsgm.commands")[name]
    line = help_line(point.value)
    assert line == point.load().HELP
    assert line
    assert "\n" not in line


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == cli.main([]) == 0
    page = capsys.readouterr().out
    for name, point in offers("lsgm.commands").items():
        assert f"  {name} " in page
        assert help_line(point.value) in page


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lsgm {__version__}\n"


def with_command(monkeypatch: pytest.MonkeyPatch, run: Callable[[list[str]], int]) -> None:
    point = SimpleNamespace(value="lsgm.commands.ls", load=lambda: SimpleNamespace(run=run))
    monkeypatch.setattr(cli, "offers", lambda group: {"probe": point})


def test_an_unknown_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctr"]) == 2
    assert capsys.readouterr().err == "lsgm: there is no command 'doctr'; did you mean 'doctor'?\n"
    assert cli.main(["--zzz"]) == 2
    assert capsys.readouterr().err == "lsgm: there is no option '--zzz'; `lsgm --help` lists the commands\n"


def test_an_error_for_the_user_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str]) -> int:
        raise DataError(f"{argv[0]} is\ntruncated")

    with_command(monkeypatch, run)
    assert cli.main(["probe", "file"]) == 2
    assert capsys.readouterr().err == "lsgm: file is truncated\n"


def test_an_interrupt_leaves_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str]) -> int:
        raise KeyboardInterrupt

    with_command(monkeypatch, run)
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr().err == "lsgm: interrupted\n"


def test_the_status_of_a_command_is_the_status_of_lsgm(monkeypatch: pytest.MonkeyPatch) -> None:
    with_command(monkeypatch, lambda argv: 7)
    assert cli.main(["probe"]) == 7


def test_a_closed_pipe_is_no_error_message() -> None:
    # Far more than a pipe holds, so that writing meets the closed end.
    code = "import lsgm.cli as c, sys; c._PAGE = 'x' * 10**7; sys.exit(c.main([]))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "print('x')",
            "lsgm: standard output, or another file, cannot be used (No space left on device); make",
        ),
        ("print('x' * 10**6)", "lsgm: standard output, or another file, cannot be used (No space left"),
        ("print('x'); raise DataError('the clear one')", "lsgm: the clear one"),
        ("print('x'); raise KeyboardInterrupt", "lsgm: interrupted"),
    ],
)
def test_a_full_disk_behind_standard_output_is_one_sentence_and_hides_none(body: str, says: str) -> None:
    code = f"""
import sys
from types import SimpleNamespace
import lsgm.cli as cli
from lsgm.errors import DataError
def run(argv):
    {body}
    return 0
point = SimpleNamespace(value="x", load=lambda: SimpleNamespace(run=run))
cli.offers = lambda group: {{"probe": point}}
sys.exit(cli.main(["probe"]))
"""
    with Path("/dev/full").open("w") as full:
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, env=buffered
        )
    assert done.returncode == (130 if "interrupted" in says else 2)
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EACCES])
def test_what_a_disk_or_a_path_is_to_blame_for_is_a_sentence(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str]) -> int:
        raise OSError(number, os.strerror(number), "/mnt/file")

    with_command(monkeypatch, run)
    assert cli.main(["probe"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lsgm: /mnt/file cannot be used ({os.strerror(number)}); ")
    assert ("let this user reach it" in said) == (number == errno.EACCES)
    assert said.count("\n") == 1


def test_a_name_of_many_letters_is_told_in_a_sentence_that_a_terminal_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str]) -> int:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "a" * 100_000)

    with_command(monkeypatch, run)
    assert cli.main(["probe"]) == 2
    assert len(capsys.readouterr().err) < 2 * cli.LONGEST


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "this process has no more memory"),
        ("Unable to allocate 64.0 EiB for an array", "Unable to allocate 64.0 EiB for an array"),
    ],
)
def test_more_than_the_memory_holds_is_a_sentence(
    said: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str]) -> int:
        raise MemoryError(said)

    with_command(monkeypatch, run)
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == f"lsgm: {words}: ask for fewer images, or for fewer at a time\n"


def test_another_system_error_may_be_a_fault_of_the_program_which_is_asked_to_be_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str]) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with_command(monkeypatch, run)
    assert cli.main(["probe"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("lsgm: this should not have happened (OSError: [Errno 9] Bad file descriptor)")
    assert "please report it" in told


def test_a_sentence_of_any_length_is_clipped_and_its_ends_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str]) -> int:
        raise DataError(f"the file {'x' * 10**6} is damaged")

    with_command(monkeypatch, run)
    assert cli.main(["probe"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lsgm: the file xxx")
    assert said.endswith("xxx is damaged\n")
    assert len(said) < 5000


def test_orders_to_a_terminal_are_spelt_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str]) -> int:
        raise DataError("a\x1b[2J\u202eb\udcff is damaged")

    with_command(monkeypatch, run)
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == "lsgm: a\\x1b[2J\\u202eb\\xff is damaged\n"


def in_a_shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line that says where the output of ``$LSGM`` goes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        capture_output=True,
        text=True,
        env=environment | {"LSGM": f"{sys.executable} -m lsgm"},
        timeout=60,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        ("$LSGM ls samplers > /dev/full", 2, "standard output, or another file, cannot be used (No space"),
        ("$LSGM ls --help > /dev/full", 2, "standard output, or another file, cannot be used (No space"),
        ("$LSGM ls --help | head -c 1 > /dev/null", 141, ""),
        ("$LSGM nothing 2> /dev/full", 2, ""),
        ("$LSGM nothing 2>&-", 2, ""),
        ("$LSGM nothing >&- 2>&-", 2, ""),
        ("$LSGM ls samplers >&-", 0, ""),
        ("$LSGM ls samplers <&- >&- 2>&-", 0, ""),
    ],
)
def test_no_stream_that_is_full_closed_or_left_ends_in_a_traceback(line: str, status: int, says: str) -> None:
    # A page of help fits into a pipe, which may be left before or after it was written.
    done = in_a_shell(line)
    assert done.returncode in ({0, 141} if status == 141 else {status})
    assert done.stderr.startswith(f"lsgm: {says}" if says else "")
    assert done.stderr.count("\n") == bool(says)


def test_a_file_that_is_opened_never_takes_the_place_of_a_stream_that_was_closed(tmp_path: Path) -> None:
    code = "import lsgm.cli as cli, sys; cli._streams(); f = open(sys.argv[1], 'w'); sys.exit(f.fileno())"
    path = tmp_path / "weights"
    line = f"{sys.executable} -c {code!r} {path} <&- >&- 2>&-".replace(f"{code!r}", f'"{code}"')
    assert in_a_shell(line).returncode > 2


def test_names_that_are_no_utf8_are_printed_as_escapes(tmp_path: Path) -> None:
    code = "import os, sys, lsgm.cli as cli; cli._PAGE = os.fsdecode(b'caf\\xe9'); cli.main([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"caf\\udce9\n"


def test_a_source_file_is_found_without_importing_its_parents() -> None:
    assert source_file("lsgm.commands.ls") is not None
    assert source_file("lsgm.commands") is not None
    assert source_file("lsgm.commands.nothing") is None
    assert source_file("no_such_package.module") is None


def test_modules_of_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("ast", "typing", "tyro", "torch", "lsgm_eval"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    done = subprocess.run(
        [sys.executable, "-m", "lsgm", "ls", "commands"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout
    assert not mark.exists()
