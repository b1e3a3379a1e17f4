"""Result rows are complete, finite, and replaced rather than repeated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsgm.errors import DataError, UserError
from lsgm.results.files import keep_rows, merge_rows, read_rows, to_jsonl, write_rows
from lsgm.results.metrics import metrics
from lsgm.results.row import KEYS
from lsgm_eval.rows import Context

LINE = '{"task": "a\u2028b", "model": "m", "metric": "x", "value": 1}\n'
CONTEXT = Context("bars@1/quick", "m", "a" * 64, "bars@1@b", "run")


def test_a_row_has_every_key_in_order_and_knows_its_metric() -> None:
    row = CONTEXT.row("frechet_glyphs", 1.5, ci_low=1.0, ci_high=2.0, n=10)
    assert tuple(row.keys()) == KEYS == tuple(json.loads(to_jsonl([row])))
    assert (row["unit"], row["higher_is_better"], row["group"]) == ("distance", False, "quality")
    assert row["sampler"] is None
    assert row["levels_sha256"] is None  # a distance scores no bits
    assert CONTEXT.row("frechet_glyphs", 1.5, group="curve")["group"] == "curve"


@pytest.mark.parametrize("metric", sorted(metrics()))
def test_every_metric_makes_a_row(metric: str) -> None:
    assert CONTEXT.row(metric, 0.0)["metric"] == metric


@pytest.mark.parametrize(
    "metric",
    [
        "nelbo_term_reconstruction_nats",
        "nelbo_term_negative_entropy/0_nats",
        "ode_nll_term_cross_entropy/top_nats",
        "iw_term_importance_gain_nats",
    ],
)
def test_a_term_of_a_bound_is_neither_better_high_nor_low(metric: str) -> None:
    row = CONTEXT.row(metric, -1.0)
    assert (row["unit"], row["higher_is_better"], row["group"]) == ("nats/image", None, "terms")


def test_a_metric_that_does_not_exist_makes_no_row() -> None:
    with pytest.raises(KeyError):
        CONTEXT.row("accuracy", 1.0)


def test_numbers_that_are_not_finite_and_keys_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UserError, match="nelbo_nats of m is nan"):
        CONTEXT.row("nelbo_nats", float("nan"))
    with pytest.raises(ValueError, match="confidence"):
        CONTEXT.row("nelbo_nats", 1.0, confidence=0.95)


def test_a_file_read_back_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    rows = [CONTEXT.row("nfe", 20.0, note="Fréchet"), CONTEXT.row("nelbo_nats", None)]
    write_rows(path, rows)
    assert read_rows(path) == rows
    assert [p.name for p in path.parent.iterdir()] == ["results.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write_rows(path, [CONTEXT.row("nfe", 20.0)])
    with pytest.raises(ValueError, match="JSON"):
        write_rows(path, [replace(CONTEXT.row("nfe", 1.0), value=float("inf"))])
    assert read_rows(path)[0]["value"] == 20.0


@pytest.mark.parametrize("line", ["{half", "[1, 2]"])
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(LINE + line + "\n")
    with pytest.raises(DataError, match=r"results.jsonl line 2 is not (valid JSON|a JSON object)"):
        read_rows(path)


def test_a_torn_last_line_is_called_half_written_and_blank_lines_are_none(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f'{LINE}\n{{"task": "t', encoding="utf-8")
    with pytest.raises(DataError, match=r"results.jsonl line 3 is half-written"):
        read_rows(path)
    path.write_text(f"{LINE}\n{LINE}".removesuffix("\n"), encoding="utf-8")
    assert [row.task for row in read_rows(path)] == ["a\u2028b", "a\u2028b"]


def test_new_rows_take_the_place_of_those_they_measure_again() -> None:
    old = [CONTEXT.row("nfe", 1.0), CONTEXT.row("nelbo_nats", 2.0), CONTEXT.row("nfe", 5.0, group="curve")]
    new = [CONTEXT.row("nfe", 3.0)]
    assert [row["value"] for row in merge_rows(old, new)] == [2.0, 5.0, 3.0]


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "photos@64px@ff"},
        {"extractor": "inception@ff"},
        {"reference_sha256": "ff"},
    ],
)
def test_numbers_of_other_data_another_extractor_or_reference_stand_beside_the_new(
    other: dict[str, Any], tmp_path: Path
) -> None:
    fields = {"extractor": "inception@aa", "reference_sha256": "bb"}
    first = CONTEXT.row("fid", 1.0, **fields)
    keep_rows(tmp_path / "results.jsonl", [first])
    keep_rows(tmp_path / "results.jsonl", [replace(first, value=2.0, **other)])
    keep_rows(tmp_path / "results.jsonl", [replace(first, value=3.0)])
    assert [row["value"] for row in read_rows(tmp_path / "results.jsonl")] == [2.0, 3.0]


def test_why_there_is_no_number_gives_way_to_one_and_takes_the_place_of_another_checkpoints_alone() -> None:
    number = CONTEXT.row("fid", 1.0, extractor="inception@aa", reference_sha256="bb")
    missing = CONTEXT.row("fid", None, note="the weights are not here")
    retrained = replace(missing, checkpoint_sha256="another")
    assert merge_rows([missing], [number]) == [number]
    assert merge_rows([number], [missing]) == [number]
    assert merge_rows([number], [retrained]) == [retrained]
    assert merge_rows([missing], [retrained]) == [retrained]


def test_rows_kept_twice_stand_once_beside_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    keep_rows(path, [CONTEXT.row("nelbo_nats", 2.0)])
    for value in (1.0, 3.0):
        assert keep_rows(path, [CONTEXT.row("nfe", value)])[0]["value"] == value
    assert [row["value"] for row in read_rows(path)] == [2.0, 3.0]


def raw(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            '{"task": "t@1/q", "model": "m", "metric": "x", "value": 1, "n": "many"}',
            "'n' is 'many', not a number",
        ),
        (
            '{"task": "t@1/q", "model": "m", "metric": "x", "value": NaN}',
            "'value' is nan, not a finite number",
        ),
        ('{"task": ["a"], "model": "m", "metric": "x", "value": 1}', "'task' is ['a'], not a text"),
        (
            '{"task": "t@1/q", "model": "m", "metric": "x", "value": 1, "later": 1e999}',
            "'later' is inf, which is not finite",
        ),
        ('{"n": 1' + "0" * 5000 + "}", "not valid JSON"),
        ("[" * 10**5, "it nests too deeply"),
        ("3", "is not a JSON object"),
    ],
)
def test_a_row_of_other_types_is_refused_by_whatever_reads_it_and_the_file_stays(
    tmp_path: Path, line: str, words: str
) -> None:
    path = raw(tmp_path / "results.jsonl", json.dumps(CONTEXT.row("nfe", 1.0).as_dict()), line)
    before = path.read_bytes()
    for call in (lambda: read_rows(path, keep=True), lambda: keep_rows(path, [CONTEXT.row("nfe", 2.0)])):
        with pytest.raises(DataError, match=r"results.jsonl line 2\b") as refused:
            call()
        assert words in str(refused.value)
    assert path.read_bytes() == before


def test_rows_of_earlier_and_later_versions_keep_what_they_say(tmp_path: Path) -> None:
    earlier = {"task": "t@1/q", "model": "m", "metric": "x", "value": 1.5}
    later = earlier | {"later": {"a": [1]}, "group": "of a later version"}
    path = raw(tmp_path / "results.jsonl", json.dumps(earlier), json.dumps(later))
    keep_rows(path, [CONTEXT.row("nfe", 2.0)])
    first, second, _ = (json.loads(line) for line in path.read_text().splitlines())
    assert first == dict.fromkeys(KEYS) | earlier
    assert second == dict.fromkeys(KEYS) | later
    with pytest.raises(DataError, match="not one of quality"):  # a reader that shows them knows its groups
        read_rows(path)


def test_more_rows_than_are_read_is_said_with_what_raises_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = raw(tmp_path / "results.jsonl", json.dumps(CONTEXT.row("nfe", 1.0).as_dict()))
    monkeypatch.setenv("LSGM_LARGEST_RESULTS", "100")
    with pytest.raises(DataError, match=r"at most 100 are read; .* set LSGM_LARGEST_RESULTS="):
        read_rows(path)
    monkeypatch.delenv("LSGM_LARGEST_RESULTS")
    monkeypatch.setenv("LSGM_MOST_ROWS", "2")
    with pytest.raises(DataError, match=r"has 3 rows, and at most 2 are read; .* set LSGM_MOST_ROWS="):
        read_rows(raw(path, *4 * [LINE.strip()]))


def test_rows_that_are_no_utf8_are_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes('{"note": "Fréchet"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"results.jsonl is not text in UTF-8"):
        read_rows(tmp_path / "results.jsonl")


def test_a_model_named_by_bytes_that_are_no_text_has_rows_that_can_be_read_again(tmp_path: Path) -> None:
    odd = Context("bars@1/quick", "caf\udce9", "a" * 64, "bars@1@b", "run")
    for value in (1.0, 2.0):
        keep_rows(tmp_path / "results.jsonl", [odd.row("nfe", value)])
    assert [(row["model"], row["value"]) for row in read_rows(tmp_path / "results.jsonl")] == [
        ("caf\\xe9", 2.0)
    ]


def test_a_link_in_the_place_of_the_rows_is_replaced(tmp_path: Path) -> None:
    theirs = raw(tmp_path / "theirs.jsonl", json.dumps(CONTEXT.row("nfe", 1.0).as_dict()))
    before = theirs.read_bytes()
    (tmp_path / "results.jsonl").symlink_to(theirs)
    keep_rows(tmp_path / "results.jsonl", [CONTEXT.row("nelbo_nats", 2.0)])
    assert theirs.read_bytes() == before
    assert len(read_rows(tmp_path / "results.jsonl")) == 2
