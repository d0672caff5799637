"""Content-keyed caches of latents and text embeddings. No torch.

An entry is a safetensors file whose metadata hold its key and the hash of its data: a torn, changed or misplaced one is
found when it is read, and made again by whoever can. See `persist.cache_folder` for where entries lie and how they go.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from fluxtui.engine.trainer.data.reading import Readers
from fluxtui.persist import cache_folder
from fluxtui.persist.errors import DamagedError, StorageError
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.files.tensorfile import read_header, read_whole, serialize

Kind = Literal["latents", "text", "masks"]
ENTRY_LIMIT = 1 << 30       # bytes
_METADATA = "fluxtui"
_WINDOW = 8                 # entries read ahead

Buffer = bytes | bytearray | memoryview
Tensor = tuple[str, tuple[int, ...], Buffer]        # dtype in the words of safetensors, shape, bytes
Entry = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class EntryKey:
    """What an entry is found by: the kind of the cache and a hash of everything that its tensors depend on."""

    kind: Kind
    key: str


def key_of(kind: Kind, **identity: object) -> EntryKey:
    """The key of an entry; `identity` names all that its content depends on, as JSON can hold it."""
    text = json.dumps({"kind": kind, **identity}, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return EntryKey(kind, sha256(text.encode()).hexdigest())


class Cache:
    """The caches of a home."""

    def __init__(self, folder: Path, readers: Readers, limit: int = cache_folder.LIMIT) -> None:
        self.folder = folder
        self._readers = readers
        self._limit = limit         # bytes

    def lease(self, keys: Iterable[EntryKey]) -> Lock:
        """Keeps these entries from eviction as long as the lock is held; to be taken before looking what is there."""
        return cache_folder.lease(self.folder, (entry.key for entry in keys))

    def load(self, entry: EntryKey) -> dict[str, Tensor] | None:
        """The entry's tensors, every byte verified; None where it is not there.

        Raises DamagedError for one that cannot be used, HungReadError, StorageError.
        """
        path = self._path(entry)
        return self._readers.call(f"the cache file {path}", lambda: read_entry(path, entry))

    def load_all(self, entries: Iterable[EntryKey]) -> Iterator[dict[str, Tensor] | DamagedError | None]:
        """As `load`, of many entries in their order and some read ahead; a damaged one comes as its error."""
        return self._readers.ahead(((f"the cache file {self._path(entry)}", self._reading(entry)) for entry in entries), _WINDOW)

    def is_whole(self, entry: EntryKey) -> bool:
        """Whether the entry is there with all its bytes, going by its header and size alone."""
        try:
            return bool(read_header(self._path(entry)).tensors)
        except (FileNotFoundError, DamagedError):
            return False

    def save(self, entry: EntryKey, tensors: Entry) -> None:
        """Writes the entry whole, in place of any that is there. Raises StorageError."""
        digest = sha256()
        pieces = list(serialize(tensors))
        for piece in pieces[1:]:
            digest.update(piece)
        said = json.dumps({"key": entry.key, "kind": entry.kind, "data_sha256": digest.hexdigest()}, sort_keys=True)
        cache_folder.write_entry(self._path(entry), serialize(tensors, {_METADATA: said}))

    def touch(self, entry: EntryKey) -> None:
        """Marks the entry as used now."""
        with contextlib.suppress(OSError):      # gone, or of another user: then only its age is wrong
            os.utime(self._path(entry))

    def discard(self, entry: EntryKey) -> None:
        """Removes an entry that cannot be used."""
        try:
            self._path(entry).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError.of(error, "remove", self._path(entry)) from error

    def prune(self) -> cache_folder.Usage:
        """Evicts what is unused for longest, down to the bound; tells what was removed."""
        return cache_folder.prune(self.folder, self._limit)

    def _reading(self, entry: EntryKey) -> Callable[[], dict[str, Tensor] | DamagedError | None]:
        def read() -> dict[str, Tensor] | DamagedError | None:
            try:
                return read_entry(self._path(entry), entry)
            except DamagedError as error:
                return error

        return read

    def _path(self, entry: EntryKey) -> Path:
        return cache_folder.entry_path(self.folder, entry.kind, entry.key)


def read_entry(path: Path, entry: EntryKey) -> dict[str, Tensor] | None:
    """An entry's tensors, verified against its metadata; None where there is no file. Raises DamagedError, StorageError."""
    try:
        header, data = read_whole(path, ENTRY_LIMIT)
    except FileNotFoundError:
        return None
    try:
        said = json.loads(header.metadata.get(_METADATA, ""))
    except ValueError:
        said = None
    if said != {"key": entry.key, "kind": entry.kind, "data_sha256": sha256(data).hexdigest()}:
        raise DamagedError(f"the cache file {path} is damaged or not what its name says")
    return {name: (info.dtype, info.shape, data[info.start : info.end]) for name, info in header.tensors.items()}
