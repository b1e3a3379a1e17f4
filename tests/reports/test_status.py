"""``status.json``: what is not finished is said, and a file that says nothing is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lsgm.errors import DataError
from lsgm.results.status import read_status
from lsgm_reports.blocks import Bullets, Text
from lsgm_reports.document import not_finished
from lsgm_reports.read import results_of

PLANNED = [
    {"model": "lsgm", "measurement": "quality", "state": "done", "why": None},
    {"model": "lsgm", "measurement": "nelbo", "state": "failed", "why": "out of memory"},
    {"model": "vae", "measurement": "quality", "state": "left", "why": None},
]
GIVEN: dict[str, Any] = {
    "format": 1,
    "command": ["lsgm", "eval", "glyphs", "--model", "my run"],
    "state": "stopped",
    "why": "interrupted at the keyboard",
    "started": "2026-01-01T10:00:00+00:00",
    "updated": "2026-01-01T11:00:00+00:00",
    "planned": PLANNED,
}


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "status.json"
    file.write_text(json.dumps(GIVEN | changes), encoding="utf-8")
    return file


def test_what_is_missing_is_listed_with_its_reason(tmp_path: Path) -> None:
    section = not_finished([read_status(write(tmp_path))])
    assert section is not None
    assert section.title == "Not finished"
    assert section.blocks == [
        Text(
            "`lsgm eval glyphs --model 'my run'` was stopped (2026-01-01T11:00:00+00:00): interrupted at the "
            "keyboard. 2 of 3 measurements are missing; the same command goes on where it ended."
        ),
        Bullets(["lsgm, nelbo: failed (out of memory)", "vae, quality: not begun"]),
    ]


def test_a_killed_command_was_still_running(tmp_path: Path) -> None:
    status = read_status(write(tmp_path, state="running", why=None))
    assert "was still running when this was written" in status.outcome


def test_what_came_to_its_end_needs_no_section(tmp_path: Path) -> None:
    assert (
        not_finished([read_status(write(tmp_path, state="finished", why=None, planned=PLANNED[:1]))]) is None
    )
    assert not_finished([read_status(write(tmp_path, state="finished", why=None))]) is not None


def test_a_folder_without_a_finished_measurement_says_how_its_command_ended(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match=r"nothing is measured yet in .*: `lsgm eval .* was stopped"):
        results_of(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "its format is 2, and this version reads 1"),
        ({"state": "lost"}, "the state is 'lost', not one of running, stopped, failed, finished"),
        ({"planned": [{"model": "a", "measurement": "b"}]}, "the key 'planned[0].state' is missing"),
        ({"planned": 3}, "'planned' is 3; it must be a list"),
    ],
)
def test_a_malformed_status_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_status(write(tmp_path, **changes))
    assert str(tmp_path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", '{"format": 1', "[]", "null"])
def test_no_json_object_is_named_too(text: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(DataError, match=r"status\.json is not (valid JSON|a JSON object).*measure again"):
        read_status(tmp_path / "status.json")
