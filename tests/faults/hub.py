"""A hub of one model on this machine, whose network can be made to die in any way."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

COMMIT = "c0ffee" + "0" * 34
MODEL = "someone/flux"


@dataclass
class Hub:
    """Files by name; how bodies are cut: bytes sent of a body before the line drops, None: whole."""

    files: dict[str, bytes]
    cut_after: int | None = None
    says_whole: bool = True  # the length that a cut body is announced with; False: that of what is sent
    flips: bool = False  # one bit of each large body is another
    url: str = ""
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)  # method, path, range, authorization

    def ranges(self, name: str) -> list[str]:
        return [range_ for method, path, range_, _ in self.asked if method == "GET" and path.endswith(name)]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub on a port of its own, for the time of the block."""

    class Handler(_Handler):
        model = hub

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: Hub

    def log_message(self, *arguments: object) -> None: ...

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has had enough
            super().handle()

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, has_body: bool) -> None:
        path = self.path.partition("?")[0]
        range_, token = self.headers.get("Range") or "", self.headers.get("Authorization") or ""
        self.model.asked.append((self.command, path, range_, token))
        if path.startswith("/api/models/"):
            self._send_json(self._tree() if "/tree/" in path else self._info())
        elif (data := self.model.files.get(path.partition(f"/resolve/{COMMIT}/")[2])) is not None:
            self._send_file(data, int(range_[6:].partition("-")[0]) if range_ else 0, has_body)
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _info(self) -> object:
        return {"id": MODEL, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.model.files]}

    def _tree(self) -> object:
        return [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in self.model.files.items()]

    def _send_json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_file(self, data: bytes, start: int, has_body: bool) -> None:
        hub, body = self.model, data[start:]
        is_large = len(data) > 4096
        sent = body[: hub.cut_after] if is_large and hub.cut_after is not None and has_body else body
        if hub.flips and is_large:
            sent = bytes([sent[0] ^ 1]) + sent[1:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body) if hub.says_whole else len(sent)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if has_body:
            self.wfile.write(sent)
            if len(sent) < len(body):
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
