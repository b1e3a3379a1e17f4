"""Scripts of completion, each in its shell: what a tab would show after some words."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from lsgm.cli import main
from lsgm.completion import Place, survey
from lsgm.discovery import offers, source_file
from lsgm.logs import WORDS


@pytest.fixture(scope="module")
def places() -> dict[str, Place]:
    """What is known of every command."""
    return survey()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what prints the script for a shell into a file."""

    def made(shell: str) -> Path:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not here")
        path = tmp_path_factory.mktemp("completion") / f"lsgm.{shell}"
        with redirect_stdout(said := io.StringIO()):
            assert main(["--print-completion", shell]) == 0
        path.write_text(said.getvalue())
        return path

    return made


def answer(shell: list[str], code: str, folder: Path) -> list[str]:
    done = subprocess.run([*shell, "-c", code], capture_output=True, text=True, cwd=folder, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


TABS = [
    ("lsgm|tr", {"train"}),
    ("lsgm|-q|eval|gly", {"glyphs"}),
    ("lsgm|data|", {"ls", "fetch", "verify"}),
    ("lsgm|data|fetch|--t", {"--to"}),
    ("lsgm|train|glyphs|--stage1.vae.lr", {"--stage1.vae.lr", "--stage1.vae.lr-min"}),
    ("lsgm|eval|glyphs|--only|n", {"nelbo"}),
    ("lsgm|import|nvlabs|--ref", {"--reference-compat"}),
    ("lsgm|--print-completion|", {"bash", "zsh", "tcsh"}),
]


def test_bash_shows_commands_options_and_values(script: Callable[[str], Path], tmp_path: Path) -> None:
    path = script("bash")
    (tmp_path / "mine.toml").touch()
    lines = [f"source {path}", "complete -p lsgm"]
    tabs = [*(line for line, _ in TABS), "lsgm|eval|glyphs|--only|=|n", "lsgm|train|mine"]
    for line in tabs:
        words = " ".join(f"'{word}'" for word in line.split("|"))
        lines += [f"COMP_WORDS=({words})", "COMP_CWORD=$((${#COMP_WORDS[@]}-1))", "_lsgm"]
        lines.append('echo "${COMPREPLY[@]}" "|"')
    said = " ".join(answer(["bash", "--norc"], "\n".join(lines), tmp_path))
    rule, _, rest = said.partition("-F _lsgm lsgm")
    assert rule == "complete -o bashdefault -o default "
    # Nothing of ours is a file's name, of which bash then thinks by itself.
    shown = [set(part.split()) for part in rest.split("|")[:-1]]
    assert shown == [*(expected for _, expected in TABS), {"nelbo"}, set()]


STUBS = """
compdef() { :; }
_files() { print FILES; }
_describe() { local name=${@[-1]}; print -l -- ${${(P)name}%%:*}; }
"""


def test_zsh_shows_the_same_and_files(script: Callable[[str], Path], tmp_path: Path) -> None:
    path = script("zsh")
    lines = [STUBS, f"source {path}"]
    tabs = [(line, expected) for line, expected in TABS if "=" not in line]
    for line, _ in [*tabs, ("lsgm|sample|run", {})]:
        words = " ".join(f"'{word}'" for word in line.split("|"))
        lines += [f"words=({words}); CURRENT=$#words; PREFIX=$words[-1]", "_lsgm", "print -- '|'"]
    parts = " ".join(answer(["zsh", "-f"], "\n".join(lines), tmp_path)).split("|")
    for (_, expected), part in zip(tabs, parts, strict=False):
        assert expected <= set(part.split())
    assert parts[len(tabs)].split() == ["FILES"]


def test_tcsh_takes_the_rules(script: Callable[[str], Path], tmp_path: Path) -> None:
    said = answer(["tcsh", "-f"], f"source {script('tcsh')}; complete lsgm", tmp_path)
    assert any(word.startswith("'p/1/(ablate") for word in said)


def test_every_command_has_its_place_and_none_has_the_words_of_all(places: dict[str, Place]) -> None:
    assert set(places[""].words) == set(offers("lsgm.commands"))
    known = {name for name, point in offers("lsgm.commands").items() if source_file(point.value)}
    assert known <= set(places)
    assert {"data verify", "bench train", "bench coverage", "import diffusers"} <= set(places)
    for key, place in places.items():
        assert place.words or set(place.options) - {"-h", "--help", *WORDS}, f"{key} has no options"


def test_a_shell_that_is_not_known_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "bsh"]) == 2
    assert capsys.readouterr().err == "lsgm: --print-completion takes one word; did you mean 'bash'?\n"
    assert main(["--print-completion"]) == 2
    assert capsys.readouterr().err == "lsgm: --print-completion takes one word; give bash, zsh or tcsh\n"
