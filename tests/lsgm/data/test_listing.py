"""Which files of a folder or zip count: hidden ones never, linked ones once, and the rest is said."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from pictures import encoded, photo, photos, zipped

from lsgm.data import open_images
from lsgm.data.listing import list_files
from lsgm.data.splits import split_files
from lsgm.errors import DataError


def names(path: Path) -> list[str]:
    return [file.name for file in list_files(path).files]


def used(path: Path) -> dict[str, list[str]]:
    files, split = split_files(list_files(path))
    return {role: [files[row].name for row in rows] for role, rows in split.parts.items()}


HIDDEN = [
    ".ipynb_checkpoints/black-checkpoint.png", "__MACOSX/._000.png", "sub/.cache/a.png", ".thumb.png",
    "._000.png", "Thumbs.db", "sub/desktop.ini", "@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg",
]  # fmt: skip


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_what_is_hidden_never_counts(hidden: str, as_zip: bool, tmp_path: Path) -> None:
    folder = photos(tmp_path / "set")
    before = names(folder)
    (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
    photo(99).save(folder / hidden, "PNG")
    path = zipped(folder, tmp_path / "set.zip") if as_zip else folder
    assert names(path) == before
    assert len(open_images(path)) == 6


def test_a_hidden_folder_around_the_set_hides_nothing(tmp_path: Path) -> None:
    assert len(names(photos(tmp_path / ".cache" / "set"))) == 6


def test_suffixes_count_in_any_case_and_no_other_file_does(tmp_path: Path) -> None:
    kinds = {"a.PNG": "PNG", "b.JPEG": "JPEG", "c.jpe": "JPEG", "d.JFIF": "JPEG", "e.TIF": "TIFF",
             "f.ppm": "PPM", "g.gif": "GIF", "h.WebP": "WEBP"}  # fmt: skip
    for name, kind in kinds.items():
        (tmp_path / name).write_bytes(encoded(photo(0), kind))
    (tmp_path / "notes.txt").write_text("best of three")
    assert names(tmp_path) == sorted(kinds)


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    elsewhere = photos(tmp_path / "elsewhere", 3)
    folder = photos(tmp_path / "set", 2, first=10)
    (folder / "more").symlink_to(elsewhere)
    (folder / "one.png").symlink_to(elsewhere / "000.png")
    (folder / "deep").mkdir()
    (folder / "deep" / "more").symlink_to("../../elsewhere")  # the same folder again: read once
    assert len(open_images(folder)) == 2 + 3 + 1


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set", 2)
    (folder / "self").symlink_to(folder)
    (folder / "up").symlink_to("..")
    for one, other in ("ab", "ba"):
        photos(folder / one, 1, first=ord(one)).joinpath(other).symlink_to(f"../{other}")
    (folder / "x.png").symlink_to("y.png")
    (folder / "y.png").symlink_to("x.png")
    assert len(open_images(folder)) == 4


def test_many_folders_full_of_links_to_each_other_are_listed_quickly(tmp_path: Path) -> None:
    """By the paths through them there are more than 10! names."""
    for k in range(10):
        folder = photos(tmp_path / "set" / str(k), 1, first=k)
        for other in range(10):
            (folder / f"to-{other}").symlink_to(f"../{other}")
    assert len(open_images(tmp_path / "set")) == 10


def test_what_is_left_out_is_said_once_with_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(tmp_path / "set")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "a.txt").write_text("x")
    (folder / "b.txt").write_text("x")
    (folder / "c.heic").write_text("x")
    (folder / "README").write_text("x")
    (folder / ".ipynb_checkpoints").mkdir()
    os.mkfifo(folder / "pipe.png")
    open_images(folder)
    open_images(folder)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lsgm:")]
    assert said == [
        f"lsgm: {folder}: left out are files not read: 2 .txt (a.txt), 1 .heic (c.heic), 1 without a suffix "
        "(README); hidden folders: 1 (.ipynb_checkpoints); links that lead nowhere: 1 (gone.png); no regular "
        "files: 1 (pipe.png)"
    ]


def test_a_folder_or_zip_without_images_says_what_it_has_instead(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "samples.npz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"set has no image in it; .*1 \.npz .*: give samples\.npz itself"):
        list_files(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(zipped(photos(tmp_path / "a"), tmp_path / "inner.zip"), "inner.zip")
    with pytest.raises(DataError, match=r"outer\.zip has no image in it; .*: give inner\.zip itself"):
        list_files(tmp_path / "outer.zip")


def test_errors_give_the_whole_way_to_a_file_below_folders_around_everything(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set" / "a" / "b")
    (folder / "001.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"set: a/b/001\.png is no image"):
        open_images(tmp_path / "set")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "set")
    photos(folder / "locked")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"set: locked cannot be read \(Permission denied\)"):
        list_files(folder)


def test_names_that_are_no_utf8_are_read_split_and_shown(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set")
    raw = os.fsencode(folder) + b"/caf\xe9.png"
    with open(raw, "wb") as file:
        file.write(encoded(photo(50)))
    images = open_images(folder)
    assert (len(images), len(images.sha256)) == (7, 64)
    assert images.label(6).endswith(r"caf\xe9.png")
    assert sum(map(len, used(folder).values())) == 7


def test_a_name_of_several_lines_is_shown_on_one(tmp_path: Path) -> None:
    folder = photos(tmp_path / "set", 2)
    (folder / "a\nb\x1b[31m.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"set: a\\nb\\x1b\[31m\.png is no image"):
        open_images(folder)


def test_names_come_in_one_order_from_a_folder_and_any_zip_of_it(tmp_path: Path) -> None:
    folder = photos(tmp_path / "a" / "set", 3)
    for name in ("B", "a-b", "a", "ä"):
        photos(folder / name, 1)
    zips = (zipped(folder, tmp_path / "x.zip"), zipped(folder, tmp_path / "y.zip", tmp_path / "a"))
    assert names(tmp_path / "a") == names(folder) == names(zips[0]) == names(zips[1])
    assert open_images(tmp_path / "a").sha256 == open_images(zips[1]).sha256


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png", "C:\\out.png"])
def test_a_zip_whose_names_lead_out_of_it_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(photo(0)))
        archive.writestr(name, encoded(photo(1)))
    with pytest.raises(DataError, match=r"set\.zip: .*out\.png has a name that leads out of the zip"):
        list_files(path)


def test_a_zip_that_has_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(photo(0)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", encoded(photo(1)))
    with pytest.raises(DataError, match=r"set\.zip: a\.png is there 2 times"):
        list_files(path)


def test_a_member_without_a_name_is_left_out(tmp_path: Path) -> None:
    path = zipped(photos(tmp_path / "set", 2), tmp_path / "set.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"x")
    assert names(path) == ["000.png", "001.png"]


def test_backslashes_of_windows_zips_are_folders(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k, name in enumerate(("train\\a.png", "train\\b.png", "test\\a.png", "val\\a.png")):
            archive.writestr(name, encoded(photo(k)))
    assert used(path) == {
        "train": ["train/a.png", "train/b.png"],
        "val": ["val/a.png"],
        "test": ["test/a.png"],
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_method_of_python_are_read_and_their_broken_streams_named(
    method: int, tmp_path: Path
) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", encoded(photo(0)))
    assert len(open_images(path)) == 1
    raw = bytearray(path.read_bytes())
    raw[60:90] = bytes(30)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"set\.zip: a\.png cannot be read") as caught:
        open_images(path)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize(("method", "says"), [(9, "Deflate64"), (98, "PPMd"), (77, "method 77")])
def test_other_methods_are_named(method: int, says: str, tmp_path: Path) -> None:
    path = zipped(photos(tmp_path / "set", 1), tmp_path / "set.zip")
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 10] = method
    path.write_bytes(raw)
    with pytest.raises(DataError, match=rf"000\.png cannot be read \(it is compressed by {says}\)"):
        list_files(path)


def test_a_member_that_claims_gigabytes_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = zipped(photos(tmp_path / "set", 1), tmp_path / "set.zip")
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02") + 24
    raw[at : at + 4] = (3_000_000_000).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"000\.png has 3,000,000,000 bytes, .* set LSGM_LARGEST_IMAGE_FILE="):
        list_files(path)
