"""A hub that speaks the protocol of huggingface_hub's uploads on this machine, and keeps what it was sent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What the server knows. `files` are those of the commits; a large one arrives by LFS first."""

    token: str
    address: str = ""
    repos: dict[str, bool] = field(default_factory=dict)  # name -> is private
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)  # every request


class Handler(BaseHTTPRequestHandler):
    """One request. The hub hangs on the server."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def log_message(self, *_: object) -> None: ...

    def answer(self, document: object, code: int = 200) -> None:
        data = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def is_known(self) -> bool:
        self.hub.paths.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self.body()
        self.answer({"error": "Invalid credentials"}, 401)
        return False

    def do_GET(self) -> None:
        if self.is_known():
            repo = self.path.partition("/api/models/")[2].partition("?")[0].partition("/revision/")[0]
            self.answer({"id": repo, "private": self.hub.repos[repo], "sha": "0" * 40, "siblings": [], "tags": []})

    def do_PUT(self) -> None:
        self.hub.paths.append(f"PUT {self.path}")
        self.hub.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        if not self.is_known():
            return
        data = self.body()
        if self.path == "/api/repos/create":
            self.create(json.loads(data))
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = json.loads(data)["files"]
            modes = {file["path"]: "lfs" if file["path"].endswith((".safetensors", ".png")) else "regular" for file in asked}
            self.answer({"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(data)["objects"]
            objects = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.hub.address}/lfs/{o['oid']}"}}}
                for o in wanted
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self.commit(data)
        else:
            self.answer({"error": f"what is {self.path}?"}, 404)

    def create(self, asked: dict[str, object]) -> None:
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if repo in self.hub.repos:
            self.answer({"error": "You already created this model repo", "url": f"{self.hub.address}/{repo}"}, 409)
            return
        self.hub.repos[repo] = asked.get("visibility") == "private" or asked.get("private") is True
        self.answer({"url": f"{self.hub.address}/{repo}", "id": repo})

    def commit(self, data: bytes) -> None:
        repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        for line in data.splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "header":
                self.hub.commits.append(value["summary"])
            elif part["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.objects[value["oid"]]
        self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": f"{self.hub.address}/{repo}/commit/{'1' * 40}"})


@contextmanager
def serving(token: str = "hf_secret") -> Iterator[Hub]:
    hub = Hub(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = hub  # type: ignore[attr-defined]
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
