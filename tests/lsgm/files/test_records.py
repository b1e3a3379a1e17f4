"""A file that this project writes is read back as what was written, or as one sentence that names the key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hostile_files import json_values, outcome, says
from hypothesis import example, given
from hypothesis import strategies as st

from lsgm.config import require
from lsgm.errors import CheckpointError, DataError
from lsgm.files.text import read_record, record_of
from lsgm.structure import to_dict


@dataclass(frozen=True)
class Part:
    """A table in a table."""

    name: str
    share: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, "share must lie in 0 .. 1")


@dataclass(frozen=True)
class Record:
    """Every kind of value that our files hold."""

    step: int
    done: bool
    name: str | None
    parts: tuple[Part, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


RECORD = Record(3, True, None, (Part("a"), Part("b", 1.0)), {"vae": 1.5})
PLAIN: dict[str, Any] = json.loads(json.dumps(to_dict(RECORD)).replace('"none"', "null"))

records = st.builds(
    Record,
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.booleans(),
    st.none() | st.text(),
    st.lists(st.builds(Part, st.text(), st.floats(0, 1)), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=3),
)


@given(records)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    mapping = to_dict(record) | {"name": record.name}
    assert record_of(Record, json.loads(json.dumps(mapping)), "state.json") == record


def test_keys_of_later_versions_pass(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    later = PLAIN | {"new": {"x": [1]}, "parts": [{"name": "a", "new": 1}, *PLAIN["parts"][1:]]}
    path.write_text(json.dumps(later))
    assert read_record(Record, path) == RECORD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": "3"}, "'step' is '3'; it must be a whole number"),
        ({"step": True}, "'step' is true; it must be a whole number"),
        ({"step": 10**30}, "'step' is 1000000000000000000000000000000; give a whole number of at most"),
        ({"step": None}, "'step' is a NoneType; it must be a whole number"),
        ({"done": 1}, "'done' is 1; it must be true or false"),
        ({"name": ["x"]}, "'name' is a list"),
        ({"parts": {}}, "'parts' is a table; it must be a list"),
        ({"parts": [{"name": "a"}, {}]}, "the key 'parts[1].name' is missing"),
        ({"parts": [{"name": "a", "share": 2}]}, "in [parts[0]] share must lie in 0 .. 1"),
        ({"seconds": {"vae": "long"}}, "'seconds.vae' is 'long'; it must be a number"),
        ({"name": "x", "parts": "y" * 10**6}, "'parts' is 'yyyy"),
    ],
)
def test_a_wrong_key_is_named_by_its_path_and_said_how_to_mend(change: dict[str, Any], words: str) -> None:
    with says(f"state.json: {words}", "; save it again", error=CheckpointError):
        record_of(Record, PLAIN | change, "state.json", CheckpointError, "save it again")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({key: value for key, value in PLAIN.items() if key != "done"}))
    with says("state.json: the key 'done' is missing; add it; restore it from a copy", error=DataError):
        read_record(Record, path)


@given(st.dictionaries(st.sampled_from([*PLAIN, "other"]), json_values, max_size=4))
@example({"seconds": {"\n": None}})
def test_any_values_of_its_keys_are_a_record_or_a_sentence(change: dict[str, Any]) -> None:
    found, refused = outcome(lambda: record_of(Record, PLAIN | change, "state.json"))
    assert refused.endswith("; restore it from a copy") if refused else isinstance(found, Record)
