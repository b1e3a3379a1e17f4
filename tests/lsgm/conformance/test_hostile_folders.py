"""Golden folders that somebody made to harm: one sentence each, whatever lies in them."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from upstream import stage2, write_folder

from lsgm import cli
from lsgm.errors import UserError

EXPECTED = "expected.safetensors"


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return stage2(steps=3)


@pytest.fixture
def folder(content: dict[str, Any], tmp_path: Path) -> Path:
    """The folder of a file that the original code wrote, with values of its prior."""
    return write_folder(tmp_path / "g", content)


def refused(folder: Path) -> str:
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError) as complaint:
        cli._dispatch(["conformance", str(folder)])
    assert sorted(folder.parent.rglob("*")) == before
    sentence = str(complaint.value)
    assert sentence.isprintable()
    assert len(sentence) < 700
    return sentence


def _values(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / EXPECTED)
        change(tensors)
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / EXPECTED)

    return changed


def _set(name: str, value: Tensor) -> Callable[[Path], None]:
    return _values(lambda tensors: tensors.update({name: value}))


IMAGES = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
SPECIMENS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda folder: (folder / EXPECTED).write_bytes(b""), "truncated or damaged"),
    "a header of 2^62": (
        lambda folder: (folder / EXPECTED).write_bytes(struct.pack("<Q", 2**62)),
        "truncated",
    ),
    "no images": (_values(lambda tensors: tensors.pop("x_uint8")), "has no x_uint8"),
    "images without end": (
        _set("x_uint8", IMAGES[:1].expand(5000, 1, 32, 32)),
        "has 5,000 rows, and at most 1,024",
    ),
    "images of half levels": (_set("x_uint8", IMAGES + 0.5), "other numbers than the whole ones"),
    "images beyond white": (_set("x_uint8", IMAGES.long() + 256), "other numbers than the whole ones"),
    "images that are no numbers": (
        _set("x_uint8", IMAGES * float("nan")),
        "other numbers than the whole ones",
    ),
    "complex images": (_set("x_uint8", IMAGES.to(torch.complex64)), "other numbers than the whole ones"),
    "complex values": (
        _set("prior/z0", torch.zeros(2, 4, 8, 8, dtype=torch.complex64)),
        "golden values are float64",
    ),
    "whole values": (
        _set("prior/z0", torch.zeros(2, 4, 8, 8, dtype=torch.int64)),
        "golden values are float64",
    ),
    "one number for many": (_set("prior/t", torch.tensor(0.5).double()), "prior/t has the shape"),
    "other batches": (_set("prior/t", torch.full((3,), 0.5).double()), "do not fit together"),
    "values without sides": (_set("decode/image", torch.tensor(0.5).double()), "decode/image"),
    "no values": (_set("prior/var_t", torch.zeros(0).double()), r"prior/var_t has the shape \[0\]"),
    "nothing but inputs": (
        _values(lambda tensors: [tensors.pop(name) for name in list(tensors) if name != "x_uint8"]),
        "inputs only",
    ),
    "another's checkpoint": (
        lambda folder: (folder / "checkpoint.pt").write_bytes(b"PK\x03\x04"),
        "is truncated",
    ),
}


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_hostile_folder_is_one_sentence(name: str, folder: Path) -> None:
    change, words = SPECIMENS[name]
    change(folder)
    sentence = refused(folder)
    assert re.search(words, sentence), sentence


def test_values_of_odd_names_are_skipped_on_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _set("\x1b[31m\n../../x", torch.zeros(1).double())(folder)
    cli._dispatch(["conformance", str(folder)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "SKIP" in line]
    assert line.isprintable()


META: dict[str, tuple[Any, str]] = {
    "nesting": ("[" * 10**5, "nests too deeply"),
    "args of a list": ({"args": []}, "'args' is a list; it must be a table"),
    "step of words": ({"args": {}, "step": {"recon": "x"}}, r"'step\.recon' is 'x'"),
    "step of tables": ({"args": {}, "step": {"kl_per_group": {}}}, r"'step\.kl_per_group'"),
    "a step of 300 digits": ({"args": {}, "step": {"global_step": 10**300}}, r"'step\.global_step'"),
    "other arguments": ({"args": {"dataset": "cifar10"}}, "the two are not of one model"),
    "arguments without end": ({"args": {"dataset": "x" * 10**6}}, "the two are not of one model"),
}


@pytest.mark.parametrize("name", META)
def test_a_hostile_meta_is_one_sentence(name: str, folder: Path) -> None:
    meta, words = META[name]
    (folder / EXPECTED).rename(folder / "io.safetensors")
    (folder / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
    assert re.search(words, refused(folder))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["checkpoint.pt", EXPECTED])
def test_a_pipe_is_refused_at_once(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "is a named pipe, not a file" in refused(folder)
