"""An npz or npy of any bytes is arrays of the kinds asked for, or one sentence, and takes no more room."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import SPECIAL, outcome, place_special, says
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from lsgm.errors import CheckpointError, DataError
from lsgm.files.arrays import read_arrays

HONEST: dict[str, Any] = {
    "rows": np.arange(6.0).reshape(2, 3).astype(np.float32),
    "empty": np.zeros((0, 7)),
    "order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "done": np.array(True),
    "task": np.array("glyphs@2"),
}


def saved(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def header(shape: str, descr: str = "'<f8'") -> bytes:
    """Return the beginning of an npy file, whatever it claims."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return npy.magic(1, 0) + (len(text) + 1).to_bytes(2, "little") + text + b"\n"


def packed(content: bytes, name: str = "rows.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def put(folder: Path, content: bytes) -> Path:
    path = folder / "arrays.npz"
    path.write_bytes(content)
    return path


def test_what_numpy_wrote_comes_back_as_it_was(tmp_path: Path) -> None:
    path = put(tmp_path, saved(**HONEST))
    found = read_arrays(path)
    with np.load(path) as expected:
        assert list(found) == list(HONEST)
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name])
            assert array.dtype == expected[name].dtype
    assert found.text("task") == "glyphs@2"
    assert found.take("empty", "f", 2).shape == (0, 7)
    assert set(read_arrays(path, ["rows", "absent"])) == {"rows"}


def test_compressed_ones_and_single_ones_are_read_too(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", **HONEST)
    np.testing.assert_array_equal(read_arrays(tmp_path / "c.npz")["rows"], HONEST["rows"])
    np.save(tmp_path / "one.npy", HONEST["order"])
    np.testing.assert_array_equal(read_arrays(tmp_path / "one.npy")[""], HONEST["order"])


class Executed:
    """Ends the test when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def bomb(count: int) -> bytes:
    """Return a zip whose list names so many members, as bytes that compress to nothing."""
    entry = b"PK\x01\x02" + bytes(24) + (1).to_bytes(2, "little") + bytes(16) + b"a"
    listed = entry * count
    end = b"PK\x05\x06" + bytes(4) + (65535).to_bytes(2, "little") * 2
    return listed + end + len(listed).to_bytes(4, "little") + bytes(4) + bytes(2)


OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([Executed()], dtype=object), allow_pickle=True)
DAMAGED = {
    "nothing": (b"", "cannot be read as arrays"),
    "text": (b"no arrays at all", "cannot be read as arrays"),
    "a pickle": (pickle.dumps(Executed()), "cannot be read as arrays"),
    "objects": (packed(OBJECTS.getvalue()), "is an array of object, which is not read"),
    "a single one of objects": (OBJECTS.getvalue(), "is an array of object"),
    "dates": (packed(header("(1,)", "'<M8[s]'") + bytes(8)), "is an array of datetime64[s]"),
    "records": (packed(header("(1,)", "[('a', '<f8')]") + bytes(8)), "which is not read"),
    "subarrays": (packed(header("(1,)", "('<f8', (2,))") + bytes(16)), "which is not read"),
    "a negative side": (packed(header("(-1,)")), "claims the shape [-1]"),
    "two negative sides": (packed(header("(-2, -3)") + bytes(48)), "claims the shape [-2, -3]"),
    "a side of 10^12": (packed(header("(1000000000000,)")), "has not the bytes"),
    "a side of 5,000 digits": (packed(header(f"({'9' * 5000},)")), "cannot be read as arrays"),
    "an empty side by a huge one": (packed(header("(0, 1000000000000)")), "LSGM_LARGEST_ARRAYS="),
    "texts of no letters": (packed(header("(1000000000000,)", "'<U0'")), "LSGM_LARGEST_ARRAYS="),
    "a truth value for a side": (packed(header("(True,)") + bytes(8)), "cannot be read as arrays"),
    "a shape that is none": (packed(header("'x'")), "cannot be read as arrays"),
    "nested brackets": (packed(header("(" * 4000)), "cannot be read as arrays"),
    "a header without end": (packed(npy.magic(1, 0) + b"\xff\xff{"), "cannot be read as arrays"),
    "a later format": (packed(npy.magic(3, 0) + header("(1,)")[8:]), "has an array of format (3, 0)"),
    "too few bytes": (packed(header("(2,)") + bytes(15)), "ends after 15 of 16 bytes"),
    "too many bytes": (packed(header("(2,)") + bytes(17)), "goes on after its 16 bytes"),
    "one name twice": (b"", "has one array twice"),
    "a list of members without end": (bomb(400_000), "set LSGM_LARGEST_ZIP_LISTING="),
}


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning", "ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("kind", DAMAGED)
def test_what_a_file_should_not_hold_is_one_sentence(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_LARGEST_ZIP_LISTING", "16000000")
    content, words = DAMAGED[kind]
    path = put(tmp_path, content)
    if kind == "one name twice":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", b"")
            archive.writestr("a", b"")
    with says(str(path), words, error=CheckpointError):
        read_arrays(path, error=CheckpointError)


def test_damage_behind_a_checksum_is_noticed(tmp_path: Path) -> None:
    content = bytearray(saved(rows=np.arange(100)))
    content[300] ^= 1
    with says("arrays.npz cannot be read as arrays (Bad CRC-32", error=DataError):
        read_arrays(put(tmp_path, bytes(content)))


def test_zeros_without_end_take_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_LARGEST_ARRAYS", "50000000")
    path = put(tmp_path, packed(header("(6553600,)") + bytes(8 * 6553600)))
    assert path.stat().st_size < 10**5
    tracemalloc.start()
    with says("arrays.npz has 52,428,", " bytes, and at most 50,000,000 are read; ", error=DataError):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    with says("give a file", error=DataError):
        read_arrays(place_special(tmp_path / "x.npz", kind))


@pytest.mark.parametrize(
    ("take", "words"),
    [
        (("absent",), "has no array 'absent'; remove it, or write it again"),
        (("done", "f"), ": 'done' is bool, and real numbers belong there"),
        (("order", "f"), ": 'order' is int64, and real numbers belong there"),
        (("rows", "iu"), ": 'rows' is float32, and whole numbers belong there"),
        (("rows", "f", 1), ": 'rows' has the shape [2, 3]; it must have 1 dimensions"),
    ],
)
def test_an_array_of_another_kind_is_not_taken(tmp_path: Path, take: tuple[Any, ...], words: str) -> None:
    found = read_arrays(put(tmp_path, saved(**HONEST)))
    with says(f"arrays.npz{' ' * (words[0] != ':')}{words}", error=DataError):
        found.take(*take)


def test_a_text_is_one_text(tmp_path: Path) -> None:
    found = read_arrays(put(tmp_path, saved(two=np.array(["a", "b"]), number=np.array(1.0))))
    for name in found:
        with says(f"'{name}'", error=DataError):
            found.text(name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200)
@given(st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_change_of_a_file_is_arrays_or_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(HONEST_FILES[data.draw(st.integers(0, 1))])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        what = data.draw(st.sampled_from(["set", "cut", "insert"]))
        some = data.draw(st.binary(min_size=1, max_size=8))
        if what == "set":
            content[place : place + len(some)] = some
        elif what == "cut":
            del content[place : place + len(some) ** 2]
        else:
            content[place:place] = some
        content = content or bytearray(b"x")
    path = put(tmp_path, bytes(content))
    found, refused = outcome(lambda: read_arrays(path))
    assert refused or sum(array.nbytes for array in found.values()) <= 8 * len(content) + 1024


HONEST_FILES = [saved(**HONEST), header("(3,)") + bytes(24)]
