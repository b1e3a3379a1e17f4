"""A JSON or TOML file of any bytes is a value that can be used and written again, or one sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hostile_files import SPECIAL, json_values, outcome, place_special, says
from hypothesis import given
from hypothesis import strategies as st

from lsgm.errors import CheckpointError, DataError
from lsgm.files.text import (
    NESTING,
    json_lines,
    parse_json,
    parse_toml,
    read_json,
    read_table,
    read_text,
    read_toml,
)

DEEP = NESTING + 1
JSON = {
    "nested lists": ("[" * 100_000, "nests too deeply"),
    "nested objects": ('{"a":' * 100_000, "nests too deeply"),
    "whole but deep": ("[" * DEEP + "1" + "]" * DEEP, "nests more than 64"),
    "a number of 5,000 digits": ("1" * 5000, "not valid JSON"),
    "a number of 400 digits": ('{"a": [1' + "0" * 400 + "]}", "more than 308 digits"),
    "half of a character": (r'"\ud800"', "half of a character"),
    "half of one as a key": (r'{"\udfff": 1}', "half of a character"),
    "a zero byte": (r'["a\u0000b"]', "zero byte"),
    "nothing": ("", "not valid JSON"),
    "a torn text": ('{"a": "b', "not valid JSON"),
    "another mark": ("\ufeff\ufeff1", "not valid JSON"),
}
TOML = {
    "nested lists": ("a = " + "[" * 100_000, "nests too deeply"),
    "nested tables": ("a = " + "{a = " * 100_000, "nests too deeply"),
    "whole but deep": ("a = " + "[" * DEEP + "1" + "]" * DEEP, "nests more than 64"),
    "a key of many parts": (".".join(["a"] * 200_000) + " = 1", "nests more than 64"),
    "a heading of many parts": ("[" + " . ".join(['"a"'] * 100_000) + "]", "nests more than 64"),
    "many parts in a table": ("x = {" + ".".join(["'a'"] * 100_000) + " = 1}", "nests more than 64"),
    "a number of 5,000 digits": ("a = " + "1" * 5000, "not valid TOML"),
    "a hexadecimal one": ("a = 0x" + "f" * 5000, "more than 308 digits"),
    "a date that is none": ("a = 2020-13-45T99:99:99", "not valid TOML"),
    "a zero byte": (r'a = "\u0000"', "zero byte"),
    "no TOML": ("a = ", "not valid TOML"),
}


@pytest.mark.parametrize(("text", "words"), JSON.values(), ids=JSON)
def test_json_that_no_later_step_could_bear_is_one_sentence(text: str, words: str) -> None:
    with says("state.json ", words, "; restore it from a copy", error=DataError):
        parse_json(text, "state.json")


@pytest.mark.parametrize(("text", "words"), TOML.values(), ids=TOML)
def test_toml_that_no_later_step_could_bear_is_one_sentence(text: str, words: str) -> None:
    begun = time.monotonic()
    with says("config.toml ", words, error=DataError):
        parse_toml(text, "config.toml")
    assert time.monotonic() - begun < 5


def plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).encode().decode()


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_value_that_can_be_written_again_or_a_sentence(raw: bytes) -> None:
    value, refused = outcome(lambda: parse_json(raw, "a file"))
    assert refused or plain(value)


@given(json_values)
def test_what_json_can_say_is_read_as_it_is_unless_it_is_refused(value: Any) -> None:
    text = json.dumps(value)
    found, refused = outcome(lambda: parse_json(text, "a file"))
    assert "zero byte" in refused if refused else json.dumps(found) == text


@given(st.text(max_size=60))
def test_any_text_is_tables_or_a_sentence(text: str) -> None:
    found, refused = outcome(lambda: parse_toml(text, "a file"))
    assert refused or isinstance(found, dict)


@given(st.lists(st.text("ab-_01", min_size=1, max_size=3), min_size=1, max_size=NESTING - 1))
def test_keys_of_fewer_parts_are_read(parts: list[str]) -> None:
    found: Any = parse_toml(".".join(parts) + " = 1.5", "a file")
    for part in parts:
        found = found[part]
    assert found == 1.5


def test_a_text_with_many_dots_is_no_key() -> None:
    assert parse_toml(f'a = "{"x." * 100}"\nb = [{"0.5, " * 100}]', "a file")["a"] == "x." * 100


@pytest.mark.parametrize("read", [read_text, read_json, read_table, read_toml])
def test_a_file_that_is_no_utf8_says_where(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes('name = "Fréchet"\n'.encode("latin-1"))
    with says("config.toml is not text in UTF-8 (byte 10 is not)", error=DataError):
        read(path)


def test_a_byte_order_mark_is_none_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("\ufeffa = 1\n", encoding="utf-8")
    assert read_toml(path) == {"a": 1}


@pytest.mark.parametrize("content", ["[]", "1", '"a"', "null"])
def test_a_table_is_a_json_object(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with says("state.json is not a JSON object; ask again", error=CheckpointError):
        read_table(path, CheckpointError, "ask again")


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("read", [read_text, read_json, read_table, read_toml])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, read: Any, kind: str) -> None:
    with says("give a file", error=DataError):
        read(place_special(tmp_path / "x.json", kind))


def test_lines_know_their_numbers_and_whether_the_file_ends_within_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "x\u2028y"}\n\n  \n{"b"', encoding="utf-8")
    lines = list(json_lines(path))
    assert [(line.number, line.torn) for line in lines] == [(1, False), (4, True)]
    assert parse_json(lines[0].text, path) == {"a": "x\u2028y"}
