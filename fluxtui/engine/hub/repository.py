"""A repository of the hub: what it has, whether we may, whether there is room; and all of it, in the layout of its cache."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock as Mutex
from typing import Any

from fluxtui.engine.hub import refusals
from fluxtui.engine.hub.transfer import HubFile, fetch, partial
from fluxtui.engine.trainer.exit_reason import first_line
from fluxtui.engine.trainer.refusal import NoRoomError
from fluxtui.engine.trainer.room import words
from fluxtui.persist.errors import StorageError
from fluxtui.persist.files.durable import make_folder, temporary_name, write_file
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.models.search import snapshots

_AT_ONCE = 4  # files fetched at the same time
_TELL_SECONDS = 0.25  # between two lines of progress
_WAIT_SECONDS = 1.0  # between two looks at a download that another process does
_SPARE = 256 << 20  # bytes that stay free
_COMMIT = re.compile(r"[0-9a-f]{40}")
TELLING = ("model_index.json", "transformer/config.json", "config.json")
_TELLING_BYTES = 1 << 20  # no configuration is larger
_LAST = "model_index.json"  # linked last: who sees it sees a whole pipeline

Judge = Callable[[Mapping[str, bytes]], None]  # given the contents of `TELLING`, as far as the repository has them
Tell = Callable[[int, int], None]  # (bytes here, bytes in all); asked a few times a second, also where nothing moved


@dataclass(frozen=True, slots=True)
class Listing:
    """What the hub says of a repository at one commit."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def only(self, wanted: Sequence[str]) -> Listing:
        """The files that match."""
        return replace(self, files=tuple(file for file in self.files if _is_wanted(file.name, wanted)))


def endpoint() -> str:
    """The hub: `HF_ENDPOINT`, where a mirror is used."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def cache_folder(cache: Path, repository: str) -> Path:
    return cache / f"models--{repository.replace('/', '--')}"


def here(cache: Path, repository: str, revision: str) -> Path | None:
    """The snapshot of a commit, branch or tag in a hub's cache; whether it is whole is for the caller to say."""
    folder = cache_folder(cache, repository)
    if not _COMMIT.fullmatch(revision):
        try:
            revision = (folder / "refs" / (revision or "main")).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
    return next((path for path in snapshots(cache, repository) if path.name == revision), None)


def ask(repository: str, revision: str, wanted: Sequence[str]) -> Listing:
    """The commit, and the files that match, with sizes and hashes. Access is asked for too: nothing is fetched without it.

    Raises `DownloadError` or a subclass.
    """
    from huggingface_hub import HfApi, errors, get_token

    api, token = HfApi(endpoint=endpoint()), get_token()
    try:
        info = api.model_info(repository, revision=revision or None, files_metadata=True, timeout=20.0)
        if info.gated:
            try:
                api.auth_check(repository)
            except (errors.GatedRepoError, errors.RepositoryNotFoundError):
                raise refusals.gated(repository, _licence(info), bool(token), endpoint()) from None
    except errors.GatedRepoError:
        raise refusals.gated(repository, "", bool(token), endpoint()) from None
    except errors.RepositoryNotFoundError as error:
        raise (refusals.bad_token() if _is_bad_token(error) else refusals.unknown(repository, bool(token))) from None
    except errors.RevisionNotFoundError:
        raise refusals.DownloadError(
            f"{repository} has no revision {revision}", "set model.revision to a commit, tag or branch of it"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            raise refusals.bad_token() from None
        if status == 403:
            raise refusals.no_access(repository, status, "") from None
        raise refusals.CutError(f"the hub did not say what {repository} holds: {first_line(error)}") from error
    except (errors.HTTPError, OSError) as error:  # of whichever client the hub's library uses
        raise refusals.CutError(f"the hub cannot be reached: {first_line(error)}") from error
    files = [_file(repository, sibling) for sibling in info.siblings or () if _is_wanted(sibling.rfilename, wanted)]
    return Listing(repository, str(info.sha), tuple(files))


def bring(listing: Listing, cache: Path, tell: Tell, revision: str = "", judge: Judge | None = None) -> Path:
    """All files of the listing in the cache; the snapshot's folder. One process fetches, others watch it.

    `judge` sees the small files that tell what the model is before any other is fetched; what it raises ends it.
    Raises `NoRoomError` before anything is fetched, `CutError`, `BrokenFileError`, `DownloadError`, `StorageError`.
    """
    folder = cache_folder(cache, listing.repository)
    make_folder(folder.parent)
    make_folder(folder)
    write_guard = folder / ".fluxtui-lock"
    while (lock := Lock.take(write_guard)) is None:
        tell(_present(listing, folder), listing.size)
        time.sleep(_WAIT_SECONDS)
    try:
        _demand_room(listing, folder)
        if judge is not None:
            judge(_telling(listing, folder, tell))
        _fetch_all(listing, folder, tell)
        return _link(listing, folder, revision)
    finally:
        lock.release()


def _telling(listing: Listing, folder: Path, tell: Tell) -> dict[str, bytes]:
    """Contents of what tells the model's kind. They are among the blobs then, in no snapshot yet."""
    small = tuple(file for file in listing.files if file.name in TELLING and file.size <= _TELLING_BYTES)
    _fetch_all(replace(listing, files=small), folder, lambda *_: tell(_present(listing, folder), listing.size))
    return {file.name: (folder / "blobs" / file.blob).read_bytes() for file in small}


def _fetch_all(listing: Listing, folder: Path, tell: Tell) -> None:
    from huggingface_hub import get_token, hf_hub_url

    missing = [file for file in listing.files if not (folder / "blobs" / file.blob).is_file()]
    count = _Count(tell, listing.size, listing.size - sum(file.size for file in missing))
    token = get_token()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
        running: list[Future[None]] = [
            pool.submit(
                fetch, file, hf_hub_url(listing.repository, file.name, revision=listing.commit, endpoint=endpoint()), token,
                folder / "blobs" / file.blob, count.add,
            )
            for file in sorted(missing, key=lambda file: -file.size)
        ]  # fmt: skip
        try:
            while wait(running, _TELL_SECONDS, FIRST_EXCEPTION).not_done and _failed(running) is None:
                count.tell()
        except BaseException:  # a stop was asked for
            count.stop()
            raise
        finally:
            if _failed(running) is not None:
                count.stop()
            for future in running:
                future.cancel()
    if (error := _failed(running)) is not None:
        raise error
    count.tell()


def _failed(running: list[Future[None]]) -> BaseException | None:
    done = (future.exception() for future in running if future.done() and not future.cancelled())
    found = [error for error in done if error is not None and not isinstance(error, _StoppedError)]
    return found[0] if found else None


class _StoppedError(Exception):
    """Another file failed: this one's thread leaves, its bytes stay."""


class _Count:
    """Bytes that are here, added to by several threads."""

    def __init__(self, tell: Tell, total: int, here: int) -> None:
        self._tell, self._total, self._here = tell, total, here
        self._mutex, self._is_stopped = Mutex(), False

    def add(self, gained: int) -> None:
        if self._is_stopped:
            raise _StoppedError
        with self._mutex:
            self._here += gained

    def stop(self) -> None:
        """The threads leave at their next chunk; what they have stays on the disk."""
        self._is_stopped = True

    def tell(self) -> None:
        self._tell(self._here, self._total)


def _demand_room(listing: Listing, folder: Path) -> None:
    needed = listing.size - _present(listing, folder)
    free = shutil.disk_usage(folder).free
    if needed and needed + _SPARE > free:
        raise NoRoomError(
            f"{listing.repository} needs {words(needed)} more at {folder.parent}, and {words(free)} are free",
            "make room, or point FLUXTUI_HOME at a larger disk, then fluxtui resume {name}",
        )


def _present(listing: Listing, folder: Path) -> int:
    """Bytes of the listing that are on the disk, whole files and partial ones."""
    found = 0
    for file in listing.files:
        blob = folder / "blobs" / file.blob
        for path in (blob, partial(blob)):
            try:
                found += min(path.stat().st_size, file.size)
                break
            except OSError:
                continue
    return found


def _link(listing: Listing, folder: Path, revision: str) -> Path:
    """The snapshot: links to the blobs, the index last; then the name that the commit was asked for under."""
    snapshot = folder / "snapshots" / listing.commit
    make_folder(folder / "snapshots")
    make_folder(snapshot)
    try:
        for file in sorted(listing.files, key=lambda file: file.name == _LAST):
            place = snapshot / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                link = place.with_name(temporary_name())
                os.symlink(os.path.relpath(folder / "blobs" / file.blob, place.parent), link)
                os.replace(link, place)
    except OSError as error:
        raise StorageError.of(error, "link", snapshot) from error
    if not _COMMIT.fullmatch(revision):
        name = folder / "refs" / (revision or "main")
        name.parent.mkdir(parents=True, exist_ok=True)
        write_file(name, listing.commit.encode())
    return snapshot


def _file(repository: str, sibling: Any) -> HubFile:  # noqa: ANN401  (huggingface_hub's RepoSibling)
    name, size = str(sibling.rfilename), sibling.size
    sha256 = str(sibling.lfs.sha256) if sibling.lfs is not None else ""
    sha1 = str(sibling.blob_id or "")
    is_name = not name.startswith("/") and ".." not in name.split("/") and not re.search(r"[\x00-\x1f\\]", name)
    is_hash = re.fullmatch(r"[0-9a-f]{64}", sha256) or (not sha256 and _COMMIT.fullmatch(sha1))
    if not is_name or not is_hash or not isinstance(size, int) or size < 0:
        raise refusals.DownloadError(f"the hub describes {repository} in a way that cannot be followed ({name[:100]!a})")
    return HubFile(name, size, sha256, sha1)


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)


def _licence(info: Any) -> str:  # noqa: ANN401  (huggingface_hub's ModelInfo)
    card = info.card_data
    return str(card.get("license_name") or card.get("license") or "") if card is not None else ""


def _is_bad_token(error: Any) -> bool:  # noqa: ANN401  (huggingface_hub's HfHubHTTPError)
    return bool(error.response is not None and "Invalid credentials" in (error.response.headers.get("X-Error-Message") or ""))
