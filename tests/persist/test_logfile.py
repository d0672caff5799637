"""Logs of any size, with anything in them, whatever happens to them while they are open."""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxtui.persist import logfile
from fluxtui.persist.errors import NotFoundError, StorageError
from fluxtui.persist.logfile import LogIndex, tail
from tests.persist.inert import is_inert


def whole(index: LogIndex) -> LogIndex:
    while index.update():
        pass
    return index


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "training.log"


def test_lines_by_number_and_offsets_both_ways(log: Path) -> None:
    rng = random.Random(1)
    lines = [f"{number} " + "x" * rng.choice([0, 3, 80, 2000, 40_000]) for number in range(800)]
    log.write_text("\n".join(lines) + "\nnot ended")
    index = whole(LogIndex(log))
    lines.append("not ended")
    assert index.count == len(lines)
    assert index.has_partial
    for number in [0, 1, 399, *rng.sample(range(800), 40), 799, 800]:
        got = index.read(number, 2)
        assert [line[:9_000] for line in got] == [line[:9_000] for line in lines[number : number + 2]]
        offset = index.offset_of(number)
        assert index.line_at(offset) == number
        assert index.line_at(offset + len(lines[number])) == number
        if number:
            assert index.line_at(offset - 1) == number - 1
    assert index.read(801, 5) == []


@given(st.binary(max_size=400), st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_any_pieces_give_the_lines_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, piece: int
) -> None:
    log = tmp_path_factory.mktemp("log") / "training.log"
    index = LogIndex(log)
    for start in range(0, len(data), piece):
        with open(log, "ab") as file:
            file.write(data[start : start + piece])
        whole(index)
    pieces = data.split(b"\n")
    wanted = len(pieces) - (not pieces[-1])
    assert index.count == wanted
    shown = index.read(0, 1000)
    assert len(shown) == wanted
    assert all(is_inert(line) for line in shown)
    if log.exists():
        assert tail(log, 1000) == shown


def test_a_tail_of_five_gigabytes_comes_at_once_and_small(log: Path) -> None:
    with open(log, "wb") as file:
        file.truncate(5 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"line \x1b[31m\xff\n" * 100)
    tracemalloc.start()
    start = time.process_time()
    lines = tail(log, 50)
    spent = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == ["line \ufffd"] * 50
    assert spent < 0.5
    assert peak < 20 * 2**20


def test_no_newline_at_all_is_one_line_read_boundedly(log: Path) -> None:
    with open(log, "wb") as file:
        file.truncate(200 * 2**20)
    index = whole(LogIndex(log))
    tracemalloc.start()
    assert index.count == 1
    (line,) = index.read(0, 1)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    assert len(line) <= logfile.SHOWN_LIMIT + 1
    assert line.endswith("…")
    (line,) = tail(log, 5)
    assert len(line) <= logfile.SHOWN_LIMIT


def test_a_progress_bar_of_a_megabyte_is_what_it_showed_last(log: Path) -> None:
    log.write_bytes(b"before\n" + b"".join(b"\r%d %%" % number for number in range(200_000)) + b"\nafter\n")
    assert whole(LogIndex(log)).read(0, 3) == ["before", "199999 %", "after"]


def test_what_is_appended_is_seen_and_what_was_read_stays(log: Path) -> None:
    log.write_text("one\n")
    index = whole(LogIndex(log))
    with open(log, "a") as file:
        file.write("two\nthr")
    whole(index)
    assert index.read(0, 9) == ["one", "two", "thr"]
    with open(log, "a") as file:
        file.write("ee\n")
    whole(index)
    assert index.read(0, 9) == ["one", "two", "three"]
    assert index.generation == 0


def test_truncated_rotated_deleted_and_made_again(log: Path) -> None:
    log.write_text("old\n" * 1000)
    index = whole(LogIndex(log))
    os.truncate(log, 0)
    log.write_text("new\n")
    whole(index)
    assert index.read(0, 9) == ["new"]
    assert index.generation == 1
    os.rename(log, log.with_name("training.log.1"))
    log.write_text("rotated\n")
    whole(index)
    assert index.read(0, 9) == ["rotated"]
    assert index.generation == 2
    log.unlink()
    whole(index)
    assert index.count == 0
    assert index.generation == 3
    log.write_text("again\n")
    whole(index)
    assert index.read(0, 9) == ["again"]


def test_cut_and_grown_longer_before_the_next_look_is_noticed(log: Path) -> None:
    log.write_text("first\n" * 100)
    index = whole(LogIndex(log))
    with open(log, "r+") as file:
        file.truncate(0)
        file.write("second\n" * 200)
    whole(index)
    assert index.count == 200
    assert index.read(0, 1) == ["second"]


def test_a_missing_log_a_fifo_and_a_folder(tmp_path: Path) -> None:
    index = LogIndex(tmp_path / "none")
    assert not index.update()
    assert index.count == 0
    assert index.read(0, 5) == []
    with pytest.raises(NotFoundError):
        tail(tmp_path / "none", 5)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(StorageError):
            tail(path, 5)
        with pytest.raises(StorageError):
            LogIndex(path).update()


def test_the_index_is_one_number_a_mebibyte(log: Path) -> None:
    log.write_bytes((b"x" * 99 + b"\n") * 300_000)
    index = LogIndex(log)
    start = time.process_time()
    whole(index)
    assert time.process_time() - start < 1.0
    assert index.count == 300_000
    assert len(index._before) == 30_000_000 // logfile.CHUNK + 1


def test_a_log_that_was_written_anew_since_it_was_indexed_is_read_without_an_error(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    line = b"x" * 1023 + b"\n"
    path.write_bytes(line * 2048)  # two chunks
    index = LogIndex(path)
    while index.update():
        pass
    assert len(index.read(1000, 100)) == 100
    with open(path, "r+b") as file:  # the same file, with fewer lines in its first chunk
        file.write(b"y" * (1 << 20))
    index._chunk = (-1, 0, [])
    assert len(index.read(1000, 100)) < 100
    index.close()
