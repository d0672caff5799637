"""TOML in and out: bounded, typed, durable; whatever lies at the path."""

from __future__ import annotations

import os
import threading
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from fluxtui.persist.errors import DamagedError, NotFoundError
from fluxtui.persist.files import toml
from fluxtui.persist.sessions.record import Record
from tests.persist.inert import is_inert


class Small(Struct):
    number: int
    text: str = ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"number = ",
        b"\x00\xff\xfe",
        b"number = 'x'",
        b"number = 1\nnumber = 2",
        b"[number]\n[number]",
        b"number = 1e400",
        b"number = [" + b"[" * 100_000,
        b"number = " + b"{a = " * 20_000,
        b"number = 1\ntext = 3",
        b"text = 'no number'",
        os.urandom(5000),
    ],
)
def test_what_is_not_ours_is_one_damaged_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "record.toml"
    path.write_bytes(data)
    with pytest.raises(DamagedError) as caught:
        toml.read(path, Small)
    assert len(str(caught.value)) < 600
    assert is_inert(str(caught.value))


def test_unknown_keys_of_a_newer_version_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "record.toml"
    path.write_text("number = 3\nfuture = true\n[more]\nx = 1\n")
    assert toml.read(path, Small).number == 3


def test_a_gigabyte_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "record.toml"
    with open(path, "wb") as file:
        file.truncate(2**30)
    with pytest.raises(DamagedError):
        toml.read(path, Small)


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "record.toml"
    os.mkfifo(path)
    ended = threading.Event()

    def look() -> None:
        with pytest.raises(DamagedError):
            toml.read(path, Small)
        ended.set()

    threading.Thread(target=look, daemon=True).start()
    assert ended.wait(5)


def test_a_folder_and_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(DamagedError):
        toml.read(tmp_path, Small)
    with pytest.raises(NotFoundError):
        toml.read(tmp_path / "missing.toml", Small)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    record = Record(
        session_id="s", attempt=2, nonce="n", status="failed", reason='a "reason"\nof two \\ lines', queued_at=now, host="h",
        boot_id="b", run_id="r", loss=float("inf"), overrides={"checkpoint.keep": 8, "sample.prompts": ["a", 'b"']},
    )  # fmt: skip
    path = tmp_path / "0002.toml"
    toml.write(path, record)
    assert toml.read(path, Record) == record
    assert tomllib.loads(path.read_text())["attempt"] == 2, "the standard library reads it too"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_beat_is_never_seen_half(tmp_path: Path) -> None:
    path = tmp_path / "0001.toml"
    toml.write_beat(path, {"number": 0, "text": "x" * 200_000})
    stop = threading.Event()
    torn: list[Exception] = []
    looks = 0

    def look() -> None:
        nonlocal looks
        while not stop.is_set():
            try:
                toml.read(path, Small)
                looks += 1
            except (DamagedError, NotFoundError) as error:
                torn.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(100):
        toml.write_beat(path, {"number": number, "text": "x" * 200_000})
    stop.set()
    reader.join()
    assert looks > 0
    assert not torn
    assert [entry.name for entry in tmp_path.iterdir()] == ["0001.toml"]


_text = st.text(st.characters(exclude_categories=["Cs"]))
_plain = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text.filter(bool), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_text.filter(bool), _plain, max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_document_comes_back(document: dict[str, object]) -> None:
    assert toml.parse(toml.to_text(document).encode(), Path("x")) == document
