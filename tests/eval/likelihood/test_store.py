"""Finished images stay finished: whatever happens between two batches, and whoever else is writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsgm.errors import UserError
from lsgm_eval.likelihood.store import Columns, ScoreStore, join_columns, select_rows


def batch(*rows: int, scale: float = 1.0) -> Columns:
    index = np.array(rows, dtype=np.int64)
    return {"rows": index, "nats": float(scale) * index, "group_entropy/0": index / 2.0}


def test_an_empty_store_holds_nothing(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path / "none")
    assert store.finished() == {}
    store.compact()
    assert not (tmp_path / "none").exists()


def test_batches_of_several_processes_come_back_as_one_table(tmp_path: Path) -> None:
    for rows in ((4, 0), (2,), (3, 1)):
        ScoreStore(tmp_path).add(batch(*rows))
    found = ScoreStore(tmp_path).finished()
    assert found["rows"].tolist() == [0, 1, 2, 3, 4]
    assert found["nats"].tolist() == [0, 1, 2, 3, 4]
    assert found["group_entropy/0"].tolist() == [0, 0.5, 1, 1.5, 2]


def test_of_an_image_scored_twice_the_later_number_counts(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    store.add(batch(1, 2))
    store.add(batch(2, 3, scale=10))
    assert store.finished()["nats"].tolist() == [1, 20, 30]


def test_compaction_changes_the_files_and_no_number(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    store.add(batch(5, 1))
    store.add(batch(1, 2, scale=10))
    before = store.finished()
    store.compact()
    assert len(list(tmp_path.iterdir())) == 1
    after = store.finished()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    store.add(batch(2))
    assert store.finished()["nats"].tolist() == [10, 2, 5]


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "lengths"])
def test_a_damaged_batch_is_named_and_its_images_are_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    store = ScoreStore(tmp_path)
    store.add(batch(0, 1))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "bit":
        at = content.index(np.array([0, 1]).tobytes())
        path.write_bytes(content[:at] + b"\x07" + content[at + 1 :])
    else:
        short: dict[str, Any] = {"rows": np.arange(3), "nats": np.arange(2.0)}
        np.savez(path, **short)
    store.add(batch(2, 3))
    assert store.finished()["rows"].tolist() == [2, 3]
    said = capsys.readouterr().err
    assert str(path) in said
    assert "measured again" in said
    store.compact()
    capsys.readouterr()
    assert store.finished()["rows"].tolist() == [2, 3]
    assert capsys.readouterr().err == ""


def test_a_batch_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(file: Any, **arrays: Any) -> None:
        file.write(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    store = ScoreStore(tmp_path)
    with pytest.raises((OSError, UserError), match="No space left"):
        store.add(batch(0, 1))
    assert list(tmp_path.iterdir()) == []
    assert store.finished() == {}


def test_rows_are_selected_in_the_order_asked_for() -> None:
    table = join_columns([batch(9, 4), {}, batch(7)])
    assert select_rows(table, np.array([7, 5, 9]))["rows"].tolist() == [7, 9]
    assert select_rows({}, np.array([7])) == {}
    assert join_columns([]) == {}


def test_only_columns_that_all_parts_have_are_joined() -> None:
    plain = {name: value for name, value in batch(1).items() if name != "nats"}
    assert set(join_columns([batch(0), plain])) == {"rows", "group_entropy/0"}
