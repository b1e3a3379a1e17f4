"""optimizer.pt of strangers: every entry is held against the optimisers before its use, and told by name."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from re import search
from typing import Any

import pytest
import torch
from sealed import reoptimise, seal
from train_toy import run_toy, weights

from lsgm.errors import CheckpointError
from lsgm.runs.checkpoint import find_checkpoint
from lsgm.runs.optimizers import StoredFile

Change = Callable[[dict[str, Any]], None]


def refused(run: Path) -> str:
    """Return the sentence with which a run that goes on refuses its newest checkpoint."""
    before = {path: path.read_bytes() for path in find_checkpoint(run).iterdir()}
    with pytest.raises(CheckpointError) as caught:
        run_toy(run)
    assert before == {path: path.read_bytes() for path in find_checkpoint(run).iterdir()}
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def setting(**values: Any) -> Change:
    return lambda saved: saved["vae"]["param_groups"][0].update(values)


def entry(**values: Any) -> Change:
    return lambda saved: saved["vae"]["state"][0].update(values)


def without(key: str) -> Change:
    def change(saved: dict[str, Any]) -> None:
        del saved["vae"]["state"][0][key]

    return change


def whole(value: Any) -> Change:
    return lambda saved: saved.update(vae=value)


def extra(entries: dict[Any, Any]) -> Change:
    return lambda saved: saved["vae"]["state"].update(entries)


def drop(saved: dict[str, Any]) -> None:
    del saved["vae"]["state"][1]


HOSTILE: dict[str, tuple[Change, str]] = {
    "moments of another shape": (
        entry(exp_avg=torch.zeros(400, 4)),
        r"of 'parts.vae.weight' 'exp_avg' is \[400, 4\] there and \[4, 4\] here",
    ),
    "moments without numbers": (entry(exp_avg=torch.zeros(0)), r"'exp_avg' is \[0\] there"),
    "second moments of another shape": (entry(exp_avg_sq=torch.zeros(1)), r"'exp_avg_sq' is \[1\]"),
    "half moments": (entry(exp_avg=torch.zeros(4, 4).half()), "'exp_avg' is float16 there and float32 here"),
    "whole moments": (entry(exp_avg=torch.zeros(4, 4).long()), "'exp_avg' is int64 there"),
    "moments that are no tensor": (entry(exp_avg=[0.0]), "'exp_avg' is no tensor"),
    "infinite moments": (entry(exp_avg=torch.full((4, 4), torch.inf)), "'exp_avg' has numbers that are not"),
    "negative second moments": (entry(exp_avg_sq=-torch.ones(4, 4)), "'exp_avg_sq' has numbers below 0"),
    "no second moments": (without("exp_avg_sq"), "'exp_avg_sq' is missing"),
    "no steps": (without("step"), "'step' is missing"),
    "moments of another rule": (entry(max_exp_avg_sq=torch.zeros(4, 4)), "there is 'max_exp_avg_sq'"),
    "steps as text": (entry(step="4"), "'step' is no number"),
    "steps of a shape": (entry(step=torch.ones(4, 4)), r"'step' is \[4, 4\], not one number"),
    "steps that are no number": (entry(step=torch.tensor(torch.nan)), "'step' is nan"),
    "negative steps": (entry(step=torch.tensor(-1.0)), "'step' is -1, and the stage has made 4"),
    "steps to come": (entry(step=torch.tensor(1e9)), r"'step' is 1e\+09, and the stage has made 4"),
    "a missing entry": (drop, "it lacks the entry of 'parts.vae.bias'"),
    "an entry too many": (extra({7: {}}), "it has an entry '7', and there are 2"),
    "an entry by name": (extra({"x": {}}), "it has an entry 'x'"),
    "an entry that is no table": (extra({0: 3}), "the entry is no table"),
    "a state that is no table": (lambda saved: saved["vae"].update(state=[]), "its 'state' is no table"),
    "a rate as text": (setting(lr="x"), "its 'lr' is 'x', not a learning rate"),
    "a rate that is no number": (setting(lr=float("nan")), "its 'lr' is nan"),
    "a rate as a tensor": (setting(lr=torch.tensor(1.0)), "its 'lr' is a tensor"),
    "one beta": (setting(betas=(0.9,)), r"its 'betas' is \(0.9,\), and \(0.9, 0.999\) in the configuration"),
    "betas as text": (setting(betas=("a", "b")), "its 'betas' is a tuple"),
    "another eps": (setting(eps=-1.0), "its 'eps' is -1.0"),
    "weight decay as text": (setting(weight_decay="0"), "its 'weight_decay' is '0'"),
    "another rule": (setting(amsgrad=True), "its 'amsgrad' is True, and False"),
    "parameters twice": (setting(params=[0, 0]), "its 'params' are not the numbers of 2 parameters"),
    "no parameters": (setting(params=[]), "its 'params' are not the numbers"),
    "no settings": (lambda saved: saved["vae"].update(param_groups=[]), "its 'param_groups' is no list"),
    "settings as a table": (lambda saved: saved["vae"].update(param_groups={}), "its 'param_groups' is no"),
    "a group that is a list": (whole([1]), "it has not 'state' and 'param_groups'"),
    "a group without a state": (whole({}), "it has not 'state' and 'param_groups'"),
    "another group": (lambda saved: saved.update(x={}), "has the parameter groups"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_optimiser_states_that_do_not_fit_are_named(run: Path, kind: str) -> None:
    change, said = HOSTILE[kind]
    reoptimise(find_checkpoint(run), change)
    assert search(said, sentence := refused(run)), sentence


@pytest.mark.parametrize("flags", [{"fused": True}, {"foreach": True}, {"capturable": True, "fused": None}])
def test_how_an_optimiser_computes_is_not_the_files_to_say(
    run: Path, begun: Path, flags: dict[str, Any]
) -> None:
    reoptimise(find_checkpoint(run), setting(**flags))
    run_toy(run)
    again = Path(shutil.copytree(begun, run.parent / "again"))
    run_toy(again)
    assert weights(run) == weights(again)


def zipped(parts: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, content in parts.items():
            archive.writestr(f"archive/{name}", content)
    return out.getvalue()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b")" + b"\x85" * depth + b"."


FOREIGN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is no zip"),
    "no zip": (b"x" * 1000, "is no zip"),
    "an empty zip": (zipped({}), "has no data.pkl"),
    "two pickles": (zipped({"data.pkl": b"N.", "a/data.pkl": b"N."}), "has no data.pkl"),
    "a packed pickle": (zipped({"data.pkl": b"\0" * 10**6}, zipfile.ZIP_DEFLATED), "it is packed"),
    "a large pickle": (zipped({"data.pkl": b"N" * 5 * 2**20}), "LSGM_LARGEST_PICKLE"),
    "a pickle that ends early": (zipped({"data.pkl": b"\x80\x02}"}), "."),
    "an empty pickle": (zipped({"data.pkl": b""}), "."),
    "a number in the end": (zipped({"data.pkl": b"\x80\x02K\x05."}), "no table of them"),
    "a list in the end": (zipped({"data.pkl": b"\x80\x02]K\x05a."}), "no table of them"),
    "an empty stack": (zipped({"data.pkl": b"\x80\x020."}), "instruction 48"),
    "items without a mark": (zipped({"data.pkl": b"\x80\x02}u."}), "its pickle is damaged"),
    "tuples without end": (zipped({"data.pkl": nested(10**5)}), "no table of them"),
    "a key without end": (zipped({"data.pkl": b"\x80\x02})" + b"\x85" * 10**5 + b"K\x01s."}), "is damaged"),
    "a place far away": (zipped({"data.pkl": b"\x80\x02}r\xff\xff\xff\x7f."}), "has no optimiser states"),
    "code": (zipped({"data.pkl": pickle.dumps(Evil(), 2)}), "names builtins.exec, which does not belong"),
    "a newer protocol": (zipped({"data.pkl": pickle.dumps({"vae": {}}, 5)}), "a newer protocol"),
    "other bytes": (zipped({"data.pkl": b"\x80\x02}.", "byteorder": b"big"}), "has no optimiser states"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_file_of_optimiser_states_is_damaged(run: Path, kind: str) -> None:
    content, said = FOREIGN[kind]
    seal(find_checkpoint(run), "optimizer.pt", content)
    assert said in refused(run)


def saved(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.bool),
        torch.nn.Parameter(torch.zeros(2)),
        torch.zeros(2, device="meta"),
    ],
    ids=["sparse", "complex", "truth values", "a parameter", "without memory"],
)
def test_tensors_that_no_optimiser_has_are_not_read(value: Any) -> None:
    with pytest.raises(ValueError, match=r"which does not belong there|instruction|damaged"):
        StoredFile(saved({"x": value}))


def test_plain_tensors_come_back_as_they_were_strides_included() -> None:
    tensors = {
        "a": torch.arange(12.0).reshape(3, 4).T,
        "b": torch.zeros(0, 3),
        "c": torch.tensor(2**40),
        "d": torch.arange(6, dtype=torch.float64)[2:5],
        "e": torch.ones(2, dtype=torch.bfloat16),
    }
    file = StoredFile(saved(tensors))
    for name, value in tensors.items():
        found = file.tensor(file.content[name])
        assert torch.equal(found, value)
        assert found.dtype == value.dtype
        assert found.stride() == value.stride() or not value.numel()


def claiming(shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> bytes:
    """Return a file whose pickle claims another shape of a storage of 4 numbers."""

    def number(value: int) -> bytes:
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw

    def listed(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(4) + b"tQ"
    build = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + listed(shape) + listed(strides)
    )
    pickled = b"\x80\x02" + build + b"\x89ccollections\nOrderedDict\n)RtR."
    return zipped({"data.pkl": pickled, "data/0": bytes(16), "version": b"3\n"})


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((5,), (1,), 0),
        ((2, 2), (1000, 1), 0),
        ((2,), (-1,), 1),
        ((4,), (1,), -1),
        ((4,), (1,), 1),
        ((10**18,), (0,), 0),
        ((2**62, 2**62), (0, 0), 0),
        ((-4,), (1,), 0),
        ((2, 2), (1,), 0),
        ((1,), (2**62,), 0),
    ],
)
def test_a_tensor_that_claims_more_than_its_bytes_is_not_built(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    file = StoredFile(claiming(shape, strides, offset))
    with pytest.raises(ValueError, match="does not fit into its 16 bytes"):
        file.tensor(file.content)


def test_a_claim_that_fits_is_built() -> None:
    file = StoredFile(claiming((2, 2), (2, 1), 0))
    assert torch.equal(file.tensor(file.content), torch.zeros(2, 2))


def test_a_file_larger_than_the_optimisers_need_is_not_read(run: Path) -> None:
    seal(find_checkpoint(run), "optimizer.pt", bytes(2**25))
    assert "the optimisers of this model need" in refused(run)


@pytest.mark.parametrize("field", [8, 10, 20, 22, 24, 26, 42, 44])
def test_whatever_a_zip_says_of_a_part_is_read_or_refused(begun: Path, field: int) -> None:
    """Flags, packing, sizes and places of each part in the zip's list: two kinds of errors come of it."""
    content = (find_checkpoint(begun) / "optimizer.pt").read_bytes()
    ends = []
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        changed = bytearray(content)
        changed[at + field] ^= 0x41
        try:
            StoredFile(bytes(changed))
            ends.append("read")
        except (ValueError, CheckpointError):
            ends.append("refused")
        at = content.find(b"PK\x01\x02", at + 4)
    assert "refused" in ends, ends
