"""A row has an id and a place, and the manifest of its call is read strictly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports.fake_manifest import fake_manifest, write_manifest
from reports.fake_rows import fake_rows, write_rows

from lsgm.errors import DataError
from lsgm.results.manifest import Manifest, manifest_of, read_manifest
from lsgm.results.row import KINDS, Row, row_from, row_id
from lsgm_reports.read import rows_at
from lsgm_reports.reproduce.apart import copied

ROW = Row("glyphs@1/quick", "lsgm", "frechet_glyphs", 5.2, 5.0, 5.4, n=2000)


def typed(call: Manifest) -> str:
    return copied(call.command, call.directory, call.processes).line


@given(st.permutations(list(fake_rows()[0].items())))
def test_the_id_does_not_depend_on_the_order_of_the_keys(items: list[tuple[str, Any]]) -> None:
    assert row_id(row_from(dict(items))) == row_id(row_from(fake_rows()[0]))


@pytest.mark.parametrize("field", list(KINDS))
def test_every_key_has_a_say_in_the_id(field: str) -> None:
    other = {"value": 0.125, "ci_low": 0.125, "ci_high": 0.125, "n": 7}.get(field, "other")
    assert row_id(replace(ROW, **{field: other})) != row_id(ROW)


def test_the_id_is_twelve_digits_that_stay() -> None:
    # printf {"metric":"nfe","model":"m","task":"t@1/quick","value":1.0} | sha256sum
    assert row_id(Row("t@1/quick", "m", "nfe", 1.0)) == "9c2755bbb148"


def test_numbers_that_differ_in_the_last_bit_are_other_rows() -> None:
    assert row_id(replace(ROW, value=5.2 + 2**-50)) != row_id(ROW)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "results.jsonl", fake_rows())
    return tmp_path


def test_a_row_is_found_by_the_beginning_of_its_id_by_its_line_and_by_its_keys(folder: Path) -> None:
    wanted = row_from(fake_rows()[1])
    whole, half = f"{folder}#{row_id(wanted)}", f"{folder}#{row_id(wanted)[:7]}"
    for place in (whole, half, f"{folder}:2", f"{folder / 'results.jsonl'}:2"):
        (placed,) = rows_at(place)
        assert (placed.row, placed.file.parent) == (wanted, folder)
    keys = {"model": wanted.model, "metric": wanted.metric, "sampler": "heun(steps=20)"}
    found = rows_at(str(folder), **keys)
    assert {each.row.group for each in found} == {"quality", "curve"}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("#0000000000aa", "has no row with id 0000000000aa"),
        (":999", "has no row with line 999"),
        ("#xyz", "no row's id behind '#'"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, word: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        rows_at(f"{folder}{word}")
    with pytest.raises(DataError, match="has no row with model nobody and metric fid"):
        rows_at(str(folder), model="nobody", metric="fid")
    with pytest.raises(DataError, match="absent"):
        rows_at(str(folder / "absent"))


def test_a_line_names_a_row_of_one_file_only(tmp_path: Path) -> None:
    for name in "ab":
        write_rows(tmp_path / name / "results.jsonl", fake_rows())
    with pytest.raises(DataError, match="holds 2 files of rows; give FILE:3"):
        rows_at(f"{tmp_path}:3")
    assert len(rows_at(f"{tmp_path}#{row_id(row_from(fake_rows()[0]))}")) == 2


def test_a_manifest_lies_beside_its_rows(tmp_path: Path) -> None:
    write_manifest(tmp_path, fake_manifest())
    found = manifest_of(replace(ROW, manifest="abcabcabcabc"), tmp_path)
    assert found is not None
    assert typed(found) == "lsgm eval glyphs --model 'a b=runs/a b' --model vae=runs/vae"
    assert (found.threads, found.processes, found.models[0].name) == (1, 1, "a b")
    assert found.task.dataset == fake_manifest()["task"]["dataset"]
    assert manifest_of(ROW, tmp_path) is None
    assert manifest_of(replace(ROW, manifest="gone"), tmp_path) is None
    assert manifest_of(replace(ROW, manifest="../manifests/abcabcabcabc"), tmp_path) is None


def test_the_row_names_images_that_were_loaded_after_the_manifest_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, fake_manifest(task=fake_manifest()["task"] | {"dataset": None}))
    found = manifest_of(replace(ROW, manifest="abcabcabcabc", dataset="glyphs@1@ab"), tmp_path)
    assert found is not None
    assert found.task.dataset == "glyphs@1@ab"


def test_several_processes_are_started_by_torchrun(tmp_path: Path) -> None:
    hardware = fake_manifest()["hardware"] | {"processes": 2}
    path = write_manifest(tmp_path, fake_manifest(command=["lsgm", "eval", "mnist"], hardware=hardware))
    assert typed(read_manifest(path)) == "torchrun --nproc-per-node 2 -m lsgm eval mnist"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "has format 2 and this version reads up to 1"),
        ({"format": None}, "is no manifest of a measuring call"),
        ({"devise": "cpu"}, "unknown key 'devise'; did you mean 'device'"),
        ({"models": [{"name": "a"}]}, r"'models\[0\].spec' is missing"),
        ({"command": "lsgm eval"}, "'command' is 'lsgm eval'; it must be a list"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_manifest(write_manifest(tmp_path, fake_manifest() | change))


def test_a_torn_manifest_is_refused(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, fake_manifest())
    for text in (path.read_text()[:-40], json.dumps([1, 2])):
        path.write_text(text)
        with pytest.raises(DataError, match=r"abcabcabcabc\.json .*; restore it, or remove it to do without"):
            read_manifest(path)
