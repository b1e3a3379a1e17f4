"""Every text has a file name that is one part of a path, and no two texts share one."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsgm.files.names import file_name

texts = st.text(st.characters(codec=None, exclude_categories=())) | st.text("./\\~-: aA0", max_size=12)
ODD = [
    "",
    ".",
    "..",
    "../../../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:x",
    "~root",
    "-rf",
    "con",
    "LPT1.txt",
    "a.",
]


@given(texts)
def test_a_name_is_one_part_that_leads_nowhere_and_hides_nothing(name: str) -> None:
    made = file_name(name)
    assert 1 <= len(made.encode()) <= 140
    assert made.isprintable()
    assert PurePosixPath("/out", made).parent == PurePosixPath("/out")
    assert PureWindowsPath("C:/out", made).parent == PureWindowsPath("C:/out")
    assert made[0] not in ".-~ "
    assert made[-1] not in ". "


@given(st.lists(texts, min_size=2, max_size=8, unique=True))
def test_names_that_differ_have_files_that_differ(names: list[str]) -> None:
    assert len({file_name(name) for name in names}) == len(names)


@given(texts)
def test_a_name_made_by_it_is_never_the_file_of_another(name: str) -> None:
    made = file_name(name)
    assert made == name or file_name(made) != made


@pytest.mark.parametrize("name", ["lsgm", "a-run_2", "Modèle β", "mine-20240101", "x.v2", "a b", "c" * 120])
def test_a_name_that_is_one_already_stays(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_cannot_stay_says_what_it_was_as_far_as_it_can(name: str, tmp_path: Path) -> None:
    made = file_name(name)
    (tmp_path / made).write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [made]
    assert not set('/\\:*?"<>|') & set(made)


def test_a_name_of_any_length_takes_no_time() -> None:
    made = file_name("é" * 10**6)
    assert made.startswith("é" * 60 + "-")
