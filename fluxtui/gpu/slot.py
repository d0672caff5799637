"""The memory file between the child and its parent: always the newest reading, never a queue of old ones.

A pipe would fill while nobody looks, and then give stale figures first; here the child overwrites and the parent looks
whenever it likes. A reading that is being written meanwhile fails its checksum, and the one before counts.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from fluxtui.gpu.readings import Gpus
from fluxtui.persist.files.struct_init import init_struct

SIZE = 1 << 20  # bytes; some 500 GPUs
NO_DRIVER = 3   # exit code of the child where there is nothing to watch
_HEAD = struct.Struct("<II")


def pack(readings: Gpus) -> bytes:
    """Length, CRC-32 and JSON, at most `SIZE` bytes."""
    body = msgspec.json.encode(readings)
    if len(body) > SIZE - _HEAD.size:
        body = msgspec.json.encode(Gpus(why=f"{len(readings.devices)} GPUs are more than can be shown", at=readings.at))
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def unpack(data: bytes) -> Gpus | None:
    """The reading; None where there is none yet, or half a one."""
    if len(data) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack_from(data)
    body = data[_HEAD.size : _HEAD.size + length]
    if len(body) != length or zlib.crc32(body) != checksum:
        return None
    init_struct(Gpus)
    try:
        return msgspec.json.decode(body, type=Gpus)
    except msgspec.DecodeError:
        return None
