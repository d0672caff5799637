"""Checkpoints that are there whole or not at all, on bytes.

A commit: temporary folder beside the others, files, fsync each, MANIFEST last, fsync of the folder, rename, fsync of the
parent. Whatever kills it, a name `step-000000480` means all of its bytes, and MANIFEST says how to know: sizes and SHA-256
of every file, and the SHA-256 of itself on its last line. What does not verify is set aside as `.corrupt-…`, not deleted.

Whoever commits, retains or sets aside must hold the lock of the folder (`SessionFolder.checkpoints_lock`): only then are the
temporary folders found there those of the dead.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fluxtui.persist.checkpoints.manifest import (
    FILE_NAME,
    MANIFEST,
    FileEntry,
    Manifest,
    UnreadableError,
    encode,
    verify_checkpoint,
)
from fluxtui.persist.errors import DamagedError, NotFoundError, StorageError
from fluxtui.persist.files.durable import Buffer, create_file, fsync_folder, make_folder, make_own_folder, remove_tree

__all__ = [
    "MANIFEST", "FileEntry", "Manifest", "UnreadableError", "aside", "bytes_of", "commit_checkpoint", "committed", "held_bytes",
    "is_step_name", "newest_verified", "remove_checkpoint", "retain", "set_aside", "step_name", "step_of", "sweep",
    "verify_checkpoint",
]  # fmt: skip

_STEP = re.compile(r"step-([0-9]{9})")
_TEMPORARY = ".tmp-"
_CORRUPT = ".corrupt-"


def step_name(step: int) -> str:
    """step-000000480. `step` counts optimizer steps, 0 to 999,999,999."""
    if not 0 <= step < 10**9:
        raise ValueError(f"{step} is not a step")
    return f"step-{step:09d}"


def is_step_name(name: str) -> bool:
    """Whether a text names a checkpoint: one in a record may be anything."""
    return _STEP.fullmatch(name) is not None


def step_of(name: str) -> int:
    """480 of step-000000480; NotFoundError for anything else."""
    match = _STEP.fullmatch(name)
    if match is None:
        raise NotFoundError(f"{name[:80]!a} is not the name of a checkpoint; they are called like {step_name(480)}")
    return int(match[1])


def commit_checkpoint(
    parent: Path,
    name: str,
    files: Mapping[str, Buffer | Iterable[Buffer]],
    facts: Mapping[str, str | int],
    on_damaged: Callable[[str, str], None] | None = None,
) -> Path:
    """Write a checkpoint durably; its path. One of that name that verifies stays as it is, and nothing is written.

    A damaged one of that name, or another session's (its fact `session_id`), is set aside first, and `on_damaged(name,
    sentence)` told. Buffers are hashed on the way, not copied. Raises StorageError, and then the temporary folder is gone, as
    far as the disk lets it go.
    """
    step_of(name)
    if MANIFEST in files or not all(FILE_NAME.fullmatch(file) for file in files):
        raise ValueError(f"not names of files of a checkpoint: {sorted(files)}")
    if not all(type(value) is str or (type(value) is int and abs(value) < 2**63) for value in facts.values()):
        raise ValueError(f"facts are texts and whole numbers: {dict(facts)}")
    if make_own_folder(parent):
        fsync_folder(parent.parent)
    sweep(parent)
    final = parent / name
    if os.path.lexists(final):
        try:
            if not _is_of(verify_checkpoint(final), session := str(facts.get("session_id", ""))):
                raise DamagedError(f"{final} is that of another session than {session}")
        except DamagedError as error:
            set_aside(parent, name)
            if on_damaged is not None:
                on_damaged(name, str(error))
        else:
            fsync_folder(parent)  # whoever renamed it may have died before this
            return final
    temporary = parent / f"{_TEMPORARY}{name}-{secrets.token_hex(8)}"
    try:
        _write(temporary, name, files, facts)
        os.rename(temporary, final)
    except OSError as error:
        _remove_quietly(temporary)
        raise StorageError.of(error, "write the checkpoint", final) from error
    except BaseException:
        _remove_quietly(temporary)
        raise
    fsync_folder(parent)
    return final


def _write(folder: Path, name: str, files: Mapping[str, Buffer | Iterable[Buffer]], facts: Mapping[str, str | int]) -> None:
    make_folder(folder, may_exist=False)
    entries = {}
    for file, data in files.items():
        digest, size = hashlib.sha256(), 0

        def seen(block: memoryview, digest: hashlib._Hash = digest) -> None:
            nonlocal size
            digest.update(block)
            size += len(block)

        create_file(folder / file, data, seen=seen)
        entries[file] = FileEntry(size, digest.hexdigest())
    create_file(folder / MANIFEST, encode(Manifest(name=name, files=entries, facts=dict(facts))))
    fsync_folder(folder)


def committed(parent: Path) -> list[str]:
    """Names of the checkpoints there, ascending, not verified. Raises StorageError."""
    return sorted(filter(is_step_name, _names(parent)))


def held_bytes(parent: Path) -> int:
    """Bytes of all checkpoints there; what is set aside is not of them: no retention makes room of that."""
    with contextlib.suppress(StorageError):
        return sum(bytes_of(parent / name) for name in committed(parent))
    return 0


def bytes_of(checkpoint: Path) -> int:
    """Bytes of its files, whatever lies there in their place: links are not followed, what cannot be looked at counts 0."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(checkpoint) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def newest_verified(
    parent: Path, on_damaged: Callable[[str, str], None], verify: Callable[[Path], object] = verify_checkpoint
) -> str | None:
    """The newest checkpoint whose every byte verifies, or that `verify` takes for sound; None where there never was one.

    Bad newer ones are set aside, and `on_damaged(name, sentence)` told. Some there, or set aside earlier, and none good:
    DamagedError, since starting from nothing is not for a program to decide. Where the disk cannot read them: StorageError,
    and nothing is touched.
    """
    bad: list[tuple[str, DamagedError]] = []
    good = None
    for name in reversed(committed(parent)):
        try:
            verify(parent / name)
            good = name
            break
        except DamagedError as error:
            bad.append((name, error))
    unreadable = [error for _, error in bad if isinstance(error, UnreadableError)]
    if good is None and unreadable:
        raise StorageError(f"no checkpoint in {parent} can be used: {unreadable[0]}", errno.EIO)
    for name, damage in bad:
        set_aside(parent, name)
        on_damaged(name, str(damage))
    if good is None:
        _refuse_to_begin_anew(parent)
    return good


def aside(parent: Path) -> list[str]:
    """Names of the damaged ones that were set aside there. Raises StorageError."""
    return sorted(name for name in _names(parent) if name.startswith(_CORRUPT))


def _refuse_to_begin_anew(parent: Path) -> None:
    if corrupt := aside(parent):
        raise DamagedError(
            f"no checkpoint in {parent} is sound: {', '.join(corrupt[:3])} are damaged; "
            "put a sound copy in their place, or delete them to begin from step 0"
        )


def set_aside(parent: Path, name: str, label: str = "corrupt") -> Path:
    """Rename a checkpoint to `.LABEL-NAME-N`, durably, with the first N that is free; its new path. Raises StorageError."""
    number = 1
    while os.path.lexists(aside := parent / f".{label}-{name}-{number}"):
        number += 1
    try:
        os.rename(parent / name, aside)
    except OSError as error:
        raise StorageError.of(error, "set aside", parent / name) from error
    fsync_folder(parent)
    return aside


def retain(
    parent: Path, keep: int, on_damaged: Callable[[str, str], None] | None = None, session_id: str = ""
) -> list[str]:
    """Delete the older checkpoints, so that the newest `keep` that verify (at least two) stay; the names deleted.

    Nothing is deleted before as many newer ones verified, and nothing that does not verify itself: that is set aside.
    With a `session_id`, another session's count for none of them, and stay: somebody may have copied some in that are newer.
    Where the disk cannot read one: StorageError, and nothing is touched.
    """
    good: list[str] = []
    bad: list[tuple[str, DamagedError]] = []
    for name in reversed(committed(parent)):
        try:
            if _is_of(verify_checkpoint(parent / name), session_id):
                good.append(name)
        except UnreadableError as error:
            raise StorageError(str(error), errno.EIO) from error
        except DamagedError as error:
            bad.append((name, error))
    for name, damage in bad:
        set_aside(parent, name)
        if on_damaged is not None:
            on_damaged(name, str(damage))
    doomed = sorted(good[max(keep, 2) :])
    for name in doomed:
        remove_checkpoint(parent, name)
    return doomed


def _is_of(manifest: Manifest, session_id: str) -> bool:
    """Whether a checkpoint is that session's, as far as it and the asker say whose they are."""
    return not session_id or manifest.facts.get("session_id", session_id) == session_id


def remove_checkpoint(parent: Path, name: str) -> None:
    """Delete one checkpoint so that a kill on the way leaves no torn one to be seen. Raises NotFoundError, StorageError."""
    step_of(name)
    hidden = parent / f"{_TEMPORARY}{name}-{secrets.token_hex(8)}"
    try:
        os.rename(parent / name, hidden)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no checkpoint {name} in {parent}") from error
    except OSError as error:
        raise StorageError.of(error, "remove", parent / name) from error
    fsync_folder(parent)
    remove_tree(hidden)


def sweep(parent: Path) -> None:
    """Remove what dead writers left half done. Only under the lock of the folder. Raises StorageError."""
    for name in _names(parent):
        if name.startswith(_TEMPORARY):
            remove_tree(parent / name)


def _names(parent: Path) -> list[str]:
    try:
        return os.listdir(parent)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError.of(error, "list", parent) from error


def _remove_quietly(path: Path) -> None:
    # the error that brought us here is the one to tell; the next commit sweeps what stays
    with contextlib.suppress(StorageError):
        remove_tree(path)
