"""What everybody may exchange is not taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hostile_files import says

from lsgm.files.regular import refuse_shared_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no such rights here")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "features" / "net.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return path


def test_a_folder_of_ones_own_is_taken(weights: Path) -> None:
    refuse_shared_folder(weights)
    refuse_shared_folder(weights.with_name("not there"))


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_that_everybody_may_write_to_is_refused(weights: Path, mode: int) -> None:
    weights.parent.chmod(mode)
    with says(str(weights), f"chmod o-w {weights.parent}"):
        refuse_shared_folder(weights)


def test_a_file_that_everybody_may_write_to_is_refused(weights: Path) -> None:
    weights.chmod(0o666)
    with says(f"chmod o-w {weights}"):
        refuse_shared_folder(weights)


def test_a_folder_further_up_is_refused_unless_only_owners_rename_in_it(weights: Path) -> None:
    weights.parents[1].chmod(0o777)
    with says(f"chmod o-w {weights.parents[1]}"):
        refuse_shared_folder(weights)
    weights.parents[1].chmod(0o1777)
    refuse_shared_folder(weights)


def test_it_is_the_folder_behind_a_link_that_counts(weights: Path, tmp_path: Path) -> None:
    weights.parent.chmod(0o777)
    link = tmp_path / "link.pth"
    link.symlink_to(weights)
    with says(str(weights)):
        refuse_shared_folder(link)
