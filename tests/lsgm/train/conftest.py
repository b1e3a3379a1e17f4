"""Lets the tests here share the toy that they train, and a run of it that was begun."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, which nobody changes."""
    from train_toy import run_toy

    directory = tmp_path_factory.mktemp("begun") / "run"
    run_toy(directory, max_steps=4)
    return directory


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(begun, tmp_path / "run"))
