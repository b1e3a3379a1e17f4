"""The cache: written whole or not at all, once, and never believed when damaged."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
import torch

from lsgm.data import ImageSet, sha256_of
from lsgm.data.cache import cached_set
from lsgm.data.places import missing, places_of, roots
from lsgm.errors import DataError
from lsgm.files.write import atomic_path, cache_dir


def world() -> ImageSet:
    splits = {
        name: torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8)
        for name, n in (("train", 9), ("test", 3))
    }
    labels = {name: {"digit": torch.arange(len(rows))} for name, rows in splits.items()}
    sha256 = sha256_of(splits.values())
    return ImageSet(
        "world", "v1", sha256, "uint8", splits, labels, {"digit": ("a", "b")}, mirror=True, bits=5
    )


def test_a_cached_set_comes_back_as_it_was_and_is_built_once() -> None:
    built = world()
    calls = []

    def build() -> ImageSet:
        calls.append(1)
        return built

    for _ in range(3):
        found = cached_set("k", build)
        assert found.identity == built.identity
        assert (found.pixels, found.mirror, found.bits, found.classes) == ("uint8", True, 5, built.classes)
        assert list(found.splits) == ["train", "test"]
        assert all(torch.equal(found.splits[s], built.splits[s]) for s in built.splits)
        assert torch.equal(found.labels["train"]["digit"], torch.arange(9))
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["truncate", "empty", "flip"])
def test_a_damaged_cache_file_is_named(damage: str) -> None:
    cached_set("k", world)
    path = cache_dir() / "derived" / "k.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    path.write_bytes({"truncate": bytes(content[:-20]), "empty": b"", "flip": bytes(content)}[damage])
    with pytest.raises(DataError, match=r"k\.safetensors is truncated or corrupted; delete it"):
        cached_set("k", world)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    (tmp_path / "f").write_text("old")
    with pytest.raises(RuntimeError):
        fail(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "old"
    assert [p.name for p in tmp_path.glob("*f*")] == ["f"]


def test_a_cache_that_cannot_be_written_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write .*make room, or use another folder \(LSGM_CACHE\)$"):
        cached_set("k", world)
    # Of a place that is no part of the cache the cache's variable is no remedy.
    (tmp_path / "taken").touch()
    with (
        pytest.raises(DataError, match=r"cannot write .*make room, or use another folder$"),
        atomic_path(tmp_path / "taken" / "rows.json"),
    ):
        pass


def test_a_full_disk_is_a_clear_error_and_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for code, kind in ((errno.ENOSPC, DataError), (errno.ENOENT, FileNotFoundError)):
        with pytest.raises(kind), atomic_path(tmp_path / "f"):
            raise OSError(code, "so it is")
    assert not list(tmp_path.iterdir())


def test_a_filled_cache_may_be_read_only() -> None:
    cached_set("k", world)
    folder = cache_dir() / "derived"
    for lock in folder.glob(".*.lock"):
        lock.unlink()
    cached_set("k", world)
    assert not list(folder.glob(".*.lock"))  # nothing was written, not even a lock


def test_of_several_that_want_a_set_one_builds_it() -> None:
    calls = []

    def build() -> ImageSet:
        calls.append(1)
        threading.Event().wait(0.2)
        return world()

    threads = [threading.Thread(target=cached_set, args=("k", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_places_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_DATA", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    search = roots(tmp_path / "first")
    assert search == [tmp_path / "first", tmp_path / "a", tmp_path / "b", tmp_path / "cache" / "data"]
    for place in (tmp_path / "b" / "mnist", tmp_path / "a"):
        place.mkdir(parents=True)
        (place / "x").touch()
    assert places_of("mnist", "x", search)[0] == tmp_path / "a" / "x"
    assert places_of("mnist", "y", search) == []


def test_the_cache_follows_the_xdg_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LSGM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "lsgm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "lsgm"


def test_an_absent_file_is_reported_with_places_checksum_and_command() -> None:
    text = str(missing("mnist", "x.gz", [Path("/a"), Path("/b")], check="sha256 123"))
    for part in ("mnist: x.gz", "sha256 123", "/a, /b", "`lsgm data fetch mnist`", "LSGM_DATA"):
        assert part in text


def test_the_hash_sees_values_shape_and_order_and_not_the_layout_in_memory() -> None:
    rows = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    assert sha256_of(rows) != sha256_of(rows.reshape(2, 12))
    assert sha256_of(rows) != sha256_of(rows.flip(0))
    assert sha256_of(rows.transpose(1, 2).contiguous().transpose(1, 2)) == sha256_of(rows)
    assert sha256_of([rows, rows[:1]]) == sha256_of(rows, rows[:1])


def test_splits_join_by_plus() -> None:
    images = world()
    assert len(images.split("train+test")) == 12
    assert images.image_shape == (1, 4, 4)
    with pytest.raises(DataError, match="no split 'val'"):
        images.split("train+val")
