"""Fault 23: what a completed session is shown as when something happened to its file. By its times, else by its hash."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files import hash_cache, toml
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions import overview, record_cache
from fluxtui.persist.sessions.record import Proof, Record
from tests.persist.test_overview import make


@pytest.fixture
def home(home_path: Path) -> Home:
    record_cache._seen.clear()
    hash_cache._hashed.clear()
    return Home.open(home_path)


def completed(home: Home, name: str = "a", data: bytes = b"product") -> SessionFolder:
    folder = make(home, name, status="completed")
    folder.product.write_bytes(data)
    facts = folder.product.stat()
    proof = Proof(
        ok=True, size=len(data), sha256=hashlib.sha256(data).hexdigest(), tensors_sha256="t", at=datetime.now(UTC),
        mtime_ns=facts.st_mtime_ns, ctime_ns=facts.st_ctime_ns,
    )  # fmt: skip
    record = toml.read(folder.attempt_file(1), Record)
    toml.write(folder.attempt_file(1), msgspec.structs.replace(record, proof=proof))
    return folder


def write_and_set_back(path: Path, data: bytes) -> None:
    """Other bytes under the old modification time, as rsync, tar and touch leave it."""
    before = path.stat()
    while time.time_ns() - before.st_ctime_ns < 20_000_000:  # a tick of the file system's clock: two writes in one look the same
        time.sleep(0.005)
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def state(home: Home) -> str:
    return overview.look(home, "a").state


def test_a_product_that_is_gone_cut_or_flipped_is_not_completed(home: Home) -> None:
    folder = completed(home)
    assert state(home) == "completed"
    assert overview.look(home, "a").output == str(folder.product)
    for _ in range(2):  # and looked at again, by a front that remembers
        write_and_set_back(folder.product, b"pr0duct")
        assert state(home) == "changed", "same size, same modification time, other bytes"
        write_and_set_back(folder.product, b"product")
        assert state(home) == "completed", "written to, but the very bytes that were proven"
    os.truncate(folder.product, 3)
    assert state(home) == "changed"
    assert not overview.look(home, "a").output
    folder.product.unlink()
    assert state(home) == "changed"
    assert overview.look(home, "a").is_resumable, "a resume makes the file again"
    os.mkfifo(folder.product)
    assert state(home) == "changed"


def test_a_copied_home_is_completed_all_the_same_and_its_changes_are_seen(home: Home, tmp_path: Path) -> None:
    completed(home)
    shutil.copytree(home.root, tmp_path / "copy")  # new inodes, new times
    copy = Home.open(tmp_path / "copy")
    assert state(copy) == "completed"
    write_and_set_back(copy.session("a").product, b"pr0duct")
    assert (state(copy), state(home)) == ("changed", "completed")


def test_what_one_command_hashed_the_next_one_does_not_hash_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    product = completed(home).product
    write_and_set_back(product, b"pr0duct")
    time.sleep(0.15)
    assert state(home) == "changed"
    hash_cache._hashed.clear()  # another process

    def never(*_: object) -> None:
        raise AssertionError("it was read again")

    with monkeypatch.context() as patched:
        patched.setattr(hash_cache, "open_regular", never)
        assert state(home) == "changed"
        write_and_set_back(product, b"product")
        with pytest.raises(AssertionError):
            state(home)
    assert state(home) == "completed"


def test_a_file_is_hashed_again_while_two_writes_may_look_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes within a tick of the file system's clock leave the same times: what was just written is not remembered."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    monkeypatch.setattr(hash_cache.time, "time", lambda: path.stat().st_ctime)
    assert hash_cache.sha256_of(path) == hashlib.sha256(b"one").hexdigest()
    assert str(path) not in hash_cache._hashed
    monkeypatch.setattr(hash_cache.time, "time", lambda: path.stat().st_ctime + 1)
    hash_cache.sha256_of(path)
    assert str(path) in hash_cache._hashed


def test_a_file_that_is_written_to_while_it_is_hashed_has_no_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    real = hash_cache.blocks

    def grows(descriptor: int) -> Iterator[memoryview]:
        yield from real(descriptor)
        with open(path, "ab") as file:
            file.write(b"more")

    monkeypatch.setattr(hash_cache, "blocks", grows)
    with pytest.raises(DamagedError, match="was written to while it was read"):
        hash_cache.sha256_of(path)


@pytest.mark.parametrize(("number", "said"), [(errno.EIO, "the disk failed"), (errno.EACCES, "permission denied")])
def test_a_product_that_cannot_be_read_is_not_called_gone(
    home: Home, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    product, real = completed(home).product, os.lstat

    def fails(path: str | Path) -> os.stat_result:
        if str(path) == str(product):
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(os, "lstat", fails)
    seen = overview.look(home, "a")
    assert seen.state == "unreadable"
    assert said in seen.reason
    assert "gone" not in seen.reason
    assert "fluxtui verify a" in seen.remedy
    assert not seen.is_resumable, "nothing is made over a file that may be sound"


def test_many_completed_sessions_are_looked_at_in_a_blink(home: Home) -> None:
    """A thousand in 0.3 s. Nine of ten as they were proven; the rest of a copied home, hashed by an earlier look."""
    count = 300
    template = completed(home, "template")
    spec = template.spec_file.read_bytes()
    text = template.attempt_file(1).read_text()
    facts = template.product.stat()
    for number in range(count - 1):
        folder = home.sessions / f"s{number:04d}"
        (folder / "attempts").mkdir(parents=True)
        (folder / "session.toml").write_bytes(spec)
        product = folder / f"s{number:04d}.safetensors"
        product.write_bytes(b"product")
        own = product.stat()
        times = (own.st_mtime_ns, own.st_ctime_ns) if number % 10 else (1, 1)
        record = text.replace(f"mtime_ns = {facts.st_mtime_ns}", f"mtime_ns = {times[0]}")
        record = record.replace(f"ctime_ns = {facts.st_ctime_ns}", f"ctime_ns = {times[1]}")
        (folder / "attempts" / "0001.toml").write_text(record)
    time.sleep(0.15)
    overview.look_all(home)
    spent = []
    for _ in range(4):
        record_cache._seen.clear()
        hash_cache._hashed.clear()
        start = time.process_time()
        found = overview.look_all(home)
        spent.append(time.process_time() - start)
    assert [seen.state for seen in found] == ["completed"] * count
    assert min(spent) < 0.3 * count / 1000, "CPU seconds; the wall clock of a shared machine says nothing"
