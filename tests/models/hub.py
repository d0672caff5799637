"""A hub on this machine: what huggingface.co answers for a model's metadata and files, with the faults that networks have.

Plain HTTP in threads, from the public documentation of the hub's HTTP interface; huggingface_hub's own client reads the answers.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """A folder as the hub serves it. Files of this size and more are "large": they have a SHA-256 and are redirected."""

    folder: Path
    gated: str | bool = False
    licence: str = ""
    needs_token: str = ""  # the token that is let in; "": everybody is
    large: int = 2000

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()
        }


@dataclass
class Faults:
    """What goes wrong; each is counted when it happened."""

    cut_after: int = 0  # bytes of a large body, after which the connection is closed
    cuts: int = 0  # how often
    pause: float = 0.0  # seconds before each 4 KiB of a large body
    hang_at: int = -1  # a large body stops there for ever
    wrong_byte: str = ""  # a file whose bytes are not what the hub says
    status: int = 0  # instead of every large body
    statuses: int = -1  # how often; -1: for ever
    retry_after: str = ""  # said with it
    ignores_range: bool = False
    happened: dict[str, int] = field(default_factory=dict)

    def note(self, what: str) -> None:
        self.happened[what] = self.happened.get(what, 0) + 1


class Hub:
    """`with Hub({"owner/name": Repository(folder)}) as hub: … hub.endpoint`."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.faults = Faults()
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # (method, path, headers)
        self.sent = 0  # bytes of bodies of files
        self.closing = threading.Event()
        self._servers = [self._serve(), self._serve()]  # the second is the store that large files lie in
        self.endpoint, self.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def _serve(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def bodies(self) -> list[tuple[str, dict[str, str]]]:
        """The requests for bytes of large files."""
        return [(path, headers) for method, path, headers in self.requests if method == "GET" and path.startswith("/store/")]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """The test reads `hub.requests` instead."""

    def do_GET(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.requests.append((self.command, path, dict(self.headers.items())))
        if path.startswith("/store/"):
            return self._body(*path.removeprefix("/store/").split("/", 1))
        words = path.strip("/").split("/")
        is_api = words[:2] == ["api", "models"]
        name = "/".join(words[2:4] if is_api else words[:2])
        repository = hub.repositories.get(name)
        authorization = self.headers.get("Authorization", "")
        if authorization == "Bearer bad":
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if repository is None:
            return self._refuse(404 if authorization else 401, "RepoNotFound", "Repository not found")
        is_let_in = not repository.needs_token or authorization == f"Bearer {repository.needs_token}"
        if is_api and words[4:] == ["auth-check"]:
            if is_let_in:
                return self._json({})
            return self._refuse(403 if authorization else 401, "GatedRepo", "Access to model is restricted")
        if is_api:
            if len(words) > 4 and words[5] not in ("main", COMMIT):
                return self._refuse(404, "RevisionNotFound", "Invalid rev id")
            return self._json(self._info(name, repository))
        if not is_let_in:
            return self._refuse(403 if authorization else 401, "GatedRepo", "Access to model is restricted")
        file = "/".join(words[4:])
        if (content := repository.files().get(file)) is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        if len(content) < repository.large:
            return self._answer(200, {}, content)
        self._answer(302, {"Location": f"{hub.store}/store/{name.replace('/', '--')}/{file}"}, b"")

    do_HEAD = do_GET

    def _info(self, name: str, repository: Repository) -> dict[str, Any]:
        siblings = []
        for file, content in repository.files().items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(content)}
            entry["blobId"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            if len(content) >= repository.large:
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        card = {"license_name": repository.licence} if repository.licence else {}
        return {
            "id": name, "modelId": name, "sha": COMMIT, "private": False, "gated": repository.gated, "siblings": siblings,
            "cardData": card, "tags": [], "downloads": 0, "likes": 0,
        }  # fmt: skip

    def _body(self, name: str, file: str) -> None:
        faults = self.hub.faults
        if self.headers.get("Authorization"):
            faults.note("token seen by the store")
        if faults.status and faults.statuses:
            faults.statuses -= 1
            faults.note("status")
            return self._refuse(faults.status, "", "as the test wants it", faults.retry_after)
        content = self.hub.repositories[name.replace("--", "/", 1)].files()[file]
        if faults.wrong_byte == file:
            faults.note("wrong byte")
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        if (wanted := self.headers.get("Range")) and not faults.ignores_range:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._stream(content[start:], start)

    def _stream(self, content: bytes, start: int) -> None:
        faults = self.hub.faults
        for offset in range(0, len(content), 4096):
            if faults.pause and self.hub.closing.wait(faults.pause):
                return
            if 0 <= faults.hang_at <= start + offset:
                faults.note("hang")
                self.wfile.flush()
                self.hub.closing.wait()
                return
            if faults.cuts and offset >= faults.cut_after:
                faults.cuts -= 1
                faults.note("cut")
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(2)
                return
            try:
                self.wfile.write(content[offset : offset + 4096])
            except OSError:
                return
            self.hub.sent += len(content[offset : offset + 4096])

    def _json(self, value: dict[str, Any]) -> None:
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _refuse(self, status: int, code: str, message: str, retry_after: str = "") -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        headers |= {"Retry-After": retry_after} if retry_after else {}
        self._answer(status, headers, json.dumps({"error": message}).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def until(holds: Any, seconds: float = 30.0) -> None:
    """Waits for a condition; fails where it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.02)
