"""Dataclasses to plain values and back: lossless for what is right, one sentence for what is not."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from lsgm.config import DataConfig, DensityConfig, OptimConfig, SDEConfig, StageConfig
from lsgm.errors import ConfigError
from lsgm.structure import from_dict, to_dict


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Conv:
    kind: Literal["conv"] = "conv"
    width: int = 8


@dataclass(frozen=True)
class Mlp:
    kind: Literal["mlp"] = "mlp"
    layers: tuple[int, ...] = (64,)


@dataclass(frozen=True)
class Model:
    name: str
    net: Conv | Mlp = field(default_factory=Conv)
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 0.5)
    colour: Colour = Colour.RED
    budget: float | None = 60.0
    folder: Path = Path("here")
    weights: dict[str, float] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    level: Literal["low", 3] = "low"


models = st.builds(
    Model,
    name=st.text(max_size=5),
    net=st.builds(Conv, width=st.integers(1, 64)) | st.builds(Mlp, layers=st.tuples(st.integers(1, 64))),
    sizes=st.lists(st.integers(-(2**40), 2**40), max_size=4).map(tuple),
    pair=st.tuples(st.integers(0, 9), st.floats(allow_nan=False)),
    colour=st.sampled_from(Colour),
    budget=st.none() | st.floats(allow_nan=False),
    folder=st.sampled_from([Path("a/b"), Path("/")]),
    weights=st.dictionaries(st.text("ab.-", max_size=3), st.floats(allow_nan=False), max_size=3),
    optim=st.builds(OptimConfig, name=st.sampled_from(["adam", "adamax"]), lr=st.floats(1e-4, 1)),
    level=st.sampled_from(["low", 3]),
)


@settings(deadline=None, max_examples=60)
@given(models)
def test_a_config_survives_the_way_through_toml(model: Model) -> None:
    text = tomli_w.dumps(to_dict(model))
    assert from_dict(Model, tomllib.loads(text), "file") == model


@pytest.mark.parametrize("config", [DataConfig(), SDEConfig(), StageConfig(), OptimConfig(), DensityConfig()])
def test_every_shared_config_survives_too(config: Any) -> None:
    assert from_dict(type(config), to_dict(config), "file") == config


def test_a_default_of_none_is_left_out_and_another_none_is_written() -> None:
    assert "seconds" not in to_dict(StageConfig())
    assert to_dict(Model("m", budget=None))["budget"] == "none"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"name": "m", "sises": [1]}, ["unknown key 'sises'", "did you mean 'sizes'?"]),
        ({"name": "m", "optim": {"beta": 1.0}}, ["unknown key 'optim.beta'", "did you mean 'beta"]),
        ({"name": "m", "optim": {"qqq": 1}}, ["'optim.qqq'", "the keys here are beta1"]),
        ({}, ["the key 'name' is missing"]),
        ({"name": 3}, ["'name' is 3", "must be text"]),
        ({"name": "m", "sizes": ["a"]}, ["'sizes[0]' is 'a'", "a whole number"]),
        ({"name": "m", "sizes": [True]}, ["'sizes[0]' is true", "a whole number"]),
        ({"name": "m", "sizes": 3}, ["'sizes' is 3", "a list"]),
        ({"name": "m", "sizes": [1.5]}, ["'sizes[0]' is 1.5"]),
        ({"name": "m", "pair": [1]}, ["'pair' has 1 entries", "must have 2"]),
        ({"name": "m", "colour": "rad"}, ["'colour' is 'rad'", "'blue'", "did you mean 'red'?"]),
        ({"name": "m", "level": 4}, ["'level' is 4", "one of 'low', 3"]),
        ({"name": "m", "budget": "x"}, ["'budget' is 'x'", "a number"]),
        ({"name": "m", "optim": 3}, ["'optim' is 3", "must be a table"]),
        ({"name": "m", "weights": {"a": "b"}}, ["'weights.a' is 'b'"]),
        ({"name": "m", "net": {"kind": "mlp", "width": 3}}, ["unknown key 'net.width'", "layers"]),
        ({"name": "m", "optim": {"lr": -1.0}}, ["in [optim]", "the learning rate is -1.0"]),
    ],
)
def test_a_wrong_table_is_answered_with_the_path_of_the_key(table: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(Model, table, "recipe x")
    sentence = str(caught.value)
    assert sentence.startswith("recipe x: ")
    for word in words:
        assert word in sentence


def test_dashes_and_whole_numbers_are_understood() -> None:
    assert from_dict(StageConfig, {"batch-size": 3, "ema": 0}, "file") == StageConfig(batch_size=3, ema=0.0)


def test_an_empty_path_is_refused_and_never_the_working_directory() -> None:
    @dataclass(frozen=True)
    class Place:
        where: Path

    assert from_dict(Place, {"where": "."}, "x.toml") == Place(Path("."))
    with pytest.raises(ConfigError, match=r"x\.toml: 'where' is empty; give a path"):
        from_dict(Place, {"where": ""}, "x.toml")
