"""One file from the hub: into a partial file that outlives this process, gone on with after a cut, checked by size and hash."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from fluxtui import __version__
from fluxtui.engine.hub.refusals import BrokenFileError, CutError, no_access
from fluxtui.persist.errors import StorageError
from fluxtui.persist.files.durable import fsync_folder, make_folder
from fluxtui.persist.files.regular import open_for_writing

CHUNK = 1 << 20  # bytes taken at once, at the most
SILENCE = 30.0  # seconds without a byte before a connection is given up
TRIES = 6  # connections in a row without one new byte
FIRST_PAUSE = 1.0  # seconds before the second try; doubles, 16 at most
LONGEST_WAIT = 240.0  # seconds that the hub may ask for between two tries: less than guard.download waits for a byte
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

OnBytes = Callable[[int], None]  # (bytes gained; less than 0 where some were thrown away)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub describes it."""

    name: str  # path in the repository
    size: int  # bytes
    sha256: str  # of large files; "" where the hub tells git's hash only
    git_sha1: str  # git's hash of a small file's content with its header

    @property
    def blob(self) -> str:
        """Its name among the blobs of a cache: the hub's etag."""
        return self.sha256 or self.git_sha1

    def new_digest(self) -> Any:  # noqa: ANN401  (hashlib's objects share no public type)
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)


def partial(blob: Path) -> Path:
    """Where a file's bytes gather until they are whole."""
    return blob.with_name(blob.name + ".part")


def fetch(file: HubFile, url: str, token: str | None, blob: Path, on_bytes: OnBytes) -> None:
    """The whole, checked file at `blob`; bytes that are there already are hashed, not fetched again.

    Raises `CutError` (tried again by the keeper), `BrokenFileError` (its bytes are removed), `NoAccessError`, `StorageError`.
    """
    make_folder(blob.parent)
    path = partial(blob)
    try:
        with os.fdopen(open_for_writing(path, os.O_RDWR), "r+b", buffering=0) as out:
            digest = _take_over(file, out, on_bytes)
            _fill(file, url, token, out, digest, on_bytes)
            if digest.hexdigest() != file.blob:
                raise BrokenFileError(file.name, f"its hash is {digest.hexdigest()[:16]}…, the hub's {file.blob[:16]}…")
            os.fsync(out.fileno())
        os.replace(path, blob)
        fsync_folder(blob.parent)
    except BrokenFileError:
        path.unlink(missing_ok=True)
        on_bytes(-file.size)
        raise
    except OSError as error:
        raise StorageError.of(error, "write", path) from error


def _take_over(file: HubFile, out: IO[bytes], on_bytes: OnBytes) -> Any:  # noqa: ANN401
    """The digest of what an earlier process left; nothing is left of a partial file longer than the whole."""
    digest = file.new_digest()
    if os.fstat(out.fileno()).st_size > file.size:
        out.truncate(0)
    while block := out.read(1 << 20):
        digest.update(block)
        on_bytes(len(block))
    return digest


def _fill(file: HubFile, url: str, token: str | None, out: IO[bytes], digest: Any, on_bytes: OnBytes) -> None:  # noqa: ANN401
    """Bytes from where the partial file ends to the file's end, over as many connections as it takes."""
    tries, pause, why, asked = 0, FIRST_PAUSE, "", 0.0
    while (position := out.tell()) < file.size:
        if tries >= TRIES:
            raise CutError(f"{file.name} could not be fetched: {why}")
        if tries:
            _wait(max(min(pause, 16.0), asked), on_bytes)
            pause, asked = pause * 2, 0.0
        try:
            with contextlib.closing(_ask(url, token, position)) as answer:
                _take(file, answer, position, out, digest, on_bytes)
        except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError, urllib.error.URLError) as error:
            why, asked = _words(error, file), _asked_to_wait(error)
        if out.tell() > position:
            tries, pause = 1, FIRST_PAUSE  # it moves: as patient as at the start
        else:
            tries += 1
            why = why or "the hub sent nothing"


def _wait(seconds: float, on_bytes: OnBytes) -> None:
    """Between two tries; a stop, which `on_bytes` raises, is heard within a second."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        on_bytes(0)
        time.sleep(min(left, 1.0))


def _asked_to_wait(error: Exception) -> float:
    """Seconds that a hub which gives no more for now wants to be left alone (`Retry-After`, seconds or a date); 0: not said."""
    said = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    try:
        seconds = float(said) if said.strip().isdecimal() else parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _words(error: Exception, file: HubFile) -> str:
    """Why a connection ended; raises where another one would end the same way."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code not in _TRANSIENT:
            raise no_access(file.name, error.code, error.headers.get("X-Error-Code", "")) from None
        return f"the hub answered {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)[:200]
    return (str(error) or type(error).__name__)[:200]


def _ask(url: str, token: str | None, position: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"fluxtui/{__version__}", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if position:
        headers["Range"] = f"bytes={position}-"
    answer: http.client.HTTPResponse = _opener().open(urllib.request.Request(url, headers=headers), timeout=SILENCE)
    return answer


def _take(
    file: HubFile,
    answer: http.client.HTTPResponse,
    position: int,
    out: IO[bytes],
    digest: Any,  # noqa: ANN401
    on_bytes: OnBytes,
) -> None:
    """What this connection gives, onto the disk and into the digest."""
    # a server that took no notice of the range sends the first bytes again
    if position and answer.status != 206 and _discard(answer, position) < position:
        return
    while (room := file.size - out.tell()) > 0 and (block := _read(answer, min(CHUNK, room))):
        out.write(block)
        digest.update(block)
        on_bytes(len(block))


def _discard(answer: http.client.HTTPResponse, count: int) -> int:
    gone = 0
    while gone < count and (block := _read(answer, min(CHUNK, count - gone))):
        gone += len(block)
    return gone


def _read(answer: http.client.HTTPResponse, count: int) -> bytes:
    try:
        return answer.read1(count)  # what is there: a slow line is progress, and a cut loses nothing that came
    except OSError as error:  # the network's, told apart from the disk's
        raise ConnectionError(str(error)) from error


class _KeepTheToken(urllib.request.HTTPRedirectHandler):
    """The token is for the hub alone: large files are redirected to another host, which must not see it."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if new is not None and urlsplit(req.full_url).netloc != urlsplit(newurl).netloc:
            new.remove_header("Authorization")
        return new


def _opener() -> urllib.request.OpenerDirector:
    import certifi

    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
    return urllib.request.build_opener(_KeepTheToken(), urllib.request.HTTPSHandler(context=context))
