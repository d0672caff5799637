"""The fingerprint of a data set, `dataset.toml`: what every attempt after the first is held against. No torch.

A file whose size and modification time are as they were is taken for unchanged; only what differs is hashed again.
(The caches are keyed by the hash of the bytes that are read, so a change hidden from both is found where it matters.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from fluxtui.engine.trainer.data.image import decode, read_regular, unreadable
from fluxtui.engine.trainer.refusal import ChangedDataError
from fluxtui.persist.datasets.facts import FileFact, Fingerprint, clause, relative_name, said_of
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.text import clean

Progress = Callable[[int, int], None]


def take(
    folder: Path, images: Iterable[Path], others: Iterable[Path], known: Fingerprint | None, progress: Progress
) -> Fingerprint:
    """Facts of every file, sorted by path; images not already in `known` are decoded whole, by a few threads.

    Raises DataError, naming the file, for the first (by path) that cannot be used. `progress` gets (done, of).
    """
    before = {fact.path: fact for fact in known.files} if known else {}
    tasks = sorted({(path, True) for path in images} | {(path, False) for path in others})
    facts = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda task: _fact(folder, task[0], task[1], before), tasks)
        try:
            for done, fact in enumerate(found, start=1):
                facts.append(fact)
                progress(done, len(tasks))
        except FluxTUIError:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Fingerprint(folder=str(folder), files=facts)


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What changed in content, one short clause a file, sorted by path."""
    old, new = _hashes(before), _hashes(now)
    return [
        clause(path, path in old, path in new)
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def hold_against(before: Fingerprint, now: Fingerprint, session: str) -> None:
    """Raises ChangedDataError, naming files, where the content differs."""
    changed = differences(before, now)
    if not changed:
        return
    raise ChangedDataError(
        said_of(changed),
        f"put the files back, or go on with them as they are by fluxtui resume {session} --accept-changes",
    )


def _hashes(fingerprint: Fingerprint) -> Mapping[str, str]:
    return {fact.path: fact.sha256 for fact in fingerprint.files}


def _fact(folder: Path, path: Path, is_image: bool, before: Mapping[str, FileFact]) -> FileFact:
    name = relative_name(folder, path)
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(name, error) from error
    old = before.get(name)
    if old and (old.size, old.mtime_ns) == (status.st_size, status.st_mtime_ns) and (old.width > 0) == is_image:
        return old
    data = read_regular(path)
    width, height = decode(data, clean(name)).size if is_image else (0, 0)
    return FileFact(name, len(data), status.st_mtime_ns, sha256(data).hexdigest(), width, height)
