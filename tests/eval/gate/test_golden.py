"""Golden files: written and read back alike, and every mistake in one is a sentence that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval.gate.golden_rows import GOLDEN, ROWS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lsgm.errors import ConfigError, DataError, UserError
from lsgm_eval.gate.golden import (
    ImagesRow,
    default_golden,
    pack,
    read_golden,
    rounded,
    write_golden,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_golden(tmp_path / "toy.json", GOLDEN)
    return tmp_path / "toy.json"


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    mapping = json.loads(path.read_text())
    change(mapping)
    path.write_text(json.dumps(mapping))
    return path


def test_what_is_written_is_read_back(path: Path) -> None:
    assert read_golden(path) == GOLDEN


def test_the_same_rows_are_the_same_bytes_with_one_row_of_numbers_to_a_line(path: Path) -> None:
    before = path.read_bytes()
    write_golden(path, read_golden(path))
    assert path.read_bytes() == before
    assert '      "values": [1.25, -3.0],\n' in before.decode()
    assert "±" in before.decode()


@given(arrays(np.uint8, (3, 5)))
def test_levels_survive_packing(levels: Any) -> None:
    assert (ImagesRow("images", (3, 5), pack(levels), 0, ()).levels() == levels).all()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_nine_digits_keep_every_float32(value: float) -> None:
    (kept,) = rounded(value)
    assert np.float32(kept) == np.float32(value)


def test_golden_rows_lie_under_the_name_of_the_checkpoints_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    for word in ("checkpoints/a-b", "checkpoints/a-b/"):
        assert default_golden(Path(word)) == Path("reports/golden/a-b.json")
    assert default_golden(Path()) == Path("reports/golden/mine.json")


def remove(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(mapping: dict[str, Any]) -> None:
        for key in keys[:-1]:
            mapping = mapping[key]
        del mapping[keys[-1]]

    return change


def put(value: Any, *keys: str) -> Callable[[dict[str, Any]], None]:
    def change(mapping: dict[str, Any]) -> None:
        for key in keys[:-1]:
            mapping = mapping[key]
        mapping[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (remove("task"), "the key 'task' is missing"),
        (remove("rows", "nelbo_nats", "error"), "the key 'rows.nelbo_nats.error' is missing"),
        (put(2, "format"), "has format 2 and this version reads format 1: update"),
        (put(1, "rows", "nelbo_nats", "eror"), "unknown key 'rows.nelbo_nats.eror'; did you mean 'error'"),
        (put("much", "rows", "nelbo_nats", "value"), "'rows.nelbo_nats.value' is 'much'; it must be a num"),
        (put(0.0, "rows", "nelbo_nats", "error"), "needs a positive error"),
        (put([1.0], "rows", "nelbo_nats", "cut"), "cut at two ends"),
        (put([2.0, 1.0], "rows", "nelbo_nats", "cut"), "a lower end, then an upper"),
        (put([2.0], "rows", "nelbo_nats", "per_image"), "one image has no error over images"),
        (put(1e-9, "rows", "replay/nelbo", "largest"), "0 < mean <= largest"),
        (put([], "rows", "replay/nelbo", "values"), "at least one image"),
        (put("????", "rows", "replay/images", "packed"), "the drawn images are damaged"),
        (put([2, 4], "rows", "replay/images", "shape"), "the drawn images are damaged"),
        (put(7, "rows", "replay/images", "flips"), "more than sub-pixels"),
        (put({}, "rows"), "there is no row in it"),
        (put(1, "plan", "repeats"), "repeats is 1; their spread needs at least 2"),
        (put(10, "plan", "samples"), "samples is 10; give 0, or 40 or more"),
    ],
)
def test_a_mistake_in_a_golden_file_is_a_sentence_with_its_key(
    path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        read_golden(changed(path, change))
    assert str(path) in str(raised.value)


def test_a_file_that_is_absent_or_cut_short_is_said_with_what_to_do(path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read .* --update --reason TEXT"):
        read_golden(path.with_name("other.json"))
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"toy.json is not valid JSON \(.* line \d+ "):
        read_golden(path)


def test_a_file_too_large_for_a_repository_is_not_written(tmp_path: Path) -> None:
    numbers = tuple(k / 7 for k in range(9000))
    rows = {"replay/nelbo": replace(ROWS["replay/nelbo"], values=numbers)}
    with pytest.raises(UserError, match="100,000 are allowed: ask for fewer --images"):
        write_golden(tmp_path / "large.json", replace(GOLDEN, rows=rows))
    assert not (tmp_path / "large.json").exists()
