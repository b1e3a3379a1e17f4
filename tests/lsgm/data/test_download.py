"""Downloads against a server of our own: interrupted, resumed, refused, and without ranges."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lsgm.data.dataset import RemoteFile
from lsgm.data.download import _SameKind, download, fetch
from lsgm.errors import DataError

CONTENT = hashlib.sha256(b"content").digest() * 40_000  # 1.28 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """What the server should do, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.cut: list[int] = []  # bytes after which the next answers break off
        self.ranges = True
        self.status = 200
        self.leads_to = ""
        self.length: str | None = ""  # what is announced, the truth where empty
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *args: object) -> None:
        self.script = server
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.script.asked.append(wanted)
        if self.script.status != 200:
            self.send_error(self.script.status)
            return
        if self.script.leads_to:
            self.send_response(302)
            self.send_header("Location", self.script.leads_to)
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.script.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.script.length is not None:
            self.send_header("Content-Length", self.script.length or str(len(CONTENT) - start))
        self.end_headers()
        stop = start + self.script.cut.pop(0) if self.script.cut else len(CONTENT)
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    script = Server()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, script))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    script.url = f"http://127.0.0.1:{httpd.server_port}/file.bin"
    yield script
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_download_interrupted_half_way_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut = [500_000]
    target = tmp_path / "file.bin"
    download(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=500000-"]


def test_a_second_call_resumes_what_the_first_left(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    part = tmp_path / "file.bin.part"
    part.write_bytes(CONTENT[:700_000])
    download(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == ["bytes=700000-"]
    assert not part.exists()


def test_a_connection_that_never_gets_on_is_given_up_and_what_came_is_kept(
    server: Server, tmp_path: Path
) -> None:
    server.cut = [500_000, 0, 0]
    target = tmp_path / "file.bin"
    with pytest.raises(DataError, match=r"file\.bin\.part is kept; run the same command again to go on"):
        download(server.url, target, attempts=2)
    assert not target.exists()
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:500_000]
    download(server.url, target)
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut = False, [500_000]
    download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=500000-"]


def test_a_part_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"mine")
    download(server.url, tmp_path / "file.bin")
    assert server.asked == []


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    wrong = RemoteFile("file.bin", server.url, sha256="0" * 64)
    with pytest.raises(DataError, match=f"is not the file wanted.*{SHA256}.*instead of {'0' * 64}"):
        fetch((wrong,), tmp_path, dataset="mnist")
    assert not list(tmp_path.glob("file*"))
    right = RemoteFile("file.bin", server.url, sha256=SHA256)
    assert fetch((right,), tmp_path, dataset="mnist") == [tmp_path / "file.bin"]


def test_a_wrong_address_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(DataError, match="answered 404 Not Found; check the address"):
        download(server.url, tmp_path / "file.bin")
    assert len(server.asked) == 1


def test_no_connection_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not download http://127\.0\.0\.1:9/x"):
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=1)


def test_without_a_network_one_sentence_names_file_place_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsgm.data.download.time.sleep", lambda seconds: None)
    item = RemoteFile("file.bin", "http://127.0.0.1:9/file.bin", sha256=SHA256)
    with pytest.raises(DataError) as caught:
        fetch((item,), tmp_path / "mnist", dataset="mnist")
    sentence = str(caught.value)
    for words in (
        f"mnist: file.bin (sha256 {SHA256}) is not here; could not download http://127.0.0.1:9/file.bin",
        "run `lsgm data fetch mnist` where there is a network",
        f"put the file into {tmp_path / 'mnist'}",
    ):
        assert words in sentence
    assert "\n" not in sentence


def test_a_leftover_of_another_file_costs_a_second_download_and_no_second_call(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 700_000)
    item = RemoteFile("file.bin", server.url, sha256=SHA256)
    assert fetch((item,), tmp_path, dataset="mnist")[0].read_bytes() == CONTENT
    assert server.asked == ["bytes=700000-", None]


def test_a_full_disk_is_said_at_once_and_is_no_fault_of_the_connection(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = "/dev/full"
    if not Path(full).exists():
        pytest.skip("no device that is always full")
    monkeypatch.setattr("lsgm.data.download.open_append", lambda part: io.FileIO(full, "a"))
    with pytest.raises(
        DataError, match=r"cannot write .*file\.bin\.part \(No space left on device\); make room"
    ):
        download(server.url, tmp_path / "file.bin")
    assert len(server.asked) == 1


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_link_in_the_place_of_what_has_come_is_not_written_through(
    kind: str, server: Server, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    part = tmp_path / "to" / "file.bin.part"
    part.parent.mkdir()
    part.symlink_to(mine) if kind == "symbolic" else part.hardlink_to(mine)
    with pytest.raises(DataError, match=r"file\.bin\.part (is a link|has a second name)"):
        download(server.url, tmp_path / "to" / "file.bin")
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["file.bin", "file.bin.part"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(place: str, server: Server, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / place)
    with pytest.raises(DataError, match=rf"{place} is a named pipe"):
        download(server.url, tmp_path / "file.bin")
    assert server.asked == []


@pytest.mark.parametrize("leads_to", ["file:///etc/passwd", "ftp://127.0.0.1:9/x", "gopher://127.0.0.1/"])
def test_an_address_that_leads_to_no_web_address_is_not_followed(
    leads_to: str, server: Server, tmp_path: Path
) -> None:
    server.leads_to = leads_to
    with pytest.raises(DataError, match=r"(leads to|Redirection to url).*check the address"):
        download(server.url, tmp_path / "file.bin")
    assert not list(tmp_path.glob("file*"))


def test_an_encrypted_address_does_not_lead_to_an_open_one() -> None:
    request = urllib.request.Request("https://example.org/file.bin")
    follow = _SameKind().redirect_request
    with pytest.raises(DataError, match=r"leads to http://example\.org/file\.bin, which is not followed"):
        follow(request, None, 302, "Found", None, "http://example.org/file.bin")


@pytest.mark.parametrize("length", ["", None], ids=["announced", "unknown"])
def test_more_than_any_file_is_refused_and_not_kept(
    length: str | None, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_LARGEST_DOWNLOAD", "1000000")
    server.length = length
    with pytest.raises(DataError, match=r"at most 1,000,000 are read; .* set LSGM_LARGEST_DOWNLOAD="):
        download(server.url, tmp_path / "file.bin")
    assert not list(tmp_path.glob("file*"))


def test_a_length_that_is_no_number_is_none(server: Server, tmp_path: Path) -> None:
    server.length = "many"
    download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_place_that_cannot_hold_a_file_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    (tmp_path / "folder" / "file.bin").mkdir(parents=True)
    item = RemoteFile("file.bin", server.url, sha256=SHA256)
    for folder in ("taken", "folder"):
        with pytest.raises(DataError, match=f"cannot write {tmp_path / folder}"):
            fetch((item,), tmp_path / folder, dataset="mnist")


def test_a_page_in_the_place_of_a_file_without_a_checksum_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("\n<!DOCTYPE html><title>log in</title>")
    item = RemoteFile("chardata.mat", (tmp_path / "page").as_uri())
    with pytest.raises(DataError, match=r"is not the file wanted: .* is a web page"):
        fetch((item,), tmp_path / "to", dataset="omniglot")
    assert not list((tmp_path / "to").glob("chardata*"))


def test_two_downloads_of_one_file_share_it(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=download, args=(server.url, tmp_path / "file.bin")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_the_progress_bar_counts_bytes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LSGM_PROGRESS", raising=False)
    with contextlib.suppress(KeyError):
        monkeypatch.delenv("RANK")
    download(server.url, tmp_path / "file.bin")
    assert "1.28M" in capsys.readouterr().err
