"""A report from Python is that of the command, of the same rows."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import lsgm_reports
from lsgm import results
from lsgm.cli import main
from lsgm.errors import DataError
from lsgm.results import Row
from lsgm.results.files import write_rows

ROWS = [
    Row("glyphs@3/quick", "a", "nelbo_nats", 100.0, 99.0, 101.0, 1000, split="test"),
    Row("glyphs@3/quick", "b", "nelbo_nats", 90.0, 89.0, 91.0, 1000, split="test"),
]


def test_a_table_becomes_the_report_of_the_command(tmp_path: Path) -> None:
    written = lsgm_reports.report(results.frame(ROWS), tmp_path / "out")
    assert {path.name for path in written} >= {"report.md", "results.csv", "tables.tex", "report.html"}
    assert results.rows(results.read(tmp_path / "out" / "results.jsonl")) == ROWS
    (tmp_path / "command").mkdir()
    write_rows(tmp_path / "command" / "results.jsonl", ROWS)
    assert main(["report", str(tmp_path / "command")]) == 0
    for name in ("report.md", "tables.tex", "results.csv"):
        theirs = (tmp_path / "command" / name).read_text().replace("command", "out")
        assert (tmp_path / "out" / name).read_text() == theirs


def test_a_folder_and_formats_may_be_given(tmp_path: Path) -> None:
    write_rows(tmp_path / "results.jsonl", ROWS)
    (path,) = lsgm_reports.report(tmp_path, tmp_path / "out", formats=["csv"])
    assert path == tmp_path / "out" / "results.csv"


def test_rows_that_are_there_stay(tmp_path: Path) -> None:
    lsgm_reports.report(results.frame(ROWS), tmp_path, formats=["csv"])
    lsgm_reports.report(results.frame(ROWS), tmp_path, formats=["csv"])
    with pytest.raises(DataError, match=r"results\.jsonl holds other rows; give another folder"):
        lsgm_reports.report(results.frame(ROWS[:1]), tmp_path)
    with pytest.raises(DataError, match="the table has no rows"):
        lsgm_reports.report(results.frame([]), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_its_name_and_signature_are_as_promised() -> None:
    assert lsgm_reports.__all__ == ["report"]
    parameters = list(inspect.signature(lsgm_reports.report).parameters)
    assert parameters == ["source", "out", "formats", "recalled", "separate"]
