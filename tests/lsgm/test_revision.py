"""The commit that the code is at, and none where git does not know."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lsgm.runs import provenance
from lsgm.runs.provenance import git_revision


def test_it_is_a_commit_here_and_none_outside_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: object) -> str:
        raise subprocess.CalledProcessError(128, "git")

    git_revision.cache_clear()
    found = git_revision()
    assert found is None or len(found.removesuffix("+dirty")) == 40
    monkeypatch.setattr(provenance, "_git", fails)
    git_revision.cache_clear()
    assert git_revision() is None
    git_revision.cache_clear()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_asking_changes_nothing_in_a_repository(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    (tmp_path / "file").write_text("x")
    git("init")
    git("add", "file")
    os.utime(tmp_path / "file", (1, 1))  # now git would note the new date in its index
    index = (tmp_path / ".git" / "index").read_bytes()
    provenance._git(tmp_path, "status", "--porcelain", "--untracked-files=no")
    assert (tmp_path / ".git" / "index").read_bytes() == index
    git("status")
    assert (tmp_path / ".git" / "index").read_bytes() != index, "git's own status would have changed it"
