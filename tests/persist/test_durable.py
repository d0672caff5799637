"""A whole file or the old one, private, and no litter; the words of the system as sentences."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxtui.persist import logfile, metrics
from fluxtui.persist.errors import DISK_FULL, DamagedError, StorageError
from fluxtui.persist.files import durable
from fluxtui.persist.files.durable import fsync_folder, make_folder, remove_tree, sweep_temporaries, write_all, write_file
from fluxtui.persist.files.regular import open_regular, read_regular
from fluxtui.persist.files.tensorfile import read_header


def test_bytes_pieces_and_views_arrive_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0)
    try:
        write_file(path, b"one")
        assert path.read_bytes() == b"one"
        os.umask(0o777)
        write_file(path, iter([b"a", bytearray(b"b"), memoryview(b"cd").cast("H"), b""]))
    finally:
        os.umask(before)
    assert path.read_bytes() == b"abcd"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_file(path, b"x", mode=0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["file"]


def test_a_large_buffer_is_written_in_blocks_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_WRITE_AT_ONCE", 1000)
    data = os.urandom(12_345)
    write_file(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_source_that_fails_half_way_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")

    def torn() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(path, torn())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync", "open", "replace", "fchmod"])
def test_whatever_call_fails_the_old_file_stays_and_the_error_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    calls = 0

    def fails(*_: object, **__: object) -> int:
        nonlocal calls
        calls += 1
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        with pytest.raises(StorageError) as caught:
            write_file(path, b"new")
    assert calls == 1, "a call that failed was tried again"
    assert caught.value.errno == code
    assert (code in DISK_FULL) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert ";" in str(caught.value), "the sentence does not say what to do"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_over_the_size_limit_is_an_error_not_a_death(tmp_path: Path) -> None:
    program = f"""
import resource
from datetime import UTC, datetime
from pathlib import Path
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_file(Path({str(tmp_path / "f")!r}), bytes(2000))
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "larger than" in done.stdout
    assert os.listdir(tmp_path) == []


def test_the_write_is_durable_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)

        def spy(*args: object, name: str = name, real: object = real) -> object:
            order.append(name)
            return real(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, spy)
    write_file(tmp_path / "file", b"data")
    assert order == ["write", "fsync", "replace", "fsync"]


def test_left_over_temporaries_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    old = time.time() - 3600
    kept = [f".tmp-{os.getpid()}-{'0' * 16}", f".tmp-{dead.pid}-{'1' * 16}", "file", ".tmp-x"]
    for name in [*kept, f".tmp-{dead.pid}-{'2' * 16}"]:
        (tmp_path / name).write_text("")
        if "1111" not in name:
            os.utime(tmp_path / name, (old, old))
    sweep_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    sweep_temporaries(tmp_path / "missing")


def test_folders_are_made_once_and_trees_go_without_following_links(tmp_path: Path) -> None:
    make_folder(tmp_path / "a")
    make_folder(tmp_path / "a")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a", may_exist=False)
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / "a" / "link").symlink_to(outside)
    (tmp_path / "a" / "folder-link").symlink_to(tmp_path)
    remove_tree(tmp_path / "a")
    assert os.listdir(tmp_path) == ["outside"]
    remove_tree(tmp_path / "a")
    (tmp_path / "link").symlink_to(outside)
    remove_tree(tmp_path / "link")
    assert outside.read_text() == "kept"
    with pytest.raises(StorageError, match="sync the folder"):
        fsync_folder(tmp_path / "missing")


def test_what_is_no_regular_file_never_blocks_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "link", "dangling", "folder"):
        with pytest.raises(DamagedError, match="not a regular file"):
            open_regular(tmp_path / name)
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(DamagedError, match="not a regular file"):
            open_regular(path, follow_links=True)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    assert read_regular(tmp_path / "link", 5, follow_links=True) == b"12345"
    with pytest.raises(DamagedError, match="larger than 4 bytes"):
        read_regular(tmp_path / "file", 4)


def test_a_huge_file_is_refused_without_being_read_into_memory(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedError):
        read_regular(tmp_path / "huge", 1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def _metric() -> metrics.StepMetric:
    return metrics.StepMetric(attempt=1, step=1, epoch=1, loss=0.5, learning_rate=1e-4, seconds=0.1, at=datetime.now(UTC))


def test_reads_and_writes_that_move_few_bytes_at_a_time_move_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tmp_path / "t.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    tensors.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    write, pread = os.write, os.pread  # as FUSE and network file systems may
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, memoryview(data)[:3]))
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: pread(fd, min(count, 3), offset))
    assert list(read_header(tensors).tensors) == ["a"]
    log = tmp_path / "log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    write_all(descriptor, b"one line\nand another\n")
    os.close(descriptor)
    assert logfile.tail(log, 5) == ["one line", "and another"]
    descriptor = metrics.open_append(tmp_path / "metrics.jsonl")
    metrics.append(descriptor, made := _metric())
    os.close(descriptor)
    assert metrics.read_all(tmp_path / "metrics.jsonl") == [made]
