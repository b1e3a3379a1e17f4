"""Files that went through other hands: wrapped, cast, stripped, saved again, broken on the way."""

from __future__ import annotations

import argparse
import runpy
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resaved import cast, on_cuda, prefixed, with_tensors
from upstream import stage1, stage2, without_optimisers

from lsgm import cli
from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.convert import convert
from lsgm.interop.nvlabs.read import official_of, read_checkpoint
from lsgm.interop.taken import Native

FILE = Path("checkpoint.pt")


def native(content: dict[str, Any]) -> Native[Any]:
    return convert(official_of(content, FILE))


def same(one: Native[Any], other: Native[Any]) -> bool:
    assert one.recipe == other.recipe
    pairs = [(one.raw, other.raw), (one.ema, other.ema)]
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return stage2(steps=10, dropped=(1,))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_of_the_model_are_taken_off(content: dict[str, Any], prefix: str) -> None:
    """Of DataParallel and DistributedDataParallel, and of torch.compile."""
    parts = {key: prefixed(content[key], prefix) for key in ("dae_state_dict", "vae_state_dict")}
    assert same(native({**content, **parts}), native(content))


def test_one_name_with_a_prefix_is_no_wrapper(content: dict[str, Any]) -> None:
    names = dict(content["vae_state_dict"])
    names["module.stem.bias"] = names.pop("stem.bias")
    with pytest.raises(CheckpointError, match=r"lacks 'stem\.bias'"):
        native({**content, "vae_state_dict": names})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_single_precision(
    content: dict[str, Any], dtype: torch.dtype
) -> None:
    found, wanted = native(with_tensors(content, cast(dtype))), native(content)
    for name, value in wanted.ema.items():
        assert found.ema[name].dtype == value.dtype
        # Of their size what the format rounds, and below its smallest normal number everything.
        limits = {"rtol": torch.finfo(dtype).eps, "atol": 1e-7}
        torch.testing.assert_close(found.ema[name].double(), value.double(), **limits)


def test_parameters_and_plain_containers_are_as_good(content: dict[str, Any], tmp_path: Path) -> None:
    wrapped = {name: torch.nn.Parameter(value) for name, value in content["dae_state_dict"].items()}
    torch.save({**content, "dae_state_dict": wrapped}, tmp_path / "f.pt")
    assert same(convert(read_checkpoint(tmp_path / "f.pt")), native(content))


def test_counts_and_numbers_of_numpy_and_torch_are_numbers(content: dict[str, Any], tmp_path: Path) -> None:
    args = {**vars(content["args"]), "weight_decay": np.float64(3e-4), "seed": np.int64(1)}
    counts = {"epoch": torch.tensor(3), "global_step": np.int64(7)}
    torch.save({**content, **counts, "args": argparse.Namespace(**args)}, tmp_path / "f.pt")
    found = read_checkpoint(tmp_path / "f.pt")
    assert (found.epoch, found.step) == (3, 7)
    assert same(convert(found), native(content))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_both_formats_of_torch_from_either_device_are_read(
    content: dict[str, Any], tmp_path: Path, zipped: bool, device: str
) -> None:
    torch.save(content, tmp_path / "f.pt", _use_new_zipfile_serialization=zipped)
    file = tmp_path / "f.pt" if device == "cpu" else on_cuda(tmp_path / "f.pt")
    assert same(convert(read_checkpoint(file)), native(content))


def test_without_the_optimiser_the_last_weights_are_taken_and_it_is_said(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stripped = {key: value for key, value in content.items() if not key.endswith("_optimizer")}
    assert official_of(stripped, FILE).kind == "last"
    assert official_of(without_optimisers(content), FILE).kind == "averaged"
    found = native(stripped)
    assert all(torch.equal(found.ema[name], value) for name, value in native(content).raw.items())
    torch.save(stripped, tmp_path / "f.pt")
    assert cli.main(["import", "nvlabs", str(tmp_path / "f.pt"), str(tmp_path / "run")]) == 0
    assert "the last weights alone, without the optimiser's state" in capsys.readouterr().out


def test_stage_1_files_are_read_under_both_names(tmp_path: Path) -> None:
    content = stage1()
    older = {
        **{k: v for k, v in content.items() if k != "vae_state_dict"},
        "state_dict": content["vae_state_dict"],
    }
    assert same(native(older), native(content))
    assert native(content).recipe.stage1.vae.name == "adamax"


@pytest.mark.parametrize("part", ["vae_state_dict", "dae_state_dict"])
def test_weights_that_are_not_finite_are_refused_by_name(content: dict[str, Any], part: str) -> None:
    state = dict(content[part])
    name = "stem.weight" if part.startswith("vae") else "all_modules.4.Conv_0.weight"
    state[name] = state[name].clone()
    state[name].view(-1)[3] = float("inf")
    with pytest.raises(CheckpointError, match=f"tensor '{name}' has entries that are not finite"):
        native({**content, part: state})


class Call:
    """What calls something when a reader that trusts the file unpickles it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


HOSTILE = {
    "builtins.eval": Call(eval, "1 / 0"),
    "builtins.getattr": Call(getattr, 1, "real"),
    "subprocess.Popen": Call(subprocess.Popen, ["false"]),
    "runpy.run_path": Call(runpy.run_path, "payload.py"),
    "numpy.load": Call(np.load, "x.npy"),
    "torch.serialization.load": Call(torch.load, "x.pt"),
    "torch.hub.load": Call(torch.hub.load, "a/b", "c"),
    "torch.compile": Call(torch.compile, 1),
    "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b"x"),
    "torch.nn.modules.linear.Linear": torch.nn.Linear(1, 1),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_file_would_call_is_named_and_not_called(name: str, zipped: bool, tmp_path: Path) -> None:
    content = {"args": argparse.Namespace(), "vae_state_dict": {}, "more": HOSTILE[name]}
    torch.save(content, tmp_path / "f.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=f"names the class {name},.* nothing of it was executed"
    ) as refused:
        read_checkpoint(tmp_path / "f.pt")
    assert "\n" not in str(refused.value)


def test_a_newer_pickle_protocol_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "f.pt", pickle_protocol=4)
    with pytest.raises(CheckpointError, match=r"saved by pickle's protocol 4, .* by protocol 2"):
        read_checkpoint(tmp_path / "f.pt")


@pytest.mark.parametrize("damage", ["empty", "page", "cut", "middle", "encrypted", "other zip"])
def test_a_broken_file_is_one_sentence(content: dict[str, Any], tmp_path: Path, damage: str) -> None:
    file = tmp_path / "f.pt"
    torch.save(content, file)
    whole = bytearray(file.read_bytes())
    if damage == "middle":
        whole[2000:4000] = bytes(255 - value for value in whole[2000:4000])
    if damage == "encrypted":  # the flag that says so, in the local header and in the directory
        for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            start = whole.find(sign)
            while start >= 0:
                whole[start + place] |= 1
                start = whole.find(sign, start + 4)
    contents = {"empty": b"", "page": b"<html>Quota exceeded</html>", "cut": bytes(whole[: len(whole) // 2])}
    file.write_bytes(contents.get(damage, bytes(whole)))
    if damage == "other zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="is truncated or no checkpoint of torch's") as refused:
        read_checkpoint(file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"]
)
def test_a_file_with_other_bits_than_were_written_is_refused(
    content: dict[str, Any], tmp_path: Path, compression: int
) -> None:
    """torch looks at no checksum: one flipped bit was a weight of another value, without a word."""
    torch.save(content, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "f.pt", "w", compression) as copy,
    ):
        for part in whole.infolist():
            copy.writestr(part.filename, whole.read(part))
    assert same(convert(read_checkpoint(tmp_path / "f.pt")), native(content))
    torch.save(content, tmp_path / "f.pt")
    bits = bytearray((tmp_path / "f.pt").read_bytes())
    with zipfile.ZipFile(tmp_path / "f.pt") as archive:
        tensors = [part for part in archive.infolist() if "/data/" in part.filename]
        largest = max(tensors, key=lambda part: part.file_size)
        place = bits.find(archive.read(largest)) + largest.file_size // 2
    bits[place] ^= 1
    (tmp_path / "f.pt").write_bytes(bits)
    with pytest.raises(CheckpointError, match=r"is damaged: .* does not have the checksum"):
        read_checkpoint(tmp_path / "f.pt")


def test_a_file_without_checksums_is_read(content: dict[str, Any], tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, tmp_path / "f.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert same(convert(read_checkpoint(tmp_path / "f.pt")), native(content))


@pytest.mark.parametrize("value", [np.complex64(1), np.longdouble(1), np.str_("x"), np.datetime64(0, "s")])
def test_a_numpy_value_that_is_no_number_is_told_as_such(
    content: dict[str, Any], tmp_path: Path, value: Any
) -> None:
    torch.save({**content, "best_score_fid": value}, tmp_path / "f.pt")
    with pytest.raises(CheckpointError, match="has a value of NumPy that is no truth value, whole or"):
        read_checkpoint(tmp_path / "f.pt")


def test_a_width_beyond_all_tensors_is_one_sentence(content: dict[str, Any]) -> None:
    args = argparse.Namespace(**{**vars(content["args"]), "num_channels_dae": 4 * 10**9})
    with pytest.raises(CheckpointError, match=r"describe no model: .*4000000000, and more than"):
        native({**content, "args": args})
