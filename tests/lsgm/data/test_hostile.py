"""Files of data as somebody else may have made them: pipes, bombs, claims, names, and other types."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from numpy.lib import format as npy
from pictures import encoded, photo, photos, zipped
from PIL import Image
from safetensors.torch import save_file

from lsgm.config import Convert
from lsgm.data import ImageSet, cache, load, open_images, sha256_of
from lsgm.data.cache import cached_set
from lsgm.data.cifar import load_arrays, read_archive, read_cifar10
from lsgm.data.decoding import Room
from lsgm.data.imagefile import inspect
from lsgm.data.listing import list_files
from lsgm.data.mnist import read_amat, read_idx, read_mnist_fixed
from lsgm.data.omniglot import read_chardata, read_lake28
from lsgm.data.places import find_mirror, read_manifest
from lsgm.data.registry import DATASETS
from lsgm.errors import DataError
from lsgm.files.write import cache_dir


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail what takes longer, as one who waits for a pipe does."""

    def late(number: int, frame: object) -> None:
        pytest.fail(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(read: Callable[[], object], words: str) -> str:
    """Return the one sentence with which something is refused, in a few seconds."""
    with within(20), pytest.raises(DataError, match=words) as caught:
        read()
    said = str(caught.value)
    assert "\n" not in said
    return said


# ---- what is no file


@pytest.mark.parametrize("name", ["x.png", "x.zip", "x.npy", "x.npz", "x"])
def test_a_pipe_in_the_place_of_images_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    for read in (load, lambda path: open_images(Path(path))):
        refused(lambda read=read: read(str(tmp_path / name)), rf"{name} is (a named pipe|no regular file)")


PLACES = [
    ("mnist", "train-images-idx3-ubyte.gz"),
    ("mnist-fixed", "binarized_mnist_train.amat"),
    ("omniglot", "chardata.mat"),
    ("cifar10", "cifar-10-python.tar.gz"),
    ("cifar10", "manifest.json"),
    ("omniglot-lake28", "manifest.json"),
    ("celebahq256", "celebahq256.npy"),
    ("celebahq256", "celebahq256.zip"),
]


@pytest.mark.parametrize(("dataset", "file"), PLACES)
def test_a_pipe_in_the_place_of_a_published_file_is_refused_at_once(
    dataset: str, file: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / dataset
    folder.mkdir(parents=True)
    os.mkfifo(folder / file)
    if dataset == "mnist-fixed":
        for split in ("valid", "test"):
            (folder / f"binarized_mnist_{split}.amat").write_text("0 " * 784)
    refused(lambda: load(dataset, root=tmp_path / "data"), f"{file}.* is (a named pipe|no regular file)")


def test_what_changes_into_a_pipe_after_it_was_listed_is_refused_at_once(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set")
    images = open_images(folder)
    (folder / "001.png").unlink()
    os.mkfifo(folder / "001.png")
    refused(lambda: images.read([1]), r"001\.png is a named pipe")


@pytest.mark.parametrize("kind", ["images-*.npy", "images-*.json", "seen-*.json"])
def test_a_pipe_in_the_cache_is_refused_or_passed_over(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SETTLED", 0)
    folder = photos(tmp_path / "set")
    before = load(str(folder), image_size=8).sha256
    (place,) = (cache_dir() / "derived").glob(kind)
    place.unlink()
    os.mkfifo(place)
    with within(20), contextlib.suppress(DataError):
        assert load(str(folder), image_size=8).sha256 == before


def test_a_pipe_in_the_place_of_a_cached_set_is_refused_at_once() -> None:
    path = cache_dir() / "derived" / "k.safetensors"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    refused(lambda: cached_set("k", lambda: pytest.fail("built")), "is a named pipe")


# ---- sizes

MB = 2**20


def bomb_npz(path: Path) -> None:
    """One image of 64 MB in a member of 1 MB."""
    header = io.BytesIO()
    shape = (1, 2**26 // 3, 1, 3)
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("arr_0.npy", "w") as member,
    ):
        member.write(header.getvalue())
        for _ in range(4):
            member.write(bytes(16 * MB))


def bomb_bzip2(path: Path) -> None:
    """A member that says it has 1,000 bytes and would unpack to 64 MB."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", bz2.compress(bytes(64 * MB), 1))
    raw = bytearray(path.read_bytes())
    for sign, method, size in ((b"PK\x03\x04", 8, 22), (b"PK\x01\x02", 10, 24)):
        at = raw.index(sign)
        raw[at + method : at + method + 2] = (12).to_bytes(2, "little")
        raw[at + size : at + size + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)


def bomb_matlab(path: Path) -> None:
    """A packed element that unpacks to 64 MB."""
    packed = zlib.compress(bytes(64 * MB), 1)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)


def bomb_gzip(path: Path) -> None:
    """64 MB of zeros."""
    path.write_bytes(gzip.compress(bytes(64 * MB), 1))


def bomb_png(path: Path) -> None:
    """A picture of 4000 x 4000 in some hundred bytes, as its header says."""
    path.write_bytes(encoded(Image.new("L", (4000, 4000))))


def bomb_text(path: Path) -> None:
    """A small picture with a comment that unpacks to 64 MB, and a colour profile that does."""
    raw = encoded(photo(0))
    packed = zlib.compress(bytes(64 * MB), 1)
    chunks = b""
    for kind, start in ((b"zTXt", b"Comment\0\0"), (b"iCCP", b"icc\0\0")):
        data = kind + start + packed
        chunks += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    path.write_bytes(raw[:33] + chunks + raw[33:])


BOMBS = [
    (bomb_npz, "a.npz", "load(path)", "an image of .* has 22,369,621 pixels, .* LSGM_LARGEST_PICTURE="),
    (bomb_bzip2, "b.zip", "open_images(Path(path))", r"a\.png cannot be read"),
    (bomb_matlab, "c.mat", "read_chardata(Path(path), '')", "unpacked, .* LSGM_LARGEST_DATASET_FILE="),
    (bomb_gzip, "d.gz", "gunzip(Path(path))", "unpacked, .* set LSGM_LARGEST_DATASET_FILE="),
    (bomb_png, "e.png", "load(path)", "has 16,000,000 pixels, .* set LSGM_LARGEST_PICTURE="),
    (bomb_text, "f.png", "load(path)", r"f\.png cannot be read \(.*too large"),
]  # fmt: skip

CHILD = """
import resource, sys
from pathlib import Path
from lsgm.data import load, open_images
from lsgm.data.omniglot import read_chardata
from lsgm.data.dataset import gunzip
from lsgm.errors import DataError
import scipy.io
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
start = most()
for call, path in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        eval(call)
    except DataError as error:
        print(most() - start, error)
    else:
        print(most() - start, "was read")
"""


def damaged_tags(path: Path) -> None:
    """A picture with two thousand tags, each of them a warning of Pillow's."""
    entries = b"".join(struct.pack(">HHII", 1000 + k, 2, 2**31, 8) for k in range(2000))
    raw = encoded(photo(0))
    tags = chunk(b"eXIf", b"MM\0*\0\0\0\x08" + struct.pack(">H", 2000) + entries)
    path.write_bytes(raw[:33] + tags + raw[33:])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """Return a line for each bomb, then one for the tags, and what was said besides, of one fresh process.

    Limits are a fraction of what they are by default, and so are the bombs.
    """
    folder = tmp_path_factory.mktemp("bombs")
    words = []
    for make, name, call, _ in (*BOMBS, (damaged_tags, "x.png", "load(path, image_size=None)", "")):
        make(folder / name)
        assert (folder / name).stat().st_size < 2 * MB
        words += [call, str(folder / name)]
    own = {"LSGM_CACHE": str(folder / "cache"), "LSGM_PROGRESS": "0"}
    limits = {"LSGM_LARGEST_DATASET_FILE": str(8 * MB), "LSGM_LARGEST_PICTURE": str(4 * MB)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words], env=os.environ | own | limits, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_of_what_unpacks_to_a_thousandfold_no_more_is_unpacked_than_may_be(
    opened: tuple[list[str], str],
) -> None:
    lines, _ = opened
    assert len(lines) == len(BOMBS) + 1
    for line, (_, name, _, expected) in zip(lines, BOMBS, strict=False):
        taken, said = line.split(maxsplit=1)
        assert re.search(expected, said), line
        assert name in said
        assert int(taken) < 48, line  # megabytes, less than what any of them unpacks to


def test_thousands_of_damaged_tags_are_read_without_a_word(opened: tuple[list[str], str]) -> None:
    lines, said = opened
    assert "was read" in lines[-1]
    assert "Warning" not in said


def test_a_list_of_members_that_is_too_long_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(photos(tmp_path / "set", 30), tmp_path / "set.zip")
    monkeypatch.setenv("LSGM_LARGEST_ZIP_LISTING", "1000")
    refused(
        lambda: list_files(path),
        r"list of members of .*set\.zip has [\d,]+ bytes, .*LSGM_LARGEST_ZIP_LISTING=",
    )
    monkeypatch.delenv("LSGM_LARGEST_ZIP_LISTING")
    monkeypatch.setenv("LSGM_LARGEST_SET", "20")
    for place in (path, tmp_path / "set"):
        refused(lambda place=place: list_files(place), r"has [\d,]+ images, .* set LSGM_LARGEST_SET=")


def array(path: Path, shape: tuple[int, ...], content: bytes = b"", descr: str = "|u1") -> Path:
    """Write an npy whose header claims a shape."""
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        file.write(content)
    return path


CLAIMS = [
    ((2**40, 8, 8, 3), "|u1", "of the shape .* its end is missing"),
    ((1, 2**40, 8, 3), "|u1", "of the shape .* its end is missing"),
    ((2**62, 2**62, 2**62, 3), "|u1", "of the shape .* its end is missing"),
    ((-4, 8, 8, 3), "|u1", r"has shape \[-4, 8, 8, 3\] and holds no images"),
    ((0, 8, 8, 3), "|u1", "holds no images"),
    ((4, 8, 0, 3), "|u1", "holds no images"),
    ((4, 8, 8, 3), "<c8", "is complex64 and ready images are uint8"),
    ((4, 8, 8, 3), "|b1", "is bool and ready images are uint8"),
    ((4, 8, 8, 3), "<f4", "is float32 and ready images are uint8"),
    ((4, 8, 8, 3), "|O", "is object and ready images are uint8"),
    ((4, 8, 8, 3), "<M8[s]", "is datetime64.* and ready images are uint8"),
]


@pytest.mark.parametrize(("shape", "descr", "words"), CLAIMS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_that_claims_what_it_is_not_is_refused(
    suffix: str, shape: tuple[int, ...], descr: str, words: str, tmp_path: Path
) -> None:
    path = array(tmp_path / "x.npy", shape, bytes(range(256)) * 3, descr)
    if suffix == ".npz":
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.write(path, "arr_0.npy")
    for read in (load, lambda place: open_images(Path(place))):
        refused(lambda read=read: read(str(path.with_suffix(suffix))), words)


# ---- pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_picture_with_tags_of_adobe_is_one() -> None:
    raw = encoded(photo(0))
    tags = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation='1'/>")
    assert inspect(raw[:33] + tags + raw[33:], "x.png", Convert()).shape == (3, 10, 12)


def test_large_pictures_wait_for_each_other() -> None:
    """Of those that need more than half of the room each, one is at work at a time."""
    room, at_work, most = Room(100), 0, 0

    def work(need: int) -> None:
        nonlocal at_work, most
        with room.taken(need):
            at_work += 1
            most = max(most, at_work)
            threading.Event().wait(0.02)
            at_work -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [60, 60, 60, 1000]))
    assert most == 1


# ---- caches


def damaged(content: dict[str, Any], key: str, value: Any) -> str:
    rest = {name: old for name, old in content.items() if name != key}
    return json.dumps(rest if value is None else rest | {key: value})


@pytest.mark.parametrize("value", [None, 3, "../../../elsewhere", ["a"]])
def test_what_is_remembered_wrongly_is_found_anew(
    value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SETTLED", 0)
    folder = photos(tmp_path / "set")
    before = load(str(folder), image_size=8).sha256
    (note,) = (cache_dir() / "derived").glob("seen-*.json")
    good = note.read_text()
    for text in (damaged(json.loads(good), "key", value), "[" * 100_000, "\xff", "", "[]"):
        note.write_text(text)
        assert load(str(folder), image_size=8).sha256 == before
        assert note.read_text() == good


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pixels, note: note.write_text("{}"),
        lambda pixels, note: note.write_text('{"sha256": 3}'),
        lambda pixels, note: pixels.write_bytes(pixels.read_bytes()[:-1]),
        lambda pixels, note: array(pixels, (2**40, 3, 8, 8)),
        lambda pixels, note: array(pixels, (6, 3, 8, 8), bytes(1152 * 4), "<f4"),
        lambda pixels, note: array(pixels, (5, 3, 8, 8), bytes(960)),
        lambda pixels, note: array(pixels, (1152,), bytes(1152)),
        lambda pixels, note: array(pixels, (0,)),
    ],
)
def test_damaged_decoded_images_are_named(spoil: Callable[[Path, Path], object], tmp_path: Path) -> None:
    folder = photos(tmp_path / "set")
    load(str(folder), image_size=8)
    (pixels,) = (cache_dir() / "derived").glob("images-*.npy")
    spoil(pixels, pixels.with_suffix(".json"))
    refused(lambda: load(str(folder), image_size=8), rf"{pixels.name} is truncated or corrupted; delete it")


def cached(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Callable[[], ImageSet]:
    path = cache_dir() / "derived" / "k.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"about": json.dumps(about)})
    return lambda: cached_set("k", lambda: pytest.fail("built"))


ROWS = torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4)
ABOUT = {
    "name": "n", "version": "v", "sha256": sha256_of(ROWS), "pixels": "uint8", "classes": {}, "mirror": False,
    "bits": 8, "order": ["test"],
}  # fmt: skip


def test_a_cached_set_as_it_should_be_is_read() -> None:
    assert torch.equal(cached(ABOUT, {"split/test": ROWS})().splits["test"], ROWS)


@pytest.mark.parametrize(
    ("changes", "tensors"),
    [
        ({"sha256": 3}, {}),
        ({"bits": "8"}, {}),
        ({"pixels": "float"}, {}),
        ({"order": "test"}, {}),
        ({"order": []}, {}),
        ({"order": ["train"]}, {}),
        ({"classes": {"digit": 3}}, {}),
        ({}, {"label/test/digit": torch.zeros(2, dtype=torch.int64)}),
        ({}, {"label/test/digit": torch.zeros(3)}),
        ({}, {"label/train/digit": torch.zeros(3, dtype=torch.int64)}),
        ({}, {"other": torch.zeros(3)}),
        ({"sha256": sha256_of(ROWS.float())}, {"split/test": ROWS.float()}),
        ({"sha256": sha256_of(ROWS[0])}, {"split/test": ROWS[0]}),
    ],
)
def test_a_cached_set_of_other_types_is_named(
    changes: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    read = cached(ABOUT | changes, {"split/test": ROWS} | tensors)
    refused(read, r"k\.safetensors is truncated or corrupted; delete it")


def test_a_key_of_a_cache_leads_nowhere(tmp_path: Path) -> None:
    built = ImageSet("n", "v", sha256_of(ROWS), "uint8", {"test": ROWS})
    cached_set("mirror-../../../out", lambda: built)
    assert [file.parent for file in tmp_path.rglob("*.safetensors")] == [cache_dir() / "derived"]


# ---- mirrors and archives


def mirror(folder: Path, name: str, files: dict[str, bytes], **extra: Any) -> Path:
    folder.mkdir(parents=True)
    entries = []
    for file, content in files.items():
        (folder / file).write_bytes(content)
        entries.append({"file": file, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    manifest = {"name": name, "version": "1", "files": entries} | extra
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder.parent


def npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 3},
        {"version": None},
        {"splits": []},
        {"splits": {"train": {"files": 3}}},
        {"files": [{"file": "a", "bytes": "3", "sha256": ""}]},
        {"files": [{"file": "../secret", "bytes": 3, "sha256": ""}]},
        {"files": [{"file": "/etc/passwd", "bytes": 3, "sha256": ""}]},
        {"files": [{"file": "", "bytes": 3, "sha256": ""}]},
        {"files": [{"file": "a", "bytes": 10**400, "sha256": ""}]},
        {"labels": {"file": 3}},
    ],
)
def test_a_manifest_of_other_types_or_of_files_elsewhere_is_named(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    mirror(tmp_path / "world", "world", {})
    path = tmp_path / "world" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(lambda: read_manifest(tmp_path / "world"), r"manifest\.json is not a mirror's manifest")


def test_a_mirror_that_may_not_be_looked_into_is_no_absent_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mirror(tmp_path / "data" / "cifar10", "cifar10", {})
    real = os.stat
    locked = str(root / "cifar10")

    def refusing(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(f"{locked}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refusing)
    refused(lambda: find_mirror("cifar10", root), r"cifar10/manifest\.json .*Permission denied")


BITS = np.zeros((10_000, 98), np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        npz(),
        npz(train=BITS.astype(float)),
        npz(train=np.zeros((50_000, 99), np.uint8), valid=BITS, test=BITS),
        npz(train=np.zeros((50_000, 98), np.uint8), valid=BITS, test=BITS[:0]),
        npz(train=np.array([{}], dtype=object)),
    ],
)
def test_a_packed_mirror_of_other_arrays_is_named(content: bytes, tmp_path: Path) -> None:
    root = mirror(tmp_path / "data" / "m", "mnist-fixed", {"b.npz": content})
    refused(lambda: read_mnist_fixed([root]), r"b\.npz")


def test_a_mirror_without_files_is_named(tmp_path: Path) -> None:
    readers = {"mnist-fixed": read_mnist_fixed, "cifar10": read_cifar10, "omniglot-lake28": read_lake28}
    for name, read in readers.items():
        root = mirror(tmp_path / name / "m", name, {})
        refused(lambda read=read, root=root: read([root]), str(root))


DRAWN = npz(images=np.ones((1, 20, 105, 105), np.bool_))


@pytest.mark.parametrize(
    ("drawn", "ranges"),
    [
        (npz(images=np.ones((1, 20, 105, 104), np.bool_)), []),
        (npz(images=np.ones((1, 20, 105, 105), np.uint8)), []),
        (npz(), []),
        (DRAWN, {}),
        (DRAWN, [3]),
        (DRAWN, [{"alphabet": "a", "first_char": "1", "last_char": 2}]),
        (DRAWN, [{"alphabet": "a", "first_char": 0, "last_char": 2}]),
        (DRAWN, [{"alphabet": "a", "first_char": 1, "last_char": 10**9}]),
    ],
)
def test_drawings_and_alphabets_of_other_kinds_are_named(drawn: bytes, ranges: Any, tmp_path: Path) -> None:
    files = {
        "images_background.npz": drawn,
        "images_evaluation.npz": drawn,
        "alphabet_ranges.json": json.dumps(ranges).encode(),
    }
    root = mirror(tmp_path / "data" / "m", "omniglot-lake28", files)
    refused(lambda: read_lake28([root]), r"images_background\.npz|alphabet_ranges\.json")


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"train_labels": np.full(1000, 10, np.uint8), "train_exact": np.ones(1000, np.bool_)},
        {"train_labels": np.zeros(999, np.uint8), "train_exact": np.ones(1000, np.bool_)},
        {"train_labels": np.zeros(1000), "train_exact": np.ones(1000, np.bool_)},
        {"train_labels": np.zeros(1000, np.uint8), "train_exact": np.ones(1000)},
    ],
)
def test_labels_of_another_length_or_kind_are_named(labels: dict[str, Any], tmp_path: Path) -> None:
    sheet = encoded(Image.new("RGB", (800, 1280)), "WEBP", lossless=True)
    files = {"train-00.webp": sheet, "test-00.webp": sheet, "labels.npz": npz(**labels)}
    root = mirror(tmp_path / "data" / "m", "cifar10", files)
    refused(lambda: read_cifar10([root]), r"labels\.npz")


@pytest.mark.parametrize("sheet", [b"", b"x", encoded(photo(0), "WEBP"), encoded(photo(0))])
def test_a_sheet_of_another_kind_is_named(sheet: bytes, tmp_path: Path) -> None:
    root = mirror(tmp_path / "data" / "m", "cifar10", {"train-00.webp": sheet, "test-00.webp": sheet})
    refused(lambda: read_cifar10([root]), r"train-00\.webp")


@pytest.mark.parametrize("kind", list(b"123456"))  # links, devices, a folder, a pipe
def test_a_member_of_an_archive_that_is_no_file_is_refused(kind: int, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.type, info.linkname = bytes([kind]), "cifar-10-batches-py/data_batch_1"
        archive.addfile(info)
    refused(lambda: read_archive(tmp_path / "c.tar.gz"), r"c\.tar\.gz .*data_batch_1 is not a file")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {b"data": 3},
        {b"data": np.zeros((2, 3072), np.uint8)},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": ["a", "b"]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10**30]},
        {b"data": np.zeros((2, 3072)), b"labels": [1, 2]},
    ],
)
def test_a_batch_of_other_types_is_named(content: dict[bytes, Any], tmp_path: Path) -> None:
    raw = pickle.dumps(content, protocol=2)
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = len(raw)
        archive.addfile(info, io.BytesIO(raw))
    refused(lambda: read_archive(tmp_path / "c.tar.gz"), r"data_batch_1 (in|of)")


@pytest.mark.parametrize(
    "raw", [b"(" * 100_000, b"\x80\x04\x8e" + b"\xff" * 8, b"h\xff.", b"I" + b"9" * 5000 + b"\n."]
)
def test_a_pickle_that_is_none_is_one_sentence(raw: bytes) -> None:
    refused(lambda: load_arrays(raw, "x"), "x (is not a readable pickle|holds a)")


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0\x08\xff",
        b"\0\0\x08\x03" + b"\xff" * 12,
        b"\0\0\x08\x02" + (2**31).to_bytes(4, "big") * 2 + b"x",
        b"\0\0\x08\x00x",
        b"\0\0\x08\x01",
    ],
)
def test_a_header_of_an_idx_file_that_claims_what_is_not_there_is_refused(raw: bytes) -> None:
    refused(lambda: read_idx(raw, Path("x")), "x (holds|has the header)")


def test_a_text_of_digits_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.amat").write_bytes(b"2" * 784)
    refused(lambda: read_amat(tmp_path / "x.amat"), r"x\.amat is not lines of 784 zeros and ones")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": np.zeros((784, 4), complex)},
        {"data": np.array([[{}]], dtype=object)},
        {"data": "a text"},
        {"target": np.zeros((50, 3))},
        {"target": np.zeros((0, 4))},
        {"targetchar": np.full((1, 4), np.nan)},
        {"targetchar": "abcd"},
    ],
)
def test_a_matlab_file_of_other_kinds_is_named(changes: dict[str, Any], tmp_path: Path) -> None:
    good = {"data": np.full((784, 4), 0.5), "testdata": np.full((784, 2), 0.5)}
    scipy.io.savemat(tmp_path / "x.mat", good)
    assert len(read_chardata(tmp_path / "x.mat", "v", counts=(4, 2)).splits["test"]) == 2
    scipy.io.savemat(tmp_path / "x.mat", good | changes)
    name = next(iter(changes))
    refused(lambda: read_chardata(tmp_path / "x.mat", "v", counts=(4, 2)), rf"x\.mat.*'{name}'")


def test_every_dataset_by_name_is_looked_for_in_folders_that_cannot_be_read(tmp_path: Path) -> None:
    """A root may be a file, a loop of links, or a name that is too long."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for root in (tmp_path / "file", tmp_path / "loop", tmp_path / ("x" * 300)):
        for name in DATASETS:
            if name != "glyphs":
                refused(lambda name=name, root=root: load(name, root=root), name)


def test_a_name_of_images_that_is_too_long_is_one_sentence() -> None:
    refused(lambda: load("x" * 5000 + "/y"), "File name too long")
