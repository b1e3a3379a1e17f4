"""Any valid rows go to CSV and to JSON lines and come back; what is not a table of rows is named."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from reports.any_rows import any_rows

from lsgm.errors import DataError
from lsgm.results.files import from_csv, from_jsonl, to_csv, to_jsonl
from lsgm.results.row import Row, row_from

BARE: dict[str, Any] = {"task": "t@1", "model": "a", "metric": "m", "value": None}
FORMULA = "=+-@＝＋－＠"


def same(mine: list[Row], others: list[Row]) -> bool:
    """Say whether rows agree to the last bit: ``repr`` tells 0.0 from -0.0, and 1 from 1.0 and True."""
    return repr(mine) == repr(others)


@given(any_rows())
@example([row_from(BARE | {"note": ""}), row_from(BARE | {"note": None})])
@example([row_from(BARE | {"model": 'x,"y"\r\nz\u2028\x1c', "value": 5e-324, "n": 2**63 - 1})])
def test_csv_and_jsonl_are_inverse_to_themselves(rows: list[Row]) -> None:
    assert same(from_csv(to_csv(rows)), rows)
    assert same(from_jsonl(to_jsonl(rows)), rows)


@given(any_rows())
def test_others_read_the_same_numbers_and_words(rows: list[Row]) -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(rows), newline="")))
    for line, row in zip(read, rows, strict=True):
        if row.model.isprintable() and "\\" not in row.model and row.model.lstrip("' ")[:1] not in FORMULA:
            assert line["model"] == row.model
    assert [float(line["value"]) if line["value"] else None for line in read] == [row.value for row in rows]
    objects = [json.loads(line) for line in to_jsonl(rows).splitlines()]
    assert [each["value"] for each in objects] == [row.value for row in rows]


@given(any_rows())
@example([row_from(BARE | {"model": "=cmd|' /C calc'!A0", "note": "'=1", "seeds": "\t-1", "split": " +1"})])
@example(
    [row_from(BARE | {"model": "\\x1b\x1b[2J\\\\x5c", "note": "\u202egnp.exe\\U0010ffff", "seeds": "a\rb"})]
)
def test_no_program_computes_or_obeys_a_text_of_the_csv(rows: list[Row]) -> None:
    text = to_csv(rows)
    assert all(symbol.isprintable() or symbol in "\t\n" or symbol.isspace() for symbol in text)
    assert not set(text) & set("\r\x1b\x0b\x85\u2028\u202e")
    for line in csv.DictReader(io.StringIO(text, newline="")):
        for key in ("model", "note", "seeds", "split"):
            assert not line[key].lstrip().startswith(tuple(FORMULA))
            assert not line[key].startswith("\t")
    assert same(from_csv(text), rows)


def test_numbers_below_0_are_no_formulas() -> None:
    assert ",-1.5," in to_csv([row_from(BARE | {"value": -1.5})])


def test_a_table_of_before_reads_as_it_did() -> None:
    text = "task,model,metric,value,note\nt@1,=a,m,1.5,C:\\new\\x\n"
    assert from_csv(text) == [row_from(BARE | {"model": "=a", "value": 1.5, "note": "C:\\new\\x"})]


def test_empty_text_and_none_differ_in_csv() -> None:
    none, empty = to_csv([row_from(BARE)]), to_csv([row_from(BARE | {"seeds": ""})])
    assert none.replace(",,", ",") != empty.replace(",,", ",")
    assert '""' in empty
    assert '""' not in none


def test_columns_may_be_few_and_in_any_order() -> None:
    text = 'value,task,metric,model\r\n1.5,t@1,m,"a, b"\r\n'
    assert from_csv(text) == [row_from(BARE | {"model": "a, b", "value": 1.5})]


HEAD = "task,model,metric,value\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the CSV is empty"),
        (HEAD + "t@1,a,m\n", "line 2 of the CSV has 3 fields and the header 4"),
        (HEAD + "t@1,a,m,1\nt@1,a,m,x\n", "line 3 of the CSV: could not convert"),
        (HEAD + 't@1,"a\nb",m,1\n,a,m,1\n', "line 4 of the CSV: 'task' is empty"),
        (HEAD + 't@1,"a,m,1\n', "line 2 of the CSV has a quote that is not closed"),
        (HEAD + 't@1,a"b,m,1\n', "line 2 of the CSV has a quote"),
        (HEAD.replace("\n", ",higher_is_better\n") + "t@1,a,m,1,yes\n", "neither True nor False"),
    ],
)
def test_what_is_no_csv_of_rows_is_named_by_its_line(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words.split("(")[0]):
        from_csv(text)


def test_malformed_jsonl_is_named_by_its_line() -> None:
    with pytest.raises(DataError, match="line 2 is half-written"):
        from_jsonl(to_jsonl([row_from(BARE)]) + '{"task"')
