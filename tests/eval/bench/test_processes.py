"""The benchmark of several processes: what one does of the work, and what is made of the seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny

from lsgm.distributed import ALONE
from lsgm.errors import ConfigError
from lsgm_eval.bench import processes
from lsgm_eval.bench.options import ProcessesBenchOptions


def test_a_process_trains_and_scores_its_part(tmp_path: Path) -> None:
    images = tiny.folder_of_images(tmp_path / "images")
    recipe = tiny.toml(tmp_path / "small.toml", {"data": {"dataset": str(images), "image_size": 8}})
    options = ProcessesBenchOptions(recipe=str(recipe), steps=5, images=2, batch=2)
    ways = processes._ways(ALONE, tmp_path, options, 2)
    assert ways["train"]() > 0  # type: ignore[operator]
    ways["likelihood"]()
    manifest = json.loads((tmp_path / "run-0" / "checkpoints" / "step-0000005" / "state.json").read_text())
    assert (manifest["stage"], manifest["images"]) == ("stage2", 5 * 4)  # half of a batch of 8
    assert list((tmp_path / "scores-1").iterdir())


def test_gains_are_of_the_fastest_rounds_and_held_against_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {(1, False): [9.0, 4.0, 8.0], (2, False): [9.0, 3.0, 2.5], (2, True): [9.0, 2.0, 5.0]}

    @contextmanager
    def started(size: int, apart: bool, *others: Any) -> Iterator[Any]:
        answers = iter(told[size, apart])
        yield type("Group", (), {"ask": lambda self, part: next(answers)})()

    monkeypatch.setattr(processes, "_started", started)
    words = ["--only", "train", "--rounds", "2", "--device", "cpu", "--extractor", "glyphs"]
    assert processes.run([*words, "--out", str(tmp_path / "page.md")]) == 0
    page = capsys.readouterr().out
    assert "missed: two that share nothing gain 2.00 x here" in page
    rows = [json.loads(line) for line in (tmp_path / "page.jsonl").read_text().splitlines()]
    # The first round of each does not count.
    assert [(row["processes"], row["apart"], row["fastest"], row["gain"]) for row in rows] == [
        (1, False, 4.0, 1.0),
        (2, False, 2.5, 1.6),
        (2, True, 2.0, 2.0),
    ]
    assert [row.get("target") for row in rows] == [None, "two-trainings", None]


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="there is no part 'sample'; did you mean 'samples'"):
        processes.run(["--only", "sample"])
    with pytest.raises(ConfigError, match="three do not count"):
        processes.run(["--steps", "3"])
