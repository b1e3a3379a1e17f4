"""The batch, or its parts, that memory has room for; a run goes on with what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from lsgm.errors import ConfigError
from lsgm.runs.directory import Run
from lsgm.train import fitting
from lsgm.train.fitting import NOISE, fewest_parts, largest_that_fits
from lsgm.train.loop import train_recipe


def growing(each: int, tried: list[int], ends: int = 2**40) -> Callable[[int], int | None]:
    def peak(size: int) -> int | None:
        tried.append(size)
        return None if size > ends else 100 * NOISE + each * size

    return peak


def test_a_gpu_is_tried_until_its_memory_ends_or_the_room_is_used_up() -> None:
    tried: list[int] = []
    assert largest_that_fits(growing(NOISE, tried, ends=20), 10**12, 512, foresee=False) == 16
    assert tried == [1, 2, 4, 8, 16, 32]
    assert largest_that_fits(growing(NOISE, []), 100 * NOISE + 9 * NOISE, 512, foresee=False) == 8
    assert largest_that_fits(growing(NOISE, []), 10**12, 100, foresee=False) == 64
    assert largest_that_fits(growing(NOISE, [], ends=0), 10**12, 100, foresee=False) == 0


def test_elsewhere_growth_is_foreseen_where_it_can_be_told_from_noise() -> None:
    tried: list[int] = []
    assert largest_that_fits(growing(NOISE, tried), 100 * NOISE + 300 * NOISE, 4096, foresee=True) == 256
    assert tried == [1, 2, 4]
    tried.clear()
    assert largest_that_fits(growing(NOISE // 10, tried), 10**12, 64, foresee=True) == 64
    assert tried == [1, 2, 4, 8, 16, 32]


def test_parts_are_equal_and_fit() -> None:
    assert [fewest_parts(12, fitting) for fitting in (16, 12, 8, 5, 1)] == [1, 1, 2, 3, 12]


def test_a_batch_is_found_for_each_stage_and_the_run_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 training images: 16 of them are the largest power of two."""
    few = tiny.bars(20)
    steps = {"stage1": {"steps": 1}, "stage2": {"steps": 2}}
    train_recipe(tiny.recipe(steps), tmp_path, images=few, auto=["batch_size"], max_steps=1)
    config = Run(tmp_path).config()
    assert [config[stage]["batch_size"] for stage in ("stage1", "stage2")] == [16, 16]

    def refuse(*_: Any) -> int:
        raise AssertionError("it was found before")

    monkeypatch.setattr(fitting, "_fitting", refuse)
    assert train_recipe(tiny.recipe(steps), tmp_path, images=few, auto=["batch_size"]).finished
    assert Run(tmp_path).config() == config


def test_the_recipes_own_batch_comes_in_the_fewest_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fitting, "_fitting", lambda *_: 2)
    steps = {"stage1": {"steps": 1}, "stage2": {"steps": 1}}
    assert train_recipe(tiny.recipe(steps), tmp_path, images=tiny.bars(), auto=["accumulate"]).finished
    assert Run(tmp_path).config()["stage2"]["accumulate"] == 4
    assert "stage2: accumulate = 4, by trying" in capsys.readouterr().err
    monkeypatch.setattr(fitting, "_fitting", lambda *_: 0)
    with pytest.raises(ConfigError, match="stage1 on one image takes more memory"):
        train_recipe(tiny.recipe(steps), tmp_path / "no", images=tiny.bars(), auto=["accumulate"])
    assert not (tmp_path / "no").exists()
