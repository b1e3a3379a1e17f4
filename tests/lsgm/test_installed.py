"""What an installed copy must carry besides code: recipes, tasks and weights, found from anywhere."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from lsgm.discovery import offers, package_folder


@pytest.mark.parametrize(
    ("package", "pattern"),
    [
        ("lsgm.recipes", "glyphs.toml"),
        ("lsgm_baselines.recipes", "*.toml"),
        ("lsgm_eval.suites", "glyphs.toml"),
        ("lsgm_eval.features", "*.safetensors"),
    ],
)
def test_the_data_of_a_package_lie_beside_its_code(package: str, pattern: str) -> None:
    folder = package_folder(package)
    assert folder is not None
    assert list(folder.glob(pattern))


def test_it_works_outside_of_the_clone(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lsgm.cli", "ls", "recipes"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "glyphs" in done.stdout


@pytest.mark.parametrize("group", ["lsgm.commands", "lsgm.kinds", "lsgm.importers"])
def test_everything_that_is_offered_can_be_loaded(group: str) -> None:
    for point in offers(group).values():
        assert point.load() is not None


def test_the_licence_is_part_of_the_distribution() -> None:
    files = distribution("lsgm-bench").metadata.get_all("License-File") or []
    assert "LICENSE" in files
