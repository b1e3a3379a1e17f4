"""Places for drawn images as somebody else may have left them: links, pipes, other types, bombs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.lib import format as npy
from PIL import Image

from lsgm import cli
from lsgm.config import SamplerConfig
from lsgm.errors import DataError, UserError
from lsgm.files.regular import open_regular
from lsgm.files.write import unwritable
from lsgm.generative import Pixels
from lsgm.sampling.keep import Output, keeping, open_output
from lsgm.sampling.record import Identity, Record
from lsgm.train.loop import train_recipe

PIXELS = Pixels(1, 8, 8, "discrete", 8)
IMAGES = torch.arange(4 * 64, dtype=torch.uint8).reshape(4, 1, 8, 8)
IDENTITY = Identity("bars", "b" * 64, SamplerConfig())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "bars"
    train_recipe(tiny.recipe({"stage1": {"steps": 2}, "stage2": {"steps": 2}}), directory, images=tiny.bars())
    return directory


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")


def sample(run: Path, out: Path, *words: str) -> int:
    return cli._dispatch(
        ["sample", str(run), "--n", "2", "--out", str(out), "--sampler.steps", "2", "--device", "cpu", *words]
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- links and pipes


@pytest.mark.parametrize("name", ["out/000000.png", "out.sheet.png"])
def test_a_link_in_the_place_of_a_picture_is_replaced_and_not_followed(
    name: str, run: Path, tmp_path: Path
) -> None:
    sample(run, tmp_path / "out")
    before = (tmp_path / name).read_bytes()
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "mine")
    sample(run, tmp_path / "out")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert not (tmp_path / name).is_symlink()
    assert (tmp_path / name).read_bytes() == before


def test_without_out_the_samples_of_a_received_run_stay_in_the_run(run: Path, tmp_path: Path) -> None:
    received, elsewhere = tmp_path / "received", tmp_path / "elsewhere"
    shutil.copytree(run, received)
    shutil.rmtree(received / "samples")
    elsewhere.mkdir()
    (received / "samples").symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a link"):
        cli._dispatch(["sample", str(received), "--n", "2", "--sampler.steps", "2", "--device", "cpu"])
    assert not files(elsewhere)


@pytest.mark.parametrize(
    ("out", "name"),
    [("out", "out/.samples.jsonl"), ("out.npz", ".out.npz.samples.jsonl"), ("out", "out.json")],
)
@pytest.mark.parametrize("kind", ["link", "nowhere", "pipe", "folder"])
def test_a_record_that_is_no_file_is_one_sentence_and_nothing_is_written_through_it(
    out: str, name: str, kind: str, run: Path, tmp_path: Path
) -> None:
    """The record of what is drawn, and the manifest."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_bytes(b"")
    place = tmp_path / name
    if place.parent != tmp_path:
        sample(run, tmp_path / out)
        place.unlink()
    {
        "link": lambda: place.symlink_to(elsewhere / "mine"),
        "nowhere": lambda: place.symlink_to(elsewhere / "new"),
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
    }[kind]()
    with pytest.raises(UserError, match=place.name.replace(".", r"\.")):
        sample(run, tmp_path / out)
    assert files(elsewhere) == {"mine": b""}


@pytest.mark.parametrize("kind", ["link", "hard", "pipe"])
def test_the_unfinished_file_of_an_npz_is_written_into_as_itself_only(kind: str, tmp_path: Path) -> None:
    output = open_output(tmp_path / "x.npz", "key", range(4), PIXELS)
    output.prepare(())
    (partial,) = tmp_path.glob(".x.npz*.partial")
    mine = tmp_path / "mine"
    partial.rename(mine)
    before = mine.read_bytes()
    {
        "link": lambda: partial.symlink_to(mine),
        "hard": lambda: partial.hardlink_to(mine),
        "pipe": lambda: os.mkfifo(partial),
    }[kind]()
    with pytest.raises(UserError, match=r"\.partial"):
        output.write(np.arange(4), IMAGES)
    assert mine.read_bytes() == before


# ---- records

LINES: list[Any] = [
    {},
    {"seeds": 3},
    {"seeds": [[0, 1]], "nfe": [1.0], "seconds": 1.0},
    {"seeds": [[0, 10**18]], "nfe": [1.0], "seconds": 1.0},
    {"seeds": [[1, 0]], "nfe": [], "seconds": 1.0},
    {"seeds": [], "nfe": [], "seconds": 0.0},
    {"seeds": [[-1, -1]], "nfe": [1.0], "seconds": 1.0},
    {"seeds": [[0, 0]], "nfe": ["1"], "seconds": 1.0},
    {"seeds": [[0, 0]], "nfe": [float("nan")], "seconds": 1.0},
    {"seeds": [[0, 0]], "nfe": [1.0], "seconds": None},
    {"seeds": [[0, 0, 0]], "nfe": [1.0], "seconds": 1.0},
    [],
    3,
]


@pytest.mark.parametrize(
    "line", [*map(json.dumps, LINES), "[" * 100_000, "\xff", '{"a": "\\ud800"}', "9" * 5000]
)
def test_a_damaged_line_of_a_record_counts_for_nothing(line: str, tmp_path: Path) -> None:
    path = tmp_path / "record"
    good = {"seeds": [[5, 6]], "nfe": [2, 4.0], "seconds": 1}
    lines = [json.dumps(IDENTITY.as_dict()), line, json.dumps(good)]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    record = Record(path, IDENTITY, tmp_path)
    record.check()
    assert record.costs == {5: (2.0, 0.5), 6: (4.0, 0.5)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "1"}, "this version does not read"),
        ({"format": None}, "this version does not read"),
        ({"sha256": 3}, "cannot be read .*'sha256' is 3"),
        ({"sampler": []}, "cannot be read .*'sampler' is a list"),
        ({"sampler": {"name": 3}}, "images drawn with sampler"),
        ({"sampler": {"name": "heun", "steps": {"a": "b"}}}, "images drawn with sampler"),
        ({"model": None}, "cannot be read .*'model'"),
        ({"first_seed": "0"}, "cannot be read .*'first_seed'"),
    ],
)
def test_a_first_line_of_other_types_is_one_sentence(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "record").write_text(json.dumps(IDENTITY.as_dict() | changes) + "\n")
    with pytest.raises(UserError, match=words) as caught:
        Record(tmp_path / "record", IDENTITY, tmp_path).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "\xff", '{"sampler": 3}'])
def test_a_manifest_of_something_else_is_left_alone(text: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"out\.json is there and does not belong to these images"):
        sample(run, tmp_path / "out")
    assert (tmp_path / "out.json").read_bytes() == text.encode("latin-1")


# ---- images


def test_an_npz_whose_list_and_parts_disagree_is_one_sentence(tmp_path: Path) -> None:
    output = open_output(tmp_path / "x.npz", "key", range(4), PIXELS)
    output.prepare(())
    output.write(np.arange(4), IMAGES)
    output.finish()
    content = (tmp_path / "x.npz").read_bytes()
    assert content.startswith(b"PK\3\4")
    (tmp_path / "x.npz").write_bytes(b"PK\3\5" + content[4:])
    more = open_output(tmp_path / "x.npz", "key", range(6), PIXELS)
    with pytest.raises(UserError, match=r"x\.npz is damaged \(Bad magic number.*\): remove it"):
        more.prepare(())


def array(path: Path, shape: tuple[int, ...], content: bytes = b"", descr: str = "|u1") -> None:
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        file.write(content)


SPOILT: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + b"\xff" * 100),
    lambda path: array(path, (2**40, 8, 8, 1), bytes(256)),
    lambda path: array(path, (-4, 8, 8, 1), bytes(256)),
    lambda path: array(path, (4, 8, 8), bytes(256)),
    lambda path: array(path, (4, 8, 8, 1), bytes(256), "|O"),
    lambda path: array(path, (4, 8, 8, 1), bytes(2048), "<f8"),
    lambda path: array(path, (4, 8, 8, 1), bytes(10)),
]


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
def test_an_npz_of_other_rows_is_one_sentence(
    finished: bool, spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    """Where it is opened again for more images than it has."""
    output = open_output(tmp_path / "x.npz", "key", range(4), PIXELS)
    output.prepare(())
    output.write(np.arange(4), IMAGES)
    (partial,) = tmp_path.glob(".x.npz*.partial")
    spoil(partial)
    if finished:
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.write(partial, "arr_0.npy")
            with archive.open("pass.npy", "w") as member:
                npy.write_array(member, np.array("key"), allow_pickle=False)
        partial.unlink()

    def go_on() -> None:
        more = open_output(tmp_path / "x.npz", "key", range(6), PIXELS)
        more.prepare(())
        more.read([0, 1, 2, 3])

    with pytest.raises(UserError, match=r"x\.npz.*(remove it|other images)") as caught:
        go_on()
    assert "\n" not in str(caught.value)


def kept(folder: Path) -> Output:
    output = open_output(folder, "key", range(4), PIXELS)
    output.prepare(())
    output.write(np.arange(4), IMAGES)
    return output


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (9000, 9000)),
        Image.new("RGB", (8, 8)),
        Image.new("I;16", (8, 8)),
        Image.new("1", (8, 8)),
        None,
    ],
    ids=["bomb", "colour", "deep", "bits", "none"],
)
def test_a_picture_of_another_kind_is_named(image: Image.Image | None, tmp_path: Path) -> None:
    output = kept(tmp_path / "x")
    path = tmp_path / "x" / "000002.png"
    image.save(path) if image else path.write_bytes(b"")
    with pytest.raises(UserError, match=r"000002\.png cannot be read .*: remove it and run the command"):
        output.read([2])


def test_a_pipe_in_the_place_of_a_picture_is_drawn_again(tmp_path: Path) -> None:
    output = kept(tmp_path / "x")
    path = tmp_path / "x" / "000002.png"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a named pipe"):
        output.read([2])
    assert not output.holds(2)
    output.write(np.array([2]), IMAGES[2:3])
    assert torch.equal(output.read([2]), IMAGES[2:3])


@pytest.mark.parametrize("name", ["../../../x", "..", "a/b", "a\nb", "\u202egnp", "x" * 500, "CON", ""])
def test_the_place_that_a_models_name_gives_lies_where_samples_do(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsgm.commands.sample import SampleOptions, _place

    identity = Identity(name, "b" * 64, SamplerConfig())
    place = _place(SampleOptions(run), tmp_path / "elsewhere", identity)
    assert place.parent == Path("samples")
    assert place.name.isprintable()
    assert len(place.name.encode()) < 200
    assert ".." not in place.parts


def test_what_cannot_be_read_is_not_said_to_be_unwritable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shut(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "1.png").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", shut)
        with pytest.raises(DataError, match=r"1.png cannot be read \(Permission denied\)"), keeping(tmp_path):
            open_regular(tmp_path / "1.png")
    full = OSError(errno.ENOSPC, "No space left on device")
    for error, remedy in ((full, "make room"), (OSError(errno.EROFS, "Read-only"), "let this user write")):
        with pytest.raises(UserError, match=f"cannot be written .*{remedy}"), keeping(tmp_path):
            raise error
        with pytest.raises(UserError, match=f"cannot be written .*{remedy}"), keeping(tmp_path):
            raise unwritable(tmp_path / "1.png", error) from error
