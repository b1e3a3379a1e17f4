"""Official files with what does not belong there: arguments, weights and optimisers of every wrong kind."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from upstream import stage1, stage2

from lsgm import cli
from lsgm.errors import CheckpointError, ConfigError, UserError
from lsgm.interop.nvlabs.arguments import recipe_of
from lsgm.interop.nvlabs.convert import convert
from lsgm.interop.nvlabs.read import STEM, TRANSLATED, check_names, official_of, read_checkpoint
from lsgm.interop.taken import Native
from lsgm.kinds import recipe_from
from lsgm.runs.load import load_model
from lsgm.structure import to_dict

FILE = Path("checkpoint.pt")
CYCLE: list[Any] = []
CYCLE.append(CYCLE)

ODD: dict[str, Any] = {
    "text": "x",
    "list": [1, "x"],
    "table": {},
    "not a number": math.nan,
    "infinity": -math.inf,
    "400 digits": 10**400,
    "2^62": 2**62,
    "a billion": 10**9,
    "negative": -3,
    "zero": 0,
    "fraction": 1.5,
    "truth": True,
    "itself": CYCLE,
    "bytes": b"x",
    "tensor": torch.ones(2),
    "half of a character": "\ud800",
    "escapes": "\x1b[31m\n",
    "nothing": None,
}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return stage2(steps=3)


def native(content: dict[str, Any]) -> Native[Any]:
    return convert(official_of(content, FILE))


def complaint(content: Any) -> str:
    with pytest.raises(CheckpointError) as refused:
        native(content)
    sentence = str(refused.value)
    assert sentence.isprintable()
    assert len(sentence) < 600
    return sentence


@pytest.mark.parametrize("value", ODD)
def test_an_argument_of_any_value_is_taken_or_refused_in_a_sentence(
    content: dict[str, Any], value: str
) -> None:
    args = vars(content["args"])
    for name in sorted(args.keys() & TRANSLATED.keys()):
        changed = {**content, "args": argparse.Namespace(**{**args, name: ODD[value]})}
        sentence = ""
        try:
            recipe = recipe_of(official_of(changed, FILE).args)
        except CheckpointError as error:
            sentence = str(error)
        else:
            assert recipe_from(to_dict(recipe), "its settings") == recipe, name
        assert sentence.isprintable(), name
        assert len(sentence) < 600, name


@pytest.mark.parametrize("value", ["text", "list", "table", "not a number", "400 digits", "itself", "tensor"])
def test_the_decay_of_averages_is_a_number(content: dict[str, Any], value: str) -> None:
    args = argparse.Namespace(**{**vars(content["args"]), "ema_decay": ODD[value]})
    assert "'ema_decay' is" in complaint({**content, "args": args})


def test_an_argument_that_nothing_looks_at_must_be_of_its_type_too(content: dict[str, Any]) -> None:
    args = argparse.Namespace(**{**vars(content["args"]), "update_q_ema": "x"})
    assert "'update_q_ema' is 'x'" in complaint({**content, "args": args})


def changed(
    content: dict[str, Any], part: str, change: Callable[[Tensor], Any]
) -> tuple[dict[str, Any], str]:
    """A checkpoint with one of a part's tensors changed, and its name."""
    state, name = dict(content[part]), {"vae_state_dict": "stem.weight", "dae_state_dict": STEM}[part]
    state[name] = change(state[name])
    # The averages, which would no longer fit, are left out.
    return {**{key: value for key, value in content.items() if key != "dae_optimizer"}, part: state}, name


WRONG: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "complex": (lambda x: x.to(torch.complex64), "is of complex64, and weights are floating-point"),
    "whole": (lambda x: x.to(torch.int32), "is of int32, and weights are floating-point"),
    "truths": (lambda x: x > 0, "is of bool, and weights are floating-point"),
    "eight bits": (lambda x: x.to(torch.float8_e4m3fn), "is of float8_e4m3fn"),
    "not finite": (lambda x: x * math.nan, "not finite"),
    "too large": (lambda x: x.double() + 1e300, "not finite"),
    "sparse": (lambda x: x.to_sparse(), "is no plain tensor"),
    "quantised": (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "is no plain tensor"),
    "without numbers": (lambda x: x.to("meta"), "is no plain tensor"),
    "one number everywhere": (lambda x: x.flatten()[:1].expand(x.shape), "of fewer numbers than that"),
    "no tensor": (lambda x: x.tolist(), "is not a tensor"),
    "nothing": (lambda x: None, "is not a tensor"),
    "another shape": (lambda x: x.flatten(), "does not fit"),
    "empty": (lambda x: x[:0], "does not fit"),
    "no shape": (lambda x: x.sum(), "does not fit"),
}


@pytest.mark.parametrize("part", ["vae_state_dict", "dae_state_dict"])
@pytest.mark.parametrize("kind", WRONG)
def test_weights_of_another_kind_are_refused_by_name(content: dict[str, Any], part: str, kind: str) -> None:
    change, words = WRONG[kind]
    other, name = changed(content, part, change)
    sentence = complaint(other)
    assert words in sentence
    assert f"'{name}'" in sentence


@pytest.mark.parametrize("kind", ["sparse", "quantised", "without numbers", "complex"])
def test_such_weights_are_refused_out_of_a_file_too(
    content: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    other, name = changed(content, "vae_state_dict", WRONG[kind][0])
    torch.save(other, tmp_path / "f.pt")
    with pytest.raises(CheckpointError, match=f"'{name}'"):
        convert(read_checkpoint(tmp_path / "f.pt"))


def test_whole_numbers_are_not_taken_from_fractions(content: dict[str, Any]) -> None:
    state = dict(content["vae_state_dict"])
    name = next(name for name in state if name.endswith("num_batches_tracked"))
    for value in (torch.tensor(3.5), torch.tensor(True), torch.tensor(1j)):
        assert "belongs to whole numbers" in complaint({**content, "vae_state_dict": {**state, name: value}})


@pytest.mark.parametrize(
    "state", [{}, None, [], "x", 3, {1: torch.ones(1)}, {("a",): torch.ones(1)}], ids=repr
)
def test_a_state_dict_without_names_or_tensors_is_refused(content: dict[str, Any], state: Any) -> None:
    for part in ("vae_state_dict", "dae_state_dict"):
        assert part in complaint({**content, part: state})


def optimiser(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**content, "dae_optimizer": {**content["dae_optimizer"], **changes}}


@pytest.mark.parametrize(
    "changes",
    [
        {"param_groups": []},
        {"param_groups": [{}]},
        {"param_groups": {}},
        {"param_groups": [[0, 1]]},
        {"param_groups": [{"params": "abc"}]},
        {"param_groups": [{"params": [0, 0, 1]}]},
        {"param_groups": [{"params": [math.nan, "x", None]}]},
        {"state": []},
        {"state": {"x": {}}},
        {"state": {0: 3}},
        {"state": {0: {"ema": "x"}}},
        {"state": {0: {"ema": torch.ones(3).to_sparse()}}},
        {"state": {}},
    ],
    ids=repr,
)
def test_an_optimiser_with_parts_of_another_kind_is_refused(
    content: dict[str, Any], changes: dict[str, Any]
) -> None:
    sentence = complaint(optimiser(content, **changes))
    assert "dae_optimizer" in sentence or "the average of" in sentence


@pytest.mark.parametrize(
    "value", [-1, True, 1.5, math.nan, 2**70, "3", [3], torch.ones(2), torch.tensor(1j)], ids=repr
)
def test_a_count_is_one(content: dict[str, Any], value: Any) -> None:
    assert "its 'global_step' is not a count" in complaint({**content, "global_step": value})


def test_more_cells_than_tensors_are_never_built(content: dict[str, Any]) -> None:
    for name in ("num_cell_per_cond_enc", "num_preprocess_cells", "num_cell_per_scale_dae", "num_nf"):
        args = argparse.Namespace(**{**vars(content["args"]), name: 50_000})
        sentence = complaint({**content, "args": args})
        assert re.search(r"(50|100),\d{3} layers or more, and the file has \d+ tensors", sentence)


def test_names_of_a_thousand_wrappers_are_no_names(content: dict[str, Any]) -> None:
    state = {"module." * 1000 + name: value for name, value in content["vae_state_dict"].items()}
    assert "lacks" in complaint({**content, "vae_state_dict": state})


@pytest.mark.parametrize("name", ["num_nf", "dataset", "ema_decay"])
def test_what_says_what_the_model_is_cannot_be_ignored(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"--ignore names '{name}', which says what the model is"):
        check_names([name], [name])


@pytest.mark.parametrize("names", [[""], [".*"], ["("], ["\x1b[31m"], ["\ud800"], ["x" * 10**6], ["root"]])
def test_odd_names_to_ignore_leave_the_others_refused(names: list[str]) -> None:
    check_names(["dataset", *names], names)
    with pytest.raises(CheckpointError, match="'use_adain', which is not known here"):
        check_names(["dataset", "use_adain"], names)


def test_unknown_arguments_are_shown_on_one_line() -> None:
    for names in (["\x1b[31m\n"], ["a b", "$(c)"], [f"x{i}" for i in range(10**5)]):
        with pytest.raises(CheckpointError) as refused:
            check_names(names)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 600


def test_what_a_file_says_besides_is_recorded_in_brief_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    deep: Any = []
    for _ in range(40):
        deep = [deep]
    content = stage1()
    others = {"save": "\ud800", "root": "x" * 10**6, "data": deep, "local_rank": 10**400, "fid_dir": "\0"}
    content["args"] = argparse.Namespace(**vars(content["args"]), **others)
    torch.save(content, tmp_path / "checkpoint.pt")
    assert cli.main(["import", "nvlabs", str(tmp_path / "checkpoint.pt"), str(tmp_path / "run")]) == 0
    (state,) = (tmp_path / "run").glob("checkpoints/*/state.json")
    assert len(state.read_text()) < 30_000
    assert load_model(tmp_path / "run").name == "run"
    assert json.loads(state.read_text())["meta"]["imported"]["args"]["save"] == r"'\ud800'"


def _link(out: Path) -> None:
    out.symlink_to(out.parent / "elsewhere")


@pytest.mark.parametrize(
    "there",
    [_link, Path.touch, Path.mkdir, *([os.mkfifo] if hasattr(os, "mkfifo") else [])],
    ids=["dead link", "file", "folder", "pipe"],
)
def test_nothing_is_written_where_something_is(there: Callable[[Path], Any], tmp_path: Path) -> None:
    torch.save(stage1(), tmp_path / "f.pt")
    there(tmp_path / "run")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match="exists already"):
        cli._dispatch(["import", "nvlabs", str(tmp_path / "f.pt"), str(tmp_path / "run")])
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["f.pt/run", "x" * 300])
def test_a_place_that_cannot_be_is_one_sentence_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    torch.save(stage1(), tmp_path / "f.pt")
    with pytest.raises((CheckpointError, ConfigError)):
        cli._dispatch(["import", "nvlabs", str(tmp_path / "f.pt"), str(tmp_path / name)])
    assert [path.name for path in tmp_path.rglob("*")] == ["f.pt"]
