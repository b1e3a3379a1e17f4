"""Pickles that somebody made to harm: each is one sentence, and nothing of it is executed or swells up."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lsgm.errors import CheckpointError
from lsgm.pickled.foreign import read_pickle

FLOATS = b"ctorch\nFloatStorage\n"
VIEW = b"ctorch._utils\n_rebuild_tensor_v2\n"
NO_HOOKS = b"\x89ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    entries: int = 4, offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)
) -> bytes:
    """The instructions of a tensor on the storage "0", whatever it has of numbers."""
    storage = b"(" + text("storage") + FLOATS + text("0") + text("cpu") + number(entries) + b"tQ"
    return VIEW + b"(" + storage + number(offset) + numbers(size) + numbers(stride) + NO_HOOKS + b"tR"


def zipped(path: Path, said: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> Path:
    """A file as torch writes it, of a pickle of these instructions."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + said + b".")
        for key, content in (storages or {"0": struct.pack("<4f", 1, 2, 3, 4)}).items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as complaint:
        read_pickle(path, "tests", argparse.Namespace)
    sentence = str(complaint.value)
    assert "\n" not in sentence
    assert len(sentence) < 500 + len(str(path))
    return sentence


def bomb(levels: int) -> bytes:
    """A list of ten times the list before, and so on: ten lists in the file, 10^levels when unfolded."""
    said = b"]q\x00K\x01a"
    for level in range(levels):
        said += b"]q" + bytes([level + 1]) + b"(" + 10 * (b"h" + bytes([level])) + b"e"
    return said


UNREADABLE = "is truncated or no checkpoint of torch's"
SAID: dict[str, tuple[bytes, str]] = {
    "bytes without end": (b"cbuiltins\nbytearray\n" + number(10**10) + b"\x85R", ""),
    "a tensor of a size alone": (b"ctorch\nTensor\n" + numbers((10**6, 10**6)) + b"\x81", ""),
    "lists of lists": (b"(" + bomb(20) + b"t", "unfolds into has"),
    "a list in itself": (b"]q\x00h\x00a", "lies within itself"),
    "a table in itself": (b"}q\x00X\x01\x00\x00\x00ah\x00s", "lies within itself"),
    "arguments in themselves": (
        b"cargparse\nNamespace\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb",
        "lies within itself",
    ),
    "nesting": (b"]" * 50_000 + b"a" * 49_999, "nests more than 64"),
    "tuples in tuples": (b")" + b"\x85" * 50_000, "nests more than 64"),
    "a long text that is not there": (b"X\xff\xff\xff\xff", UNREADABLE),
    "a number of 2^31 bytes": (b"\x8b\xff\xff\xff\x7f", UNREADABLE),
    "a memo of 2^32": (b"]r\xff\xff\xff\xffj\xff\xff\xff\xff0", UNREADABLE),
    "nothing on the stack": (b"R", UNREADABLE),
    "nothing below the mark": (b"t", UNREADABLE),
    "a list as key": (b"}](K\x01s", UNREADABLE),
    "a text that is called": (text("os.system") + text("true") + b"\x85R", UNREADABLE),
    "a tensor that is called": (tensor() + b")R", UNREADABLE),
    "names that are no texts": (b"cargparse\nNamespace\n)\x81}K\x01K\x02sb", UNREADABLE),
    "a class": (b"cos\nsystem\n" + text("true") + b"\x85R", "names the class .*system"),
    "a class under Python 2's name": (b"c__builtin__\neval\n" + text("1") + b"\x85R", "names the class"),
    "a class with escapes": (b"cos\n\x1b[31msystem\n)R", "names the class"),
    "a storage that is not there": (tensor(entries=4).replace(text("0"), text("1")), UNREADABLE),
    "a storage elsewhere": (tensor().replace(text("0"), text("../data.pkl")), UNREADABLE),
    "a storage of 2^40": (tensor(entries=2**40), UNREADABLE),
    "a storage of less than nothing": (tensor(entries=-4), UNREADABLE),
    "a tensor beyond its storage": (tensor(size=(5,)), UNREADABLE),
    "a tensor that begins beyond it": (tensor(offset=4, size=(1,)), UNREADABLE),
    "a tensor that begins before it": (tensor(offset=-1), UNREADABLE),
    "a tensor of less than nothing": (tensor(size=(-4,)), UNREADABLE),
    "a tensor that goes backwards": (tensor(offset=3, stride=(-1,)), UNREADABLE),
    "a tensor of 2^60 rows": (tensor(size=(2**60, 4), stride=(4, 1)), UNREADABLE),
    "a tensor of two kinds of size": (tensor(size=(2, 2), stride=(1,)), UNREADABLE),
    "a tensor of no storage": (
        VIEW + b"(K\x01" + number(0) + numbers((1,)) + numbers((1,)) + b"tR",
        UNREADABLE,
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_pickle_says_is_one_sentence_or_harmless(name: str, tmp_path: Path) -> None:
    said, sentence = SAID[name]
    path = zipped(tmp_path / "f.pt", said)
    if sentence:
        assert re.search(sentence, refused(path))
    else:  # named, and never made
        assert type(read_pickle(path, "tests")).__name__ == "Made"


def test_the_numbers_of_a_tensor_are_those_of_the_file(tmp_path: Path) -> None:
    found = read_pickle(zipped(tmp_path / "f.pt", tensor(offset=1, size=(2,), stride=(2,))), "tests")
    assert found.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LSGM_LARGEST_FOREIGN_PICKLE", "1000", "has 5,00. bytes, and at most 1,000"),
        ("LSGM_MOST_INSTRUCTIONS", "1000", "more than 1,000 instructions"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_beyond_a_bound_names_the_number_and_the_variable(
    variable: str, value: str, words: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = b"]" + 2500 * b"Na"
    path = zipped(tmp_path / "f.pt", said)
    if legacy:
        head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
        path.write_bytes(head + b"\x80\x02" + said + b"." + pickle.dumps([], 2))
        words = words.replace("5,00.", "5,0..")
    assert read_pickle(path, "tests") == 2500 * [None]
    monkeypatch.setenv(variable, value)
    sentence = refused(path)
    assert re.search(words, sentence)
    assert f"set {variable}=" in sentence


def claiming(path: Path, name: str, size: int) -> Path:
    """Let the list of a zip say that a part unpacks to so many bytes."""
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while content[at + 46 : at + 46 + len(name)] != name.encode():
        at = content.find(b"PK\x01\x02", at + 1)
    content[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(content)
    return path


def test_what_is_packed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: dict[str, Any] = {"compression": zipfile.ZIP_DEFLATED}
    zeros = {"0": bytes(2**20)}
    said = tensor(entries=2**18, size=(2**18,))
    assert read_pickle(zipped(tmp_path / "f.pt", said, zeros, **packed), "tests").shape == (2**18,)
    monkeypatch.setenv("LSGM_LARGEST_UNPACKED", "100000")
    assert "set LSGM_LARGEST_UNPACKED=" in refused(tmp_path / "f.pt")
    monkeypatch.delenv("LSGM_LARGEST_UNPACKED")
    gigabytes = claiming(zipped(tmp_path / "g.pt", said, zeros, **packed), "archive/data.pkl", 3 * 10**9)
    assert "set LSGM_LARGEST_UNPACKED=" in refused(gigabytes)
    claimed = claiming(zipped(tmp_path / "h.pt", tensor()), "archive/data/0", 10**9)
    assert UNREADABLE in refused(claimed)


def test_a_part_that_is_there_twice_or_nowhere_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "f.pt", tensor())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    assert UNREADABLE in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        for folder in ("a", "b"):
            archive.writestr(f"{folder}/data.pkl", b"\x80\x02N.")
    assert UNREADABLE in refused(path)


def legacy(path: Path, content: Any, change: Callable[[bytes], bytes] = lambda raw: raw) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(change(path.read_bytes()))
    return path


def test_old_files_with_storages_of_another_size_are_refused(tmp_path: Path) -> None:
    content = {"a": torch.arange(4.0)}
    whole = read_pickle(legacy(tmp_path / "f.pt", content), "tests")
    assert torch.equal(whole["a"], content["a"])
    size = struct.pack("<q", 4)
    for other in (2**40, -4, 3, 5):
        path = legacy(
            tmp_path / "f.pt", content, lambda raw, n=other: raw.replace(size, struct.pack("<q", n))
        )
        assert UNREADABLE in refused(path)
    claim = legacy(tmp_path / "f.pt", content, lambda raw: raw.replace(b"K\x04Nt", b"J\x00\x00\x00\x7fNt"))
    assert UNREADABLE in refused(claim)


def test_a_tar_is_refused(tmp_path: Path) -> None:
    """The first format of all, whose reader in torch once executed what it read."""
    with tarfile.open(tmp_path / "f.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"\x80\x02N."))
    assert UNREADABLE in refused(tmp_path / "f.pt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.pt")
    assert "is a named pipe, not a file" in refused(tmp_path / "f.pt")


def test_what_torch_itself_writes_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    content = {
        "views": [shared[:, 1:], shared.T, shared[1]],
        "kinds": [
            torch.ones(3, dtype=kind) for kind in (torch.bool, torch.int16, torch.bfloat16, torch.complex64)
        ],
        "none": torch.empty(0, 3),
        "number": torch.tensor(3.0),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ordered": OrderedDict(a=1, b=(2, [3.5, None, True, "x"])),
    }
    newer = {"new": torch.ones(2, dtype=torch.uint16), "eight": torch.ones(2).to(torch.float8_e4m3fn)}
    for zip_ in (True, False):
        torch.save(
            content | newer if zip_ else content, tmp_path / "f.pt", _use_new_zipfile_serialization=zip_
        )
        ours = read_pickle(tmp_path / "f.pt", "tests")
        theirs = torch.load(tmp_path / "f.pt", weights_only=True)
        for name in ("views", "kinds"):
            for one, other in zip(ours[name], theirs[name], strict=True):
                assert one.dtype == other.dtype
                assert torch.equal(one, other)
        for name in ("none", "number", "parameter"):
            assert torch.equal(ours[name], theirs[name].detach()), name
        assert ours["ordered"] == theirs["ordered"]
        for name in newer if zip_ else ():
            assert ours[name].dtype == theirs[name].dtype
            assert torch.equal(ours[name].float(), theirs[name].float())
