"""The authors' files: told apart by what is in them, read without executing anything, or refused."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.read import Official, official_of, read_checkpoint

PRIOR = {"mixing_logit": (1, 2, 1, 1), "all_modules.0.weight": (4, 3), "all_modules.0.bias": (4,)}


def tensors(shapes: dict[str, tuple[int, ...]], fill: float) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((name, torch.full(shape, fill + i)) for i, (name, shape) in enumerate(shapes.items()))


def optimizer(averages: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The state of an optimiser that steps these tensors in order, averages included."""
    state = {
        i: {"step": 9, "exp_avg": torch.zeros_like(x), "ema": x} for i, x in enumerate(averages.values())
    }
    return {"state": state, "param_groups": [{"lr": 1e-4, "params": list(range(len(averages)))}]}


def averaged() -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 70,
        "args": argparse.Namespace(ema_decay=0.9999, dataset="mnist"),
        "vae_state_dict": tensors({"stem.weight": (2, 1, 3, 3)}, 0.0),
        "dae_state_dict": tensors(PRIOR, 10.0),
    }


def raw() -> dict[str, Any]:
    more = {"grad_scalar": {"scale": 1024.0}, "vae_optimizer": {"state": {}}, "best_score_fid": 1e10}
    return {**averaged(), "dae_optimizer": optimizer(tensors(PRIOR, 20.0)), **more}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def same(one: Official, other: Official) -> bool:
    def equal(left: dict[str, torch.Tensor] | None, right: dict[str, torch.Tensor] | None) -> bool:
        if left is None or right is None:
            return left is right
        return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)

    parts = all(equal(getattr(one, part), getattr(other, part)) for part in ("vae", "prior", "ema"))
    rest = (one.args, one.kind, one.epoch, one.step) == (other.args, other.kind, other.epoch, other.step)
    return parts and rest


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint_fid.pt", "checkpoint_nll.pt"])
def test_a_file_is_what_it_holds_whatever_its_name(tmp_path: Path, name: str) -> None:
    found = read_checkpoint(saved(raw(), tmp_path / name))
    assert (found.kind, found.epoch, found.step, found.args["dataset"]) == ("raw", 3, 70, "mnist")
    assert found.prior is not None
    assert found.ema is not None
    assert float(found.prior["all_modules.0.bias"][0]) == 12.0
    assert float(found.ema["all_modules.0.bias"][0]) == 22.0
    found = read_checkpoint(saved(averaged(), tmp_path / name))
    assert (found.kind, found.ema) == ("averaged", None)


def test_a_file_of_stage_1_holds_a_vae_alone(tmp_path: Path) -> None:
    content = {"epoch": 1, "args": argparse.Namespace(), "state_dict": tensors({"stem.bias": (2,)}, 5.0)}
    found = read_checkpoint(saved(content, tmp_path / "vae.pt"))
    assert (found.kind, found.prior, found.step, list(found.vae)) == ("vae", None, 0, ["stem.bias"])


def test_an_average_belongs_to_the_parameter_that_its_group_lists() -> None:
    content, averages = raw(), tensors(PRIOR, 20.0)
    index = [7, 3, 5]
    state = {i: {"ema": x} for i, x in zip(index, averages.values(), strict=True)}
    content["dae_optimizer"] = {
        "state": state,
        "param_groups": [{"params": index[:2]}, {"params": index[2:]}],
    }
    found = official_of(content, Path("f"))
    assert found.ema is not None
    assert all(torch.equal(found.ema[name], averages[name]) for name in PRIOR)


@pytest.mark.parametrize("stepped", [True, False], ids=["parameter", "buffer"])
def test_frequencies_that_are_never_trained_are_their_own_average(stepped: bool) -> None:
    content = raw()
    content["dae_state_dict"]["temb_fun.w"] = torch.arange(3.0)
    if stepped:  # the optimiser lists it, and has no state of it
        content["dae_optimizer"]["param_groups"][0]["params"].append(3)
    found = official_of(content, Path("f"))
    assert found.ema is not None
    assert torch.equal(found.ema["temb_fun.w"], torch.arange(3.0))


def test_without_averaging_there_is_no_average() -> None:
    content = raw()
    content["args"].ema_decay = 0.0
    for entry in content["dae_optimizer"]["state"].values():
        del entry["ema"]
    assert official_of(content, Path("f")).ema is None


@settings(deadline=None, max_examples=25)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_says_nothing(random: Any) -> None:
    def shuffled(mapping: dict[Any, Any]) -> dict[Any, Any]:
        return dict(random.sample(list(mapping.items()), len(mapping)))

    content, wanted = shuffled(raw()), official_of(raw(), Path("f"))
    content["args"] = argparse.Namespace(**shuffled(vars(content["args"])))
    content["vae_state_dict"] = shuffled(content["vae_state_dict"])
    content["dae_optimizer"] = shuffled(content["dae_optimizer"])
    content["dae_optimizer"]["state"] = shuffled(content["dae_optimizer"]["state"])
    assert same(official_of(content, Path("f")), wanted)


class Payload:
    """What runs a command when it is unpickled by a reader that trusts the file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo owned > {self.victim}",)


class Harmless:
    pass


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("way", ["zip", "legacy", "plain"])
def test_a_payload_is_named_and_never_runs(tmp_path: Path, way: str, protocol: int) -> None:
    file, victim = tmp_path / "checkpoint.pt", tmp_path / "owned"
    content = {**raw(), "extra": Payload(victim)}
    if way == "plain":
        file.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        zipped = way == "zip"
        torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"names the class {os.name}\.system, .* was executed"):
        read_checkpoint(file)
    assert not victim.exists()


def test_a_class_of_ones_own_is_named_too(tmp_path: Path) -> None:
    content = averaged()
    content["args"].helper = Harmless()
    with pytest.raises(CheckpointError, match=r"names the class \S+\.Harmless"):
        read_checkpoint(saved(content, tmp_path / "f.pt"))


def test_nothing_stays_allowed_afterwards(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    file = saved(averaged(), tmp_path / "f.pt")
    read_checkpoint(file)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(Exception, match=r"argparse\.Namespace"):
        torch.load(file, weights_only=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_called_so(tmp_path: Path, share: float) -> None:
    file = saved(raw(), tmp_path / "checkpoint.pt")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(
        CheckpointError, match=r"checkpoint\.pt is truncated or no checkpoint of torch's; copy"
    ):
        read_checkpoint(file)


def test_what_is_no_file_is_called_so(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.pt"):
        with pytest.raises(CheckpointError, match="there is no file"):
            read_checkpoint(path)


def _without(content: dict[str, Any], *path: Any) -> dict[str, Any]:
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2], "it holds no table of state dicts"),
        (_without(raw(), "args"), "it has no 'args'"),
        ({**raw(), "args": {"dataset": "mnist"}}, "its 'args' are not a Namespace"),
        (_without(raw(), "vae_state_dict"), "it has no 'vae_state_dict'"),
        (_without(raw(), "dae_state_dict"), "it has no 'dae_state_dict'"),
        (
            {**raw(), "vae_state_dict": {"stem.weight": 3}},
            "'stem.weight' in its 'vae_state_dict' is not a tensor",
        ),
        ({**raw(), "epoch": "three"}, "its 'epoch' is not a count"),
        ({**raw(), "dae_optimizer": {"state": {}}}, "its 'dae_optimizer' is not the state of an optimiser"),
        (_without(raw(), "dae_state_dict", "mixing_logit"), "'dae_optimizer' steps 3 tensors"),
        (_without(raw(), "dae_optimizer", "state", 1), "no averaged weights of 'all_modules.0.weight'"),
        (_without(raw(), "dae_optimizer", "state", 2, "ema"), "no averaged weights of 'all_modules.0.bias'"),
        (
            {**raw(), "dae_optimizer": optimizer(tensors({**PRIOR, "all_modules.0.bias": (5,)}, 0.0))},
            "the average of 'all_modules.0.bias' is [5] and the tensor [4]",
        ),
    ],
)
def test_another_file_is_refused_in_a_sentence_that_names_the_thing(
    tmp_path: Path, content: Any, complaint: str
) -> None:
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(saved(content, tmp_path / "f.pt"))
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
