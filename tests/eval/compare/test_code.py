"""The way from one revision to another, in a clone of three commits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lsgm_eval.compare.facts import MOST, span

ABSENT = "f" * 40


def commit(clone: Path, message: str, **files: str) -> str:
    def git(*words: str) -> str:
        command = ["git", "-C", str(clone), "-c", "user.name=A", "-c", "user.email=a@b", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    for name, text in files.items():
        place = clone / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    git("add", ".")
    git("commit", "--allow-empty", "-qm", message)
    return git("rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def test_commits_and_files_between_two_revisions_are_listed(clone: Path) -> None:
    first = commit(clone, "Begin", lsgm__sde="1\n", notes="a\n")
    commit(clone, "Change the SDE", lsgm__sde="2\n3\n")
    last = commit(clone, "Change the notes", notes="b\n")
    found = span(first, last, clone / "lsgm")
    assert [line.split(" ", 1)[1] for line in found.commits] == ["Change the notes", "Change the SDE"]
    assert "lsgm/sde | 3 ++-" in " ".join("\n".join(found.stat).split())
    assert "notes" not in "\n".join(found.stat)
    assert found.said == f"from {first[:12]} to {last[:12]}: 2 commits of B not in A"
    back = span(last, first, clone)
    assert back.commits == ()
    assert "0 commits of B not in A, 2 commits of A not in B" in back.said


def test_a_change_outside_the_packages_is_said_to_touch_none(clone: Path) -> None:
    first, last = (commit(clone, text, notes=text) for text in ("one", "two"))
    assert span(first, last, clone).said.endswith(
        "1 commit of B not in A; no file of the four packages differs"
    )


def test_uncommitted_changes_are_owned_up_to(clone: Path) -> None:
    only = commit(clone, "Begin", lsgm__sde="1")
    said = span(f"{only}-dirty", f"{only}+dirty", clone).said
    assert said == f"both are at {only[:12]}; changes that A and B had not committed are not in git"


def test_a_long_way_is_cut_and_counted(clone: Path) -> None:
    first = commit(clone, "Begin", lsgm__sde="1")
    last = [commit(clone, f"Step {k}") for k in range(MOST + 2)][-1]
    found = span(first, last, clone)
    assert len(found.commits) == MOST + 1
    assert found.commits[-1] == "... and 2 more"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (None, None, "neither run names a git revision"),
        (ABSENT, None, "run B names no git revision"),
        (None, ABSENT, "run A names no git revision"),
        (ABSENT, "0" * 40, "which are not both in a clone at hand"),
        ("--output=x", ABSENT, "which are not both in a clone at hand"),
    ],
)
def test_what_no_clone_knows_is_said(clone: Path, a: str | None, b: str | None, said: str) -> None:
    found = span(a, b, clone)
    assert said in found.said
    assert found.commits == found.stat == ()


def test_outside_of_a_clone_there_is_nothing_to_list(tmp_path: Path) -> None:
    assert "not both in a clone" in span(ABSENT, "0" * 40, tmp_path).said
