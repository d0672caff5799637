"""What a checkpoint holds, and how to know that it still does: its MANIFEST of sizes and hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct, field

from fluxtui.persist.errors import DamagedError, NotFoundError, StorageError
from fluxtui.persist.files.regular import blocks, open_regular, read_regular
from fluxtui.persist.files.struct_init import init_struct

MANIFEST = "MANIFEST"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LIMIT = 1 << 20  # bytes
_MEDIUM = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})  # the disk says that it lost the bytes


class FileEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a checkpoint."""

    size: int     # bytes
    sha256: str


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a checkpoint holds. `facts` are the committer's: step, recipe_sha256, counters."""

    name: str
    files: dict[str, FileEntry]
    facts: dict[str, str | int] = field(default_factory=dict)
    schema: int = 1


class UnreadableError(DamagedError):
    """The disk says that it cannot read the bytes: they may be sound, and the disk better tomorrow."""


def encode(manifest: Manifest) -> bytes:
    """Sorted JSON, and on the last line the SHA-256 of all before it."""
    body = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"
    return body + hashlib.sha256(body).hexdigest().encode() + b"\n"


def verify_checkpoint(path: Path, breathe: Callable[[], object] | None = None) -> Manifest:
    """Every byte of a checkpoint checked against its MANIFEST. `breathe` is called between its blocks, a MiB each.

    Raises DamagedError naming the file: one missing, added, torn, changed, or not a regular file (UnreadableError where the
    disk fails); NotFoundError where there is no such checkpoint; StorageError where this process cannot read it.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise DamagedError(f"{path} is not a folder")
        present = set(os.listdir(path))
        if MANIFEST not in present:
            raise DamagedError(f"{path} has no {MANIFEST}")
        manifest = _read_manifest(path)
        for file in sorted(manifest.files.keys() ^ (present - {MANIFEST})):
            raise DamagedError(f"{path / file!s:.300} is {'missing' if file in manifest.files else 'not part of the checkpoint'}")
        for file, entry in manifest.files.items():
            _verify_file(path / file, entry, breathe)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no checkpoint {path}") from error
    except OSError as error:
        if error.errno in _MEDIUM:
            raise UnreadableError(f"{error.filename or path} cannot be read: {error.strerror}; look at `dmesg`") from error
        raise StorageError.of(error, "read", path) from error
    return manifest


def _read_manifest(path: Path) -> Manifest:
    data = read_regular(path / MANIFEST, _LIMIT)
    body, last_line = data[:-65], data[-65:]
    if last_line != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise DamagedError(f"{path / MANIFEST} was changed")
    init_struct(Manifest)
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DamagedError(f"{path / MANIFEST} does not say what a checkpoint of ours says") from error
    if manifest.name != path.name or not all(FILE_NAME.fullmatch(file) for file in manifest.files):
        raise DamagedError(f"{path / MANIFEST} is that of another checkpoint, {manifest.name[:80]!a}")
    step = manifest.facts.get("step")
    if isinstance(step, int) and f"step-{step:09d}" != path.name:
        raise DamagedError(f"{path / MANIFEST} is that of step {step}, whatever the folder is called")
    return manifest


def _verify_file(path: Path, entry: FileEntry, breathe: Callable[[], object] | None) -> None:
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        if size != entry.size:
            raise DamagedError(f"{path} has {size} bytes instead of {entry.size}")
        digest = hashlib.sha256()
        for block in blocks(descriptor):
            digest.update(block)
            if breathe is not None:
                breathe()
    finally:
        os.close(descriptor)
    if digest.hexdigest() != entry.sha256:
        raise DamagedError(f"{path} was changed: its SHA-256 is not the one that was committed")
