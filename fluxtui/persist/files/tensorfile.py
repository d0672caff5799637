"""The safetensors format on bytes: a header that may be hostile, a stable writer, a hash of the tensors. No torch, no numpy.

The format (https://huggingface.co/docs/safetensors): eight bytes, the little-endian length of the header; the header, a
JSON object of name -> dtype, shape, data_offsets, padded with spaces; the data, without holes or overlaps. Several
metadata keys are written by the library in random order; here everything is sorted, so the same tensors are the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fluxtui.persist.errors import DamagedError, StorageError
from fluxtui.persist.files.durable import Buffer
from fluxtui.persist.files.regular import blocks, open_regular, read_at

HEADER_LIMIT = 8 << 20   # bytes; the header of all of FLUX.1 in one file has under 1 MiB
_DIMENSIONS_LIMIT = 32
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its dtype in the format's words ("F32", "BF16"), its shape, and its bytes counted from the data's start."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds. `data_offset` is the position of the data in the file, in bytes."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_offset: int


def read_header(path: Path, *, follow_links: bool = False) -> Header:
    """The checked header of a safetensors file. Never blocks, reads at most `HEADER_LIMIT` bytes, executes nothing.

    Raises DamagedError with one sentence for anything that the format forbids, FileNotFoundError, StorageError.
    """
    with _opened(path, follow_links) as descriptor:
        return _header_of(path, descriptor)


def read_whole(path: Path, limit: int) -> tuple[Header, memoryview]:
    """The checked header and the data after it, of one and the same file even where it is replaced meanwhile.

    At most `limit` bytes. Raises as `read_header` does.
    """
    with _opened(path) as descriptor:
        header = _header_of(path, descriptor)
        if os.fstat(descriptor).st_size > limit:
            _refuse(path, f"it is larger than {limit} bytes")
        data = bytearray(os.fstat(descriptor).st_size - header.data_offset)
        done = 0
        for block in blocks(descriptor, header.data_offset, header.data_offset + len(data)):
            data[done : done + len(block)] = block
            done += len(block)
    if done < len(data):
        _refuse(path, "it was cut short while it was read")
    return header, memoryview(data)


def tensors_sha256(path: Path) -> str:
    """SHA-256 over the bytes of all tensors in the order of their sorted names. Raises as `read_header` does."""
    digest = hashlib.sha256()
    with _opened(path) as descriptor:
        header = _header_of(path, descriptor)
        for name in sorted(header.tensors):
            info = header.tensors[name]
            for block in blocks(descriptor, header.data_offset + info.start, header.data_offset + info.end):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path, follow_links: bool = False) -> Iterator[int]:
    """A descriptor of a regular file; what fails to be read inside is a `StorageError`, a missing file FileNotFoundError."""
    try:
        descriptor = open_regular(path, follow_links=follow_links)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError.of(error, "read", path) from error


def serialize(
    tensors: Mapping[str, tuple[str, tuple[int, ...], Buffer]], metadata: Mapping[str, str] | None = None
) -> Iterator[Buffer]:
    """The bytes of a safetensors file, piece by piece and without copying: name -> (dtype, shape, C-contiguous bytes).

    The same tensors and metadata give the same bytes, whatever their order. Tensors lie by falling size of their dtype, so
    that each is aligned, then by name. Raises ValueError where a buffer has not the size its dtype and shape ask for.
    """
    order = sorted(tensors, key=lambda name: (-_BITS[tensors[name][0]], name))
    entries: dict[str, object] = {}
    views: list[memoryview] = []
    position = 0
    for name in order:
        dtype, shape, buffer = tensors[name]
        view = memoryview(buffer).cast("B")
        if not name or name == "__metadata__" or len(view) * 8 != _bits_of(dtype, shape):
            raise ValueError(f"tensor {name!r}: {len(view)} bytes are not {dtype} {tuple(shape)}")
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(view)]}
        position += len(view)
        views.append(view)
    if metadata:
        entries["__metadata__"] = dict(metadata)
    header = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_LIMIT:
        raise ValueError(f"a header of {len(header)} bytes is over the limit of {HEADER_LIMIT}")
    return iter([len(header).to_bytes(8, "little") + header, *views])


def _bits_of(dtype: str, shape: tuple[int, ...]) -> int:
    bits = _BITS[dtype]
    for size in shape:
        bits *= size
    return bits


def _header_of(path: Path, descriptor: int) -> Header:
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(read_at(descriptor, 8, 0), "little")
    if size < 8 or not 2 <= length <= size - 8:
        _refuse(path, f"its header would be {length} bytes long in a file of {size}")
    if length > HEADER_LIMIT:
        _refuse(path, f"its header of {length} bytes is over the limit of {HEADER_LIMIT}")
    raw = read_at(descriptor, length, 8)
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"its header cannot be read ({ascii(str(error)[:100])[1:-1] or 'too deeply nested'})")
    if not raw.startswith(b"{") or not isinstance(found, dict):
        _refuse(path, "its header is not an object")
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, "its metadata are not texts")
    tensors = {name: _tensor(path, name, entry) for name, entry in found.items()}
    _check_layout(path, tensors, size - 8 - length)
    return Header(tensors, metadata, 8 + length)


def _tensor(path: Path, name: str, entry: object) -> TensorInfo:
    if not name or not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"the entry of tensor {name[:80]!a} is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        _refuse(path, f"tensor {name[:80]!a} has the unknown dtype {ascii(dtype)[:40]}")
    if not _are_sizes(shape) or len(shape) > _DIMENSIONS_LIMIT:
        _refuse(path, f"the shape of tensor {name[:80]!a} is not a list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse(path, f"the data_offsets of tensor {name[:80]!a} are not a beginning and an end")
    if _bits_of(dtype, tuple(shape)) != (offsets[1] - offsets[0]) * 8:
        _refuse(path, f"tensor {name[:80]!a} has {offsets[1] - offsets[0]} bytes, which its dtype and shape do not make")
    return TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(values: object) -> bool:
    # bool is an int to Python, not to the format; 2**63 bounds the products
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_layout(path: Path, tensors: dict[str, TensorInfo], data_size: int) -> None:
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            _refuse(path, f"tensor {name[:80]!a} begins at {info.start}, but the one before it ends at {position}")
        position = info.end
    if position != data_size:
        _refuse(path, f"its tensors end at {position}, its data at {data_size}")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _refuse(path: Path, why: str) -> NoReturn:
    raise DamagedError(f"{path} is not a sound safetensors file: {why}; download it again")
