"""The bridge between dataclasses and options: what parses, and one clear line for what does not."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from lsgm.config import StageConfig
from lsgm.errors import ConfigError
from lsgm.options import Positional, arg, parse
from lsgm.structure import from_dict


@dataclass(frozen=True)
class Order:
    """Two nested stages and a choice."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE")]
    """What to train."""
    stage1: StageConfig = field(default_factory=StageConfig)
    """The first stage."""
    stage2: StageConfig = field(default_factory=lambda: StageConfig(steps=7))
    """The second stage."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""
    flip: bool = False
    """Mirror."""


def order(*argv: str, default: Order | None = None) -> Order:
    return parse(
        Order, argv, prog="lsgm train", description="Train.", examples=["lsgm train glyphs"], default=default
    )


def complaint(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        order(*argv)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "╭" not in sentence
    assert "---" not in sentence
    return sentence


def test_every_nested_field_is_an_option_in_either_spelling() -> None:
    got = order("glyphs", "--stage1.batch-size", "3", "--stage2.batch_size=5", "--flip", "--device", "cuda")
    assert (got.recipe, got.stage1.batch_size, got.stage2.batch_size) == ("glyphs", 3, 5)
    assert (got.stage2.steps, got.flip, got.device) == (7, True, "cuda")


def test_options_override_a_default_instance_and_leave_the_rest() -> None:
    start = Order("omniglot", stage1=StageConfig(steps=11, ema=0.5))
    assert order("--stage1.ema", "0.25", default=start).stage1 == StageConfig(steps=11, ema=0.25)


def test_help_shows_examples_and_leaves_with_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        order("--help")
    page = capsys.readouterr().out
    assert leaving.value.code == 0
    assert "  lsgm train glyphs\n" in page
    assert "--stage1.batch-size" in page


@pytest.fixture(params=["utf-8", "UTF-8", "ascii"])
def encoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let standard output have an encoding: the frames around complaints are drawn with what it offers."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=request.param))


@pytest.mark.usefixtures("encoding")
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["g", "--stage1.stps", "3"], ["'--stage1.stps'", "did you mean '--stage1.steps'?"]),
        (["g", "--ema", "0.9"], ["'--ema'", "did you mean --stage1.ema or --stage2.ema?"]),
        (["g", "--qqqqqq"], ["no option '--qqqqqq'"]),
        (["g", "--stage1.steps", "x"], ["--stage1.steps", "'x'", "a whole number"]),
        (["g", "--stage1.ema", "x"], ["--stage1.ema", "'x'", "a number"]),
        (["g", "--stage1.steps"], ["--stage1.steps needs a value"]),
        (["g", "--device", "tpu"], ["--device is 'tpu'; give 'cpu', 'cuda'"]),
        (["g", "h"], ["no place for 'h'"]),
        ([], ["RECIPE is missing (What to train)"]),
    ],
)
def test_bad_input_is_one_line_that_names_the_thing_and_the_help(argv: list[str], words: list[str]) -> None:
    sentence = complaint(*argv)
    for word in [*words, "`lsgm train --help`"]:
        assert word in sentence


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--n", "all"], "--n is 'all', not a whole number"),
        (["--rate", "fast"], "--rate is 'fast'; give a number"),
    ],
)
def test_a_number_that_may_be_left_out_is_asked_for_in_the_same_words(argv: list[str], sentence: str) -> None:
    @dataclass(frozen=True)
    class Optional:
        n: int | None = None
        rate: float | None = None

    with pytest.raises(ConfigError, match=f"^{sentence}; `lsgm cook --help`"):
        parse(Optional, argv, prog="lsgm cook", description="Cook.", examples=["lsgm cook"])


def test_a_value_that_the_dataclass_refuses_keeps_its_own_sentence() -> None:
    assert complaint("g", "--stage1.warmup", "3").startswith("warmup is 3.0; give a share")


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("where", ["option", "equals", "positional"])
def test_an_empty_word_is_refused_and_never_the_working_directory(where: str, value: str) -> None:
    @dataclass(frozen=True)
    class Places:
        model: Annotated[Positional[Path], arg(metavar="RUN")]
        out: Path | None = None

    argv = {"option": ["run", "--out", value], "equals": ["run", f"--out={value}"], "positional": [value]}
    says = {
        "option": "^--out is empty",
        "equals": "^--out is empty",
        "positional": "^word 1 after `lsgm x` is",
    }
    with pytest.raises(ConfigError, match=says[where]):
        parse(Places, argv[where], prog="lsgm x", description="")


def test_an_option_of_which_an_empty_value_means_something_takes_it() -> None:
    @dataclass(frozen=True)
    class Reach:
        reach: str = "1"

    assert parse(Reach, ["--reach", ""], prog="x", description="", may_be_empty=["--reach"]) == Reach("")
    assert parse(Reach, ["--reach=a="], prog="x", description="") == Reach("a=")


@pytest.mark.parametrize("number", [2**63, 10**30])
def test_whole_numbers_of_more_than_63_bits_are_refused_wherever_they_stand(number: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"stage1\.steps is {number}; give a whole number of at most 2\^63"
    ):
        order("glyphs", f"--stage1.steps={number}")
    with pytest.raises(ConfigError, match=rf"x: 'stage1\.steps' is {number}; give a whole number of at most"):
        from_dict(Order, {"recipe": "x", "stage1": {"steps": number}}, "x")
    assert order("glyphs", f"--stage1.keep={2**63 - 1}").stage1.keep == 2**63 - 1
