"""Only regular files are opened, and no more of them is read than a limit allows."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hostile_files import SPECIAL, place_special, says

from lsgm.errors import CheckpointError, ConfigError, DataError
from lsgm.files.limits import DOCUMENT, Limit
from lsgm.files.regular import absent, last_read, open_regular, read_bytes, refuse_special

SMALL = Limit("LSGM_TEST_LIMIT", 10)


@pytest.mark.parametrize("kind", SPECIAL)
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = place_special(tmp_path / "weights", kind)
    named = {"pipe": "a named pipe", "device": "a device", "folder": "a folder"}[kind]
    for call in (open_regular, refuse_special):
        with says(f"weights is {named}, not a file; give a file", error=CheckpointError):
            call(path, CheckpointError)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is a short one
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        with says("s is a socket, not a file", error=DataError):
            read_bytes("s", DOCUMENT)


def test_what_cannot_be_looked_at_is_not_said_to_be_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dead").symlink_to("nowhere")
    assert all(map(absent, (tmp_path / "none", tmp_path / "none" / "deeper")))
    assert not any(map(absent, (tmp_path, tmp_path / "dead", "x" * 300)))

    def shut(path: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", shut)
        assert not absent(tmp_path / "none")


@pytest.mark.parametrize("path", ["absent", "a\0b", "x" * 300, "absent/deeper"])
def test_a_path_that_leads_nowhere_is_one_sentence(tmp_path: Path, path: str) -> None:
    refuse_special(tmp_path / path)
    with says(error=DataError):
        read_bytes(tmp_path / path, DOCUMENT)


def test_links_that_go_round_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with says("a cannot be read (", error=DataError):
        read_bytes(tmp_path / "a", DOCUMENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    path.write_text("x")
    path.chmod(0)
    with says("locked cannot be read (Permission denied); make it readable", error=DataError):
        read_bytes(path, DOCUMENT)


def test_a_file_above_the_limit_names_its_size_and_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 11)
    with says("big has 11 bytes, and at most 10 are read; ", "LSGM_TEST_LIMIT=11", error=DataError):
        read_bytes(path, SMALL)
    monkeypatch.setenv("LSGM_TEST_LIMIT", "11")
    assert read_bytes(path, SMALL) == b"x" * 11


def test_a_limit_far_above_the_file_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    monkeypatch.setenv("LSGM_TEST_LIMIT", "9" * 18)
    assert read_bytes(tmp_path / "small", SMALL) == b"abc"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system has no /proc")
def test_a_file_that_says_nothing_of_its_size_is_held_to_the_limit_too() -> None:
    with says("/proc/self/maps has ", "at most 10 are read", error=DataError):
        read_bytes("/proc/self/maps", SMALL)


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "many", "²", "1" * 30])
def test_a_limit_that_is_no_number_is_one_sentence(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("LSGM_TEST_LIMIT", given)
    with says(f"LSGM_TEST_LIMIT is '{given}'; give a whole number of bytes", error=ConfigError):
        SMALL.hold("x", 1)


def test_the_file_in_hand_is_known_also_where_it_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_regular(tmp_path / "absent")
    assert last_read() == str(tmp_path / "absent")
