"""Reading results: what is malformed is named by file and line."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import pytest
from reports.fake_rows import fake_rows, write_rows

from lsgm.errors import DataError
from lsgm.results.files import find_results, parse_lines, read_rows
from lsgm.results.row import row_from

GOOD = '{"task": "t@1", "model": "a", "metric": "m", "value": 1}\n'


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "results.jsonl", fake_rows())
    rows = read_rows(file)
    assert [row.value for row in rows] == [row["value"] for row in fake_rows()]
    assert rows[0].interval == (fake_rows()[0]["ci_low"], fake_rows()[0]["ci_high"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"task": "t@1", "model": ', "is not valid JSON"),
        ("[1, 2]", "is not a JSON object"),
        ('{"task": "t@1", "model": "a", "metric": "m"}', "the key 'value' is missing"),
        (
            '{"task": "t@1", "model": "a", "metrics": "m", "value": 1}',
            "'metric' is missing; is it 'metrics'?",
        ),
        ('{"task": "t@1", "model": "a", "metric": "m", "value": "x"}', "'value' is 'x', not a number"),
        ('{"task": "", "model": "a", "metric": "m", "value": 1}', "'task' is empty"),
        ('{"task": "t@1", "model": "a", "metric": "m", "value": 1, "group": "x"}', "'group' is 'x'"),
        ('{"task": "t@1", "model": " ", "metric": "m", "value": 1}', "'model' is empty"),
        ('{"task": "t@1", "model": "\\ud800", "metric": "m", "value": 1}', "half of a character"),
        ('{"task": "t@1", "model": "a", "metric": "m", "value": 1, "n": 2.5}', "not a whole number"),
        ('{"task": "t@1", "model": "a", "metric": "m", "value": 1, "n": NaN}', "not a whole number"),
        ('{"task": "t@1", "model": "a", "metric": "m", "value": 1, "n": 1e30}', "'n' is 1e+30, beyond 2^63"),
        ('{"task": "t@1", "model": "a", "metric": "m", "value": 1, "seconds": -1}', "cannot be negative"),
        ('{"task": "t@1", "model": "a", "metric": "m", "value": 1' + 400 * "0" + "}", "more than 308 digits"),
        ('{"task": "t@1", "model": "a", "metric": "m", "value": ' + 5000 * "1" + "}", "is not valid JSON"),
        (10**5 * "[", "nests too deeply"),
        (
            '{"task": "t@1", "model": "a", "metric": "m", "value": 1, "ci_low": 2, "ci_high": 1}',
            "the interval from 2.0 to 1.0 is impossible",
        ),
        (
            '{"task": "t@1", "model": "a", "metric": "m", "value": 1, "higher_is_better": "yes"}',
            "neither true, false nor null",
        ),
    ],
)
def test_a_malformed_line_is_named_by_its_number(line: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(GOOD + "\n" + line + "\n" + GOOD)
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert "results.jsonl line 3" in str(caught.value)
    assert words in str(caught.value)


def test_a_last_line_without_its_end_is_half_written(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for cut in range(1, len(GOOD) - 1):
        file.write_text(GOOD + GOOD[:-cut])
        if cut == 1:  # only the line feed is missing
            assert len(read_rows(file)) == 2
            continue
        with pytest.raises(DataError, match=r"line 2 is half-written.*remove the line or the file"):
            read_rows(file)


def test_on_request_malformed_lines_are_skipped_and_named() -> None:
    parsed = parse_lines(f"{GOOD}nonsense\n{GOOD}\n[1]\n{GOOD[:9]}", "x.jsonl", skip_malformed=True)
    assert [number for number, _ in parsed.rows] == [1, 3]
    assert [sentence.partition(" is ")[0] for sentence in parsed.left_out] == [
        "x.jsonl line 2",
        "x.jsonl line 5",
        "x.jsonl line 6",
    ]


def test_the_separators_of_unicode_end_no_line() -> None:
    parsed = parse_lines(GOOD.replace('"a"', '"a\u2028\x85b"'), "x.jsonl")
    assert parsed.rows[0][1].model == "a\u2028\x85b"


@pytest.mark.parametrize(("value", "said"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_what_is_not_finite_is_missing_and_says_what_it_was(value: float, said: str) -> None:
    row = row_from({"task": "t@1", "model": "a", "metric": "m", "value": value, "note": "why"})
    assert row.value is None
    assert row.note == f"not finite ({said}); why"
    assert row_from(asdict(row)) == row


def test_a_value_may_lie_outside_of_its_interval_but_no_interval_is_upside_down() -> None:
    given = {"task": "t@1", "model": "a", "metric": "m", "value": 5.2, "ci_low": 5.4, "ci_high": 6.1}
    assert row_from(given).interval == (5.4, 6.1)
    assert row_from(given | {"ci_high": 5.4}).half_width == 0
    assert row_from(given | {"ci_high": math.inf}).interval is None  # open above
    with pytest.raises(DataError, match="impossible"):
        row_from(given | {"ci_high": 5.3})


def test_results_are_found_in_a_file_a_folder_and_below(tmp_path: Path) -> None:
    deep = write_rows(tmp_path / "a" / "b" / "results.jsonl", [])
    assert find_results(deep) == find_results(deep.parent) == find_results(tmp_path) == [deep]
    for name, words in (
        ("empty", "is empty; `lsgm eval TASK --model MODEL --out"),
        ("run", "is a training run without results; run `lsgm eval TASK --model"),
        ("notes", r"there is no results\.jsonl in .*; run `lsgm eval`"),
    ):
        (tmp_path / "b" / name).mkdir(parents=True)
        if name != "empty":
            (tmp_path / "b" / name / ("config.toml" if name == "run" else "notes.txt")).write_text("")
        with pytest.raises(DataError, match=words):
            find_results(tmp_path / "b" / name)
    with pytest.raises(DataError, match="there is no"):
        find_results(tmp_path / "gone")
