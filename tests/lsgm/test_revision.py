"""The commit that the code is at, and none where git does not know."""

from __future__ import annotations

import subprocess

import pytest

from lsgm import revision
from lsgm.revision import git_revision


def test_it_is_a_commit_here_and_none_outside_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: object) -> str:
        raise subprocess.CalledProcessError(128, "git")

    git_revision.cache_clear()
    found = git_revision()
    assert found is None or len(found.removesuffix("+dirty")) == 40
    monkeypatch.setattr(revision, "_git", fails)
    git_revision.cache_clear()
    assert git_revision() is None
    git_revision.cache_clear()
