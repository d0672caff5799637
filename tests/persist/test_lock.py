"""Locks that die with their holder, seen from other processes; never unlinked, never inherited by a program started."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluxtui.persist.errors import StorageError
from fluxtui.persist.files.lock import Lock

HOLDER = """
import subprocess, sys
from pathlib import Path
from fluxtui.persist.files.lock import Lock
lock = Lock.take(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], close_fds=False)  # a program started inherits no lock
print("taken" if lock else "refused", child.pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answer, child = process.stdout.readline().split()
    try:
        yield process, answer, int(child)
    finally:
        process.kill()
        process.wait()
        os.kill(int(child), signal.SIGKILL)


def test_one_holder_and_freed_by_sigkill_though_a_child_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not Lock.held(path)
    assert not path.exists(), "a query made the file"
    with holder(path) as (process, answer, child):
        assert answer == "taken"
        assert Lock.held(path)
        assert Lock.take(path) is None
        with holder(path) as (_, second, _):
            assert second == "refused"
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        assert not Lock.held(path)
        lock = Lock.take(path)
        assert lock is not None
        assert lock.still_at(path)
        lock.release()
        lock.release()
    assert not Lock.held(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_takes_in_one_process_are_two_holders(tmp_path: Path) -> None:
    one = Lock.take(tmp_path / "lock")
    assert one is not None
    assert Lock.take(tmp_path / "lock") is None
    # a descriptor of the same file that is closed does not drop it, as it would a POSIX lock
    os.close(os.open(tmp_path / "lock", os.O_RDWR))
    assert Lock.held(tmp_path / "lock")
    one.release()


def test_a_query_takes_nothing_even_of_a_file_it_may_only_read(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(mode=0o400)
    for _ in range(2):
        assert not Lock.held(path)
    lock = Lock.take(path) if os.geteuid() == 0 else None
    if lock:
        assert Lock.held(path)
        lock.release()


def test_the_holder_sees_that_its_path_was_removed_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = Lock.take(path)
    assert lock is not None
    path.unlink()
    assert not lock.still_at(path)
    path.touch()
    assert not lock.still_at(path)
    other = Lock.take(path)
    assert other is not None, "the new file is another lock"
    assert other.still_at(path)
    lock.release()
    other.release()


def test_an_old_lock_is_refreshed_so_that_nobody_tidies_it_away(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = Lock.take(path)
    assert lock is not None
    os.utime(path, (0, 0))
    assert lock.still_at(path)
    assert path.stat().st_mtime > 1e9
    lock.release()


def test_a_lock_names_its_holder_before_it_is_seen_to_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a front would take the last holder's name, and show the record of a dead keeper beside a lock that is held."""
    path = tmp_path / "lock"
    first = Lock.take(path, "the first holder")
    assert first is not None
    first.release()
    seen: list[tuple[bool, str]] = []
    real = os.pwrite

    def spy(*args: object) -> int:
        seen.append((Lock.held(path), Lock.holder(path)))
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pwrite", spy)
    second = Lock.take(path, "second")
    assert second is not None
    assert seen == [(False, "the first holder")]
    assert (Lock.held(path), Lock.holder(path)) == (True, "second")
    second.release()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_what_cannot_be_a_lock_is_a_sentence_and_never_blocks(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "lock")
    for ask in (Lock.take, Lock.held):
        with pytest.raises(StorageError, match="lock is not a regular file, so it cannot be a lock; remove it"):
            ask(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(StorageError):
        Lock.take(tmp_path / "missing" / "lock")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_lock_gets_its_lock_in_the_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    runtime, disk = tmp_path / "run", tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(runtime))
    real = fcntl.fcntl
    refused = 0

    def cannot(descriptor: int, *args: object) -> object:
        nonlocal refused
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(disk)):
            refused += 1
            raise OSError(code, os.strerror(code))
        return real(descriptor, *args)  # type: ignore[call-overload]

    monkeypatch.setattr(fcntl, "fcntl", cannot)
    path = disk / "lock"
    lock = Lock.take(path)
    assert lock is not None
    assert refused == 1
    assert Lock.held(path)
    assert Lock.take(path) is None
    (tmp_path / "link").symlink_to(disk)
    assert Lock.held(tmp_path / "link" / "lock"), "another way to the same file is the same lock"
    other = Lock.take(disk / "other")
    assert other is not None
    assert lock.still_at(path)
    path.unlink()
    assert not lock.still_at(path)
    path.touch()
    lock.release()
    assert not Lock.held(path)
    assert len(list(runtime.iterdir())) == 2


@pytest.mark.root
def test_a_kernel_that_answers_enolck_gets_the_stand_in_too(tmp_path: Path, needs: Callable[[str], str]) -> None:
    program = "import sys; from pathlib import Path; from fluxtui.persist.files.lock import Lock;"
    program += "lock = Lock.take(Path(sys.argv[1])); "
    program += "print(lock is not None, Lock.held(Path(sys.argv[1])), Lock.take(Path(sys.argv[1])) is None)"
    trace = tmp_path / "trace"
    done = subprocess.run(
        [
            *(needs("strace"), "-f", "-o", trace, "-P", tmp_path / "lock", "-e", "inject=fcntl:error=ENOLCK"),
            *(sys.executable, "-c", program, tmp_path / "lock"),
        ],
        env={**os.environ, "FLUXTUI_RUNTIME": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "ENOLCK (No locks available) (INJECTED)" in trace.read_text()
    assert done.stdout.split() == ["True", "True", "True"]
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_another_error_is_not_taken_for_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock.take(tmp_path / "lock")
    assert lock is not None
    lock.release()

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "fcntl", fails)
    before = set(os.listdir("/proc/self/fd"))
    for call in (Lock.take, Lock.held):
        with pytest.raises(StorageError, match="the disk failed"):
            call(tmp_path / "lock")
    assert set(os.listdir("/proc/self/fd")) == before, "a descriptor leaked"
