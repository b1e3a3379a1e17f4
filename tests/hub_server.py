"""A stand-in for the Hugging Face Hub: what huggingface_hub asks it for to fetch files and to commit some."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["TOKEN", "Hub", "Repository", "serving"]

TOKEN = "hf_of_a_test"
LARGE = ".safetensors"
"""Files that are stored apart, as large ones are."""
Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits, and what branches and tags lead to them."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: Files, branch: str = "main") -> str:
        """Add a commit on a branch, and return it."""
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.refs[branch] = oid
        return oid

    @property
    def files(self) -> Files:
        """The newest files of main."""
        return self.commits[self.refs["main"]]


@dataclass
class Hub:
    """Repositories by name, and every request that was made: method, path, body where it is JSON."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    down: bool = False
    sent: dict[str, bytes] = field(default_factory=dict)
    """What files are sent as, where it is not what they are."""

    def holding(self, name: str, files: Files, **about: Any) -> Repository:
        """Add a repository."""
        found = self.repositories[name] = Repository(**about)
        found.commit({".gitattributes": b"*.safetensors filter=lfs\n", **files})
        return found


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body, path = self._body(), urlsplit(self.path).path
        self.hub.asked.append((self.command, unquote(path)))
        if self.hub.down:
            return self._send(503, b"{}")
        for pattern, method in (
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self._info),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._file),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/stored/([0-9a-f]{64})", self._store),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self._commit),
        ):
            if found := re.fullmatch(pattern, path):
                return method(body, *(part and unquote(part) for part in found.groups()))
        return self._send(404, b"{}")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json")

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", X_Error_Code=code, Content_Type="application/json")

    @property
    def _signed_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository | None:
        """Return what may be seen; of what may not, say what the Hub says of what there is not."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self._signed_in):
            self._refuse(404 if self._signed_in else 401, "RepoNotFound")
            return None
        if found.gated and self.command in ("GET", "HEAD"):
            self._refuse(403, "GatedRepo")
            return None
        return found

    def _at(self, found: Repository, revision: str | None) -> str | None:
        oid = found.refs.get(revision or "main", revision)
        if oid not in found.commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return oid

    def _info(self, body: bytes, name: str, revision: str | None) -> None:
        found = self._repository(name)
        if found is None or (oid := self._at(found, revision)) is None:
            return
        siblings = []
        for file, content in found.commits[oid].items():
            sha256 = hashlib.sha256(content).hexdigest()
            lfs = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            stored = {"lfs": lfs} if file.endswith(LARGE) else {}
            siblings.append({"rfilename": file, "size": len(content), "blobId": sha256[:40], **stored})
        self._json({"id": name, "sha": oid, "siblings": siblings, "private": found.private})

    def _file(self, body: bytes, name: str, revision: str, file: str) -> None:
        found = self._repository(name)
        if found is None or (oid := self._at(found, revision)) is None:
            return
        if file not in found.commits[oid]:
            self._send(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=oid)
            return
        content = found.commits[oid][file]
        etag = hashlib.sha256(content).hexdigest()
        content = self.hub.sent.get(file, content)
        self._send(200, content, ETag=f'"{etag}"', X_Repo_Commit=oid)

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._signed_in:
            return self._send(401, b"{}")
        if name in self.hub.repositories or asked["organization"] != "me":
            return self._json({"error": "not yours"}, 409 if name in self.hub.repositories else 403)
        self.hub.holding(name, {}, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        return self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _validate(self, body: bytes) -> None:
        good = json.loads(body)["content"].startswith("---\n")
        self._json(
            {"errors": [] if good else [{"message": "no metadata"}], "warnings": []}, 200 if good else 400
        )

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        found = self._repository(name)
        if found is None:
            return
        files = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"}
            for f in json.loads(body)["files"]
        ]
        self._json(
            {"files": [{**file, "shouldIgnore": False, "oid": self._oid(found, file)} for file in files]}
        )

    def _oid(self, found: Repository, file: dict[str, str]) -> str | None:
        content = found.files.get(file["path"])
        if content is None:
            return None
        if file["uploadMode"] == "lfs":
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def _batch(self, body: bytes, name: str) -> None:
        asked = json.loads(body)["objects"]
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/stored/{each['oid']}"}}}
            for each in asked
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.stored[oid] = body
        self._send(200, b"")

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        found = self._repository(name)
        if found is None:
            return
        if not self._signed_in:
            self._send(403, b"{}")
            return
        lines = [json.loads(line) for line in body.splitlines()]
        if lines[0]["value"].get("parentCommit") != found.refs.get(revision):
            self._json({"error": "A commit has happened since."}, 412)
            return
        files = dict(found.commits[found.refs[revision]])
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.stored[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        oid = found.commit(files, revision)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})


@contextmanager
def serving() -> Iterator[Hub]:
    """Yield a Hub that answers at its ``url``."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
