"""Results, runs and checkpoints from anybody are compared, or refused in one sentence that prints."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from eval.compare.result_rows import MANIFEST, folder, manifest, measured, row
from hostile_files import SPECIAL, json_values, outcome, place_special, says
from hypothesis import given
from hypothesis import strategies as st

from lsgm.errors import DataError, UserError
from lsgm.results.row import KEYS, Row
from lsgm_eval.commands.compare import run
from lsgm_eval.compare.facts import compare_runs, to_json_rows, to_markdown, to_text
from lsgm_eval.compare.sides import open_side

ROW = row("nelbo_nats", 90.0, ci_low=89.0, ci_high=91.0, n=100, split="test", note="x").as_dict()
ODD = "lsgm\x1b[2J\u202e|`<b>[a](b)"


def raw_folder(place: Path, *rows: dict[str, Any]) -> Path:
    """Write rows as somebody may have: whatever they hold."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def everything(a: Path, b: Path) -> list[str]:
    """Compare two places in every format; return the lines of text."""
    found = compare_runs(a, b)
    for line in to_json_rows(found):
        json.loads(line, parse_constant=pytest.fail)
    assert to_markdown(found)
    return to_text(found).split("\n")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("value", "90", "'value' is '90', not a number"),
        ("value", True, "'value' is True, not a number"),
        ("value", float("nan"), "'value' is nan, not a finite number"),
        ("value", 10**305, "not a finite number"),
        ("ci_low", [1], "'ci_low' is [1], not a number"),
        ("ci_low", 92.0, "the interval from 92.0 to 91.0 is impossible"),
        ("n", -1, "'n' is -1, and cannot be negative"),
        ("n", 1.5, "'n' is 1.5, not a whole number"),
        ("model", None, "'model' is empty"),
        ("model", ["x"], "'model' is ['x'], not a text"),
        ("metric", "", "'metric' is empty"),
        ("task", {}, "'task' is {}, not a text"),
        ("sampler", 3, "'sampler' is 3, not a text"),
        ("note", ["x"], "'note' is ['x'], not a text"),
        ("manifest", 1, "'manifest' is 1, not a text"),
        ("higher_is_better", "no", "'higher_is_better' is 'no', neither true, false nor null"),
        (
            "of_a_later_version",
            [{"x": float("inf")}],
            "is [{'x': inf}], which is not finite",
        ),
        ("note", "x" * 10**6 + "\0", "zero byte"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_line(
    tmp_path: Path, key: str, value: Any, words: str
) -> None:
    raw_folder(tmp_path, ROW, ROW | {key: value})
    with says("results.jsonl line 2", words, "; remove the line", error=DataError):
        open_side(tmp_path)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["results.jsonl", "config.toml", "state.json"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    place_special(tmp_path / name, kind)
    with says(name, "give a file", error=UserError):
        open_side(tmp_path)


@given(st.sampled_from([*KEYS, "other"]), json_values)
def test_any_value_of_a_row_is_compared_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    place = tmp_path_factory.mktemp("r")
    honest, odd = raw_folder(place / "a", ROW), raw_folder(place / "b", ROW | {key: value})
    for pair in ((honest, odd), (odd, odd)):
        lines, refused = outcome(partial(everything, *pair))
        assert refused or all(line.isprintable() for line in lines)


@pytest.mark.parametrize("value", [1e299, -1e299, 5e-324, 0.0, -0.0])
def test_numbers_at_the_edge_of_what_is_allowed_are_compared(tmp_path: Path, value: float) -> None:
    far = ROW | {"value": value, "ci_low": -1e299, "ci_high": 1e299, "bias": value}
    assert everything(raw_folder(tmp_path / "a", ROW), raw_folder(tmp_path / "b", far))
    assert everything(raw_folder(tmp_path / "c", far), raw_folder(tmp_path / "d", far | {"n": None}))


def test_names_print_as_they_are_and_are_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("a", 1.0), ("b", 9.0)):
        known = row("nelbo_nats", value, ODD, ci_low=value, ci_high=value, note=ODD)
        folder(tmp_path / name, known, replace(known, metric=f"nfe{ODD}"))
    for words in ([], ["--md"], ["--fail-if-worse"]):
        run([str(tmp_path / "a"), str(tmp_path / "b"), *words])
        captured = capsys.readouterr()
        assert all(line.isprintable() for line in (captured.out + captured.err).split("\n"))
        assert "[2J" in captured.out
        assert "<b>[a](b)" not in captured.out or "--md" not in words


WHOLE = {"format": 1, "id": "m"} | MANIFEST
LSGM = measured(Path("/proc/self/mem"), "r")
MANIFESTS: dict[str, Any] = {
    "a list": [],
    "deep": "[" * 10**5,
    "no text": b"\xff\xfe",
    "models of numbers": WHOLE | {"models": [1, 2]},
    "a path that is a number": WHOLE | {"models": [LSGM | {"path": 3}]},
    "a path to nowhere": WHOLE | {"models": [LSGM]},
    "a path with a zero byte": WHOLE | {"models": [LSGM | {"path": "\0"}]},
    "versions in a list": WHOLE | {"versions": ["x"]},
    "hardware as a text": WHOLE | {"hardware": "gpu"},
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_of_any_content_costs_what_it_would_have_said_and_no_more(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw_folder(tmp_path / "a", ROW | {"manifest": "m"})
    content, path = MANIFESTS[kind], tmp_path / "a" / "manifests" / "m.json"
    path.parent.mkdir()
    raw = content if isinstance(content, bytes | str) else json.dumps(content)
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    assert everything(tmp_path / "a", tmp_path / "a")
    said = capsys.readouterr().err
    assert kind == "a path to nowhere" or "m.json" in said
    assert "Traceback" not in said


def test_a_manifest_is_looked_for_among_the_manifests_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest(tmp_path / "a", "real", versions={"torch": "1"})
    (tmp_path / "theirs.json").write_text('{"versions": {"torch": "of theirs"}}')
    raw_folder(tmp_path / "a", ROW | {"manifest": "../../theirs"})
    side = open_side(tmp_path / "a")
    assert side.manifest_of(side.rows[0]) is None
    assert capsys.readouterr().err == ""


def test_results_that_lead_to_a_run_that_is_damaged_by_now_are_compared_without_it(tmp_path: Path) -> None:
    run_of = tmp_path / "run"
    run_of.mkdir()
    (run_of / "config.toml").write_text("not = [toml")
    raw_folder(tmp_path / "a", ROW | {"manifest": "m"})
    manifest(tmp_path / "a", "m", models=[measured(run_of, "r")])
    assert any("is not known here" in line for line in everything(tmp_path / "a", tmp_path / "a"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.toml", "a = " + "[" * 10**5),
        ("config.toml", ".".join(["a"] * 10**5) + " = 1"),
        ("config.toml", "a = 1" + "0" * 5000),
        ("manifest.json", "[]"),
        ("manifest.json", '{"dataset": 3}'),
        ("manifest.json", '{"resumed": [1]}'),
        ("manifest.json", '{"versions": [1]}'),
    ],
)
def test_a_damaged_run_is_one_sentence_that_names_the_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "config.toml").write_text('kind = "vae"')
    (tmp_path / name).write_text(text)
    with says(name, error=UserError):
        open_side(tmp_path)


def test_configurations_of_any_values_are_compared(tmp_path: Path) -> None:
    for name, text in (
        ("a", 'x = 9e307\ny = -inf\nd = 2020-01-01\n"\\u001b[2J" = "\\u202e"\nn = 9' + "9" * 307),
        ("b", 'x = -9e307\ny = nan\nd = 10:00:00\n"\\u001b[2J" = ["\\u001b"]\nn = -9' + "9" * 307),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(text)
    lines = everything(tmp_path / "a", tmp_path / "b")
    assert all(line.isprintable() for line in lines)
    assert "5 of 5 keys differ." in lines


def test_many_models_take_no_time(tmp_path: Path) -> None:
    rows = [ROW | {"model": f"m{k}"} for k in range(2000)]
    place = raw_folder(tmp_path, *rows)
    begun = time.monotonic()
    assert len(everything(place, place)) > 2000
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("note", ["upward bias at this n about 1.2.3", "upward bias at this n about ...", ""])
def test_a_note_that_holds_no_number_tells_no_bias(note: str) -> None:
    assert Row("t", "m", "x", 1.0, note=note).known_bias is None
