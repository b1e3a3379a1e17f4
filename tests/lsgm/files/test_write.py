"""What is written is there whole or not at all, and where it was told to be: no link leads it elsewhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile_files import says

from lsgm.errors import DataError
from lsgm.files import write


@pytest.fixture(autouse=True)
def unclaimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_claimed", set())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that a command was told to write into, beside what is not its business."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "theirs").write_text("theirs")
    return write.claim(write.make_folder(tmp_path / "out"))


@pytest.fixture(autouse=True)
def nothing_elsewhere(tmp_path: Path) -> Iterator[None]:
    yield
    if (elsewhere := tmp_path / "elsewhere").exists():
        assert [path.name for path in elsewhere.iterdir()] == ["theirs"]
        assert (elsewhere / "theirs").read_text() == "theirs"


def atomically(path: Path) -> None:
    with write.atomic_path(path) as temporary:
        temporary.write_text("ours")


def appended(path: Path) -> None:
    with write.open_append(path) as file:
        file.write(b"ours")


def updated(path: Path) -> None:
    with write.open_update(path) as file:
        file.write(b"ours")


def locked(path: Path) -> None:
    with write.exclusive(path):
        pass


def as_folder(path: Path) -> None:
    with write.directory(path) as temporary:
        (temporary / "x").write_text("ours")


def replaced(path: Path) -> None:
    write.replace_file(path, b"ours")


Write = Callable[[Path], None]
BY_RENAME: list[Write] = [atomically, replaced]
IN_PLACE: list[Write] = [appended, updated]
INTO: list[Write] = [*BY_RENAME, *IN_PLACE, as_folder, locked]


@pytest.mark.parametrize("writes", BY_RENAME)
def test_a_link_in_the_place_of_a_file_is_replaced(out: Path, writes: Write) -> None:
    (out / "file").symlink_to(out.parent / "elsewhere" / "theirs")
    writes(out / "file")
    assert not (out / "file").is_symlink()
    assert (out / "file").read_text() == "ours"
    assert os.listdir(out) == ["file"]


@pytest.mark.parametrize("writes", BY_RENAME)
def test_a_second_name_of_a_file_keeps_what_it_had(out: Path, writes: Write) -> None:
    (out / "file").hardlink_to(out.parent / "elsewhere" / "theirs")
    writes(out / "file")
    assert (out / "file").read_text() == "ours"


@pytest.mark.parametrize("writes", IN_PLACE)
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "dangling"])
def test_nothing_is_written_through_what_is_no_file_of_its_own(out: Path, writes: Write, kind: str) -> None:
    theirs = out.parent / "elsewhere" / "theirs"
    if kind == "link":
        (out / "file").symlink_to(theirs)
    elif kind == "dangling":
        (out / "file").symlink_to(theirs.with_name("new"))
    elif kind == "hard link":
        (out / "file").hardlink_to(theirs)
    else:
        os.mkfifo(out / "file")
    with says("file", "remove", error=DataError):
        writes(out / "file")


@pytest.mark.parametrize("writes", INTO)
def test_a_folder_that_is_a_link_leads_nowhere(out: Path, writes: Write) -> None:
    (out / "samples").symlink_to(out.parent / "elsewhere")
    with says("samples is a link, and what is written into", "put there what it leads to", error=DataError):
        writes(out / "samples" / "file")
    with says("samples is a link", error=DataError):
        write.make_folder(out / "samples" / "deeper")


def test_a_lock_that_is_a_link_is_not_opened(out: Path) -> None:
    (out / ".file.lock").symlink_to(out.parent / "elsewhere" / "theirs")
    with says(".file.lock is a link, which is not written through; remove it", error=DataError):
        locked(out / "file")


def test_the_folder_that_somebody_named_may_be_a_link(out: Path) -> None:
    (out.parent / "named").symlink_to(out)
    atomically(write.claim(out.parent / "named") / "file")
    assert (out / "file").read_text() == "ours"


@pytest.mark.parametrize("writes", INTO)
def test_a_name_of_many_letters_is_written(out: Path, writes: Write) -> None:
    path = out / ("é" * 100 + "." + "ü" * 20)
    if writes is updated:
        path.write_text("")
    writes(path)
    assert path.exists() or writes is locked


@pytest.mark.parametrize("writes", BY_RENAME)
def test_what_fails_leaves_the_old_file_and_nothing_beside_it(
    out: Path, writes: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / "file").write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync" if writes is replaced else "chmod", full)
    with pytest.raises((DataError, OSError), match="No space left"):
        writes(out / "file")
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("file", "old")]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EFBIG, r"allow larger files \(ulimit -f\)"),
    ],
)
def test_where_there_is_no_room_the_file_is_named_and_what_helps(out: Path, number: int, advice: str) -> None:
    with pytest.raises(DataError, match=rf"file \({os.strerror(number)}\); {advice}, or use another folder"):  # noqa: SIM117
        with write.atomic_path(out / "file"):
            raise OSError(number, os.strerror(number))
    assert os.listdir(out) == []


def test_room_is_no_remedy_where_writing_is_forbidden() -> None:
    for number in (errno.EROFS, errno.EACCES, errno.EPERM):
        assert write.remedy(OSError(number, "")) == "let this user write there"


def test_a_folder_in_the_place_of_a_file_is_one_sentence(out: Path) -> None:
    (out / "file").mkdir()
    with says("cannot write", "file (Is a directory)", error=DataError):
        atomically(out / "file")
    assert os.listdir(out) == ["file"]


def test_where_nothing_can_be_written_is_one_sentence(out: Path) -> None:
    (out / "file").write_text("x")
    with says("cannot write", "deeper (", error=DataError):
        atomically(out / "file" / "deeper")


def test_what_a_kill_left_is_swept_and_a_links_target_is_not(out: Path) -> None:
    (out / ".tmp-link").symlink_to(out.parent / "elsewhere")
    (out / ".tmp-folder").mkdir()
    (out / ".tmp-folder" / "x").write_text("x")
    (out / ".tmp-file").write_text("x")
    write.sweep(out)
    assert os.listdir(out) == []


def test_a_folder_appears_whole_or_not_at_all(out: Path) -> None:
    with pytest.raises(RuntimeError), write.directory(out / "step"):
        raise RuntimeError
    assert os.listdir(out) == []
    as_folder(out / "step")
    assert [path.name for path in (out / "step").iterdir()] == ["x"]
    assert (out / "step").stat().st_mode & 0o777 == 0o755


def test_removing_a_folder_leaves_none_of_its_name(out: Path) -> None:
    as_folder(out / "step")
    (out / "step" / "link").symlink_to(out.parent / "elsewhere")
    write.remove(out / "step")
    assert os.listdir(out) == []
