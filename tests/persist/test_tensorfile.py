"""The safetensors format: stable bytes that other readers read, and hostile headers refused in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files.tensorfile import HEADER_LIMIT, read_header, serialize, tensors_sha256

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def make(path: Path, header: object, data: bytes = bytes(8)) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def test_the_same_tensors_are_the_same_bytes_in_whatever_order(tmp_path: Path) -> None:
    a, b = ("F32", (2, 2), bytes(range(16))), ("BF16", (3,), b"abcdef")
    one = b"".join(serialize({"a": a, "b": b}, {"x": "1", "y": "ü"}))
    two = b"".join(serialize({"b": b, "a": a}, {"y": "ü", "x": "1"}))
    assert one == two
    assert struct.unpack("<Q", one[:8])[0] % 8 == 0
    (tmp_path / "f").write_bytes(one)
    header = read_header(tmp_path / "f")
    assert header.metadata == {"x": "1", "y": "ü"}
    assert header.tensors["a"].shape == (2, 2)
    assert one[header.data_offset :] == bytes(range(16)) + b"abcdef"
    assert tensors_sha256(tmp_path / "f") == hashlib.sha256(bytes(range(16)) + b"abcdef").hexdigest()


def test_the_hash_goes_by_sorted_names_not_by_the_order_in_the_file(tmp_path: Path) -> None:
    byte = {"dtype": "U8", "shape": [1]}
    first = {"b": {**byte, "data_offsets": [0, 1]}, "a": {**byte, "data_offsets": [1, 2]}}
    make(tmp_path / "f", first, b"BA")
    (tmp_path / "g").write_bytes(b"".join(serialize({"a": ("U8", (1,), b"A"), "b": ("U8", (1,), b"B")})))
    assert tensors_sha256(tmp_path / "f") == tensors_sha256(tmp_path / "g") == hashlib.sha256(b"AB").hexdigest()


def test_the_library_and_torch_read_what_we_write_and_we_what_they_write(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    tensors = {
        "z.scalar": torch.tensor(3.5),
        "a.odd": torch.arange(3, dtype=torch.uint8),
        "m.half": torch.randn(3, 5, dtype=torch.bfloat16),
        "b.double": torch.randn(2, 2, dtype=torch.float64),
        "e.empty": torch.zeros(0, 4),
        "flag": torch.tensor([True, False, True]),
        "count": torch.tensor([1, -1]),
    }
    names = {torch.float32: "F32", torch.uint8: "U8", torch.bfloat16: "BF16"}
    names |= {torch.float64: "F64", torch.bool: "BOOL", torch.int64: "I64"}
    ours = {
        name: (names[value.dtype], tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, value in tensors.items()
    }
    path = tmp_path / "ours.safetensors"
    path.write_bytes(b"".join(serialize(ours, {"format": "pt", "k": "v"})))
    back = load_file(path)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], value) and back[name].dtype == value.dtype for name, value in tensors.items())
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt", "k": "v"}
    save_file(tensors, tmp_path / "theirs.safetensors", {"k": "v"})
    theirs, own = read_header(tmp_path / "theirs.safetensors"), read_header(path)
    assert {name: (info.dtype, info.shape) for name, info in theirs.tensors.items()} == {
        name: (info.dtype, info.shape) for name, info in own.tensors.items()
    }
    assert tensors_sha256(path) == tensors_sha256(tmp_path / "theirs.safetensors")


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": ("F32", (2,), bytes(7))},
        {"": ("U8", (1,), b"x")},
        {"__metadata__": ("U8", (1,), b"x")},
        {"a" * HEADER_LIMIT: ("U8", (1,), b"x")},
    ],
)
def test_a_tensor_that_does_not_fit_is_a_defect_of_the_caller(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    with pytest.raises(ValueError, match=r"are not|over the limit"):
        serialize(tensors)


def changed(**changes: object) -> dict[str, object]:
    return {"t": {**ENTRY, **changes}}


HOSTILE: dict[str, tuple[object, bytes]] = {
    "not json": (b"garbage garbage", bytes(8)),
    "not utf-8": (b'{"\xff":1}', bytes(8)),
    "a list": ([ENTRY], bytes(8)),
    "leading space": (b" " + json.dumps({"t": ENTRY}).encode(), bytes(8)),
    "duplicate name": (f'{{"t":{json.dumps(ENTRY)},"t":{json.dumps(ENTRY)}}}'.encode(), bytes(8)),
    "duplicate key": (b'{"t":{"dtype":"U8","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "duplicate metadata": (b'{"__metadata__":{"a":"1","a":"2"}}', b""),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b""),
    "metadata a list": ({"__metadata__": ["a"]}, b""),
    "unknown dtype": (changed(dtype="F128"), bytes(8)),
    "dtype a list": (changed(dtype=["F32"]), bytes(8)),
    "negative shape": (changed(shape=[-2]), bytes(8)),
    "shape a float": (changed(shape=[2.0]), bytes(8)),
    "shape a bool": (changed(dtype="F64", shape=[True]), bytes(8)),
    "shape a text": (changed(shape="2"), bytes(8)),
    "shape too large": (changed(shape=[2**62, 2**62]), bytes(8)),
    "shape beyond 64 bits": (changed(shape=[2**64]), bytes(8)),
    "many dimensions": (changed(shape=[1] * 1000 + [2]), bytes(8)),
    "wrong size": (changed(shape=[3]), bytes(8)),
    "wrong dtype size": (changed(dtype="F64"), bytes(8)),
    "offsets reversed": (changed(data_offsets=[8, 0]), bytes(8)),
    "offsets three": (changed(data_offsets=[0, 4, 8]), bytes(8)),
    "offsets negative": (changed(data_offsets=[-8, 0]), bytes(8)),
    "outside": (changed(data_offsets=[8, 16]), bytes(8)),
    "hole before": (changed(data_offsets=[4, 12]), bytes(12)),
    "hole after": (changed(), bytes(9)),
    "truncated": (changed(), bytes(7)),
    "overlap": ({"a": ENTRY, "b": ENTRY}, bytes(8)),
    "half overlap": ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
    "hole between": ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 20]}}, bytes(20)),
    "missing key": ({"t": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "extra key": (changed(code="rm"), bytes(8)),
    "no name": ({"": ENTRY}, bytes(8)),
    "nan": (b'{"t":NaN}', bytes(8)),
    "a number of 5000 digits": (b'{"t":' + b"9" * 5000 + b"}", bytes(8)),
    "nested deeply": (b'{"t":' + b"[" * 100_000 + b"]" * 100_000 + b"}", bytes(8)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_refused_in_one_sentence(tmp_path: Path, what: str) -> None:
    header, data = HOSTILE[what]
    path = make(tmp_path / "f", header, data)
    with pytest.raises(DamagedError) as refusal:
        read_header(path)
    assert "is not a sound safetensors file: " in str(refusal.value)
    assert len(str(refusal.value)) < 500
    with pytest.raises(DamagedError):
        tensors_sha256(path)


@pytest.mark.parametrize("raw", [b"", b"1234567", bytes(8), struct.pack("<Q", 2**64 - 1) + b"{}", struct.pack("<Q", 100) + b"{}"])
def test_a_file_shorter_than_its_header_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(DamagedError):
        read_header(tmp_path / "f")


def test_no_tensors_at_all_is_a_sound_file(tmp_path: Path) -> None:
    assert read_header(make(tmp_path / "f", {}, b"")).tensors == {}


def test_a_fifo_or_a_link_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(make(tmp_path / "f", {"t": ENTRY}))
    for name in ("fifo", "link"):
        with pytest.raises(DamagedError, match="not a regular file"):
            read_header(tmp_path / name)
    assert read_header(tmp_path / "link", follow_links=True).tensors["t"].end == 8
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "missing")


MEASURE = """
import resource, sys
from pathlib import Path
from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files.tensorfile import read_header
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_header(Path(sys.argv[1]))
except DamagedError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.parametrize(
    ("header", "limit_mib"),
    [
        (b"{" + b" " * (100 << 20), 4),                                    # over the limit: never read
        (b'{"t":[' + b"{}," * ((HEADER_LIMIT - 100) // 3) + b"0]}", 400),  # the dearest JSON a byte can buy
        (b'{"__metadata__":{"a":"' + b"x" * (HEADER_LIMIT - 100) + b'","b":1}}', 60),
    ],
)  # fmt: skip
def test_memory_is_bounded_whatever_the_header(tmp_path: Path, header: bytes, limit_mib: int) -> None:
    path = make(tmp_path / "f", header)
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, timeout=60, check=True)
    grown, _, sentence = done.stdout.partition(" ")
    assert "not a sound safetensors file" in sentence
    assert int(grown) < limit_mib << 10, f"{grown} KiB"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, framed: bool) -> None:
    assume(not (framed and data.startswith(b"{") and data.rstrip().endswith(b"}")))  # "{}" is a sound header
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(struct.pack("<Q", len(data)) + data if framed else data)
    with pytest.raises(DamagedError):
        read_header(path)


KEYS = st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "t"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["F32", "U8", "dtype"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), json_values, max_size=3), st.integers(0, 32))
def test_random_json_is_sound_or_damaged(tmp_path_factory: pytest.TempPathFactory, header: dict[str, object], size: int) -> None:
    path = make(tmp_path_factory.getbasetemp() / "json", header, bytes(size))
    try:
        found = read_header(path)
    except DamagedError:
        return
    assert sum(info.end - info.start for info in found.tensors.values()) == size


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=6),
        st.tuples(st.sampled_from(["U8", "F32", "BF16", "F64"]), st.lists(st.integers(0, 3), max_size=3).map(tuple)),
        max_size=5,
    )
)
def test_whatever_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    sizes = {"U8": 1, "F32": 4, "BF16": 2, "F64": 8}
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        count = 1
        for size in shape:
            count *= size
        tensors[name] = (dtype, shape, bytes([7]) * count * sizes[dtype])
    path = tmp_path_factory.getbasetemp() / "back"
    path.write_bytes(b"".join(serialize(tensors)))
    assert {name: (info.dtype, info.shape) for name, info in read_header(path).tensors.items()} == shapes
