"""A mirror is believed as far as its manifest goes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lsgm.data.places import find_mirror, read_manifest
from lsgm.errors import DataError


def make_mirror(folder: Path, name: str, files: dict[str, bytes], **extra: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for file, content in files.items():
        (folder / file).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        entries.append({"file": file, "bytes": len(content), "sha256": digest})
    manifest = {"name": name, "version": "mirror-1", "splits": {}, "files": entries} | extra
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_mirror_is_found_by_the_name_in_its_manifest(tmp_path: Path) -> None:
    make_mirror(tmp_path / "some-folder", "world", {"a": b"123"})
    make_mirror(tmp_path / "another", "moon", {"a": b"123"})
    found = find_mirror("world", tmp_path)
    assert found is not None
    assert found.folder == tmp_path / "some-folder"
    assert find_mirror("moon", tmp_path / "another") is not None
    assert find_mirror("sun", tmp_path) is None
    assert find_mirror("sun", tmp_path / "nowhere") is None


def test_a_mirror_in_a_hidden_folder_is_none(tmp_path: Path) -> None:
    make_mirror(tmp_path / ".trash", "world", {"a": b"123"})
    assert find_mirror("world", tmp_path) is None
    assert find_mirror("world", tmp_path / ".trash") is not None  # unless that is where one is sent


def test_good_files_verify(tmp_path: Path) -> None:
    mirror = read_manifest(make_mirror(tmp_path, "world", {"a": b"123", "b": b""}))
    mirror.verify()
    assert mirror.path("a") == tmp_path / "a"


def test_files_nested_under_splits_and_labels_are_checked_too(tmp_path: Path) -> None:
    entry = {"file": "b", "bytes": 3, "sha256": hashlib.sha256(b"456").hexdigest()}
    splits = {"train": {"files": [entry], "pixels_sha256": "feed"}}
    labels = entry | {"file": "c"}
    for file in ("b", "c"):
        (tmp_path / file).write_bytes(b"456")
    mirror = read_manifest(make_mirror(tmp_path, "world", {}, splits=splits, labels=labels))
    assert [item.file for item in mirror.files] == ["b", "c"]
    assert mirror.pixels_sha256 == {"train": "feed"}
    (tmp_path / "c").write_bytes(b"457")
    with pytest.raises(DataError, match="/c is corrupted"):
        mirror.verify()


def test_damage_is_named_with_its_kind_and_what_to_do(tmp_path: Path) -> None:
    mirror = read_manifest(make_mirror(tmp_path, "world", {"a": b"123"}))
    sha256 = hashlib.sha256(b"123").hexdigest()
    for content, words in (
        (b"12", "is truncated: 2 bytes where the manifest says 3"),
        (b"1234", "not the file"),
    ):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(DataError, match=f"{tmp_path}/a .*{words}.*copy it again"):
            mirror.path("a")
    (tmp_path / "a").write_bytes(b"321")
    mirror.path("a")  # sizes alone are looked at on every load
    with pytest.raises(DataError, match=f"is corrupted: .*{sha256}"):
        mirror.verify()
    (tmp_path / "a").unlink()
    with pytest.raises(DataError, match=f"{sha256}. is missing"):
        mirror.path("a")
    with pytest.raises(DataError, match="does not list z"):
        mirror.path("z")


def test_the_key_of_what_is_derived_follows_the_checksums(tmp_path: Path) -> None:
    one = read_manifest(make_mirror(tmp_path / "1", "world", {"a": b"1", "b": b"2"})).key
    same = read_manifest(make_mirror(tmp_path / "2", "world", {"b": b"2", "a": b"1"})).key
    other = read_manifest(make_mirror(tmp_path / "3", "world", {"a": b"1", "b": b"3"})).key
    assert one == same != other


@pytest.mark.parametrize(
    "text", ["", "[]", '{"name": "world"}', '{"name": "w", "version": 1, "files": [{}]}']
)
def test_a_manifest_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json is not a mirror's manifest"):
        read_manifest(tmp_path)


def test_a_broken_manifest_matters_only_to_the_dataset_whose_folder_it_is_in(tmp_path: Path) -> None:
    make_mirror(tmp_path / "copy", "world", {"a": b"123"})
    for folder in ("unrelated", "moon"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "manifest.json").write_text("{}")
    assert find_mirror("world", tmp_path) is not None
    assert find_mirror("sun", tmp_path) is None
    with pytest.raises(DataError, match=r"moon/manifest\.json is not a mirror's manifest"):
        find_mirror("moon", tmp_path)
