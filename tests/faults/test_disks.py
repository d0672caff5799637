"""Disks that are full, read-only, not writable or turn so in mid-commit (faults.md rows 4, 5 and 6)."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluxtui.persist.checkpoints.commit import commit_checkpoint, committed, newest_verified, retain, step_name, verify_checkpoint
from fluxtui.persist.errors import DISK_FULL, StorageError
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.home import Home
from tests.faults import mounts
from tests.faults.program import content, play

pytestmark = pytest.mark.root
BIG = {"adapter.safetensors": bytes(100_000), "optimizer.safetensors": bytes(200_000), "state.json": b"{}"}


@pytest.fixture(autouse=True)
def tools(needs: Callable[[str], str]) -> None:
    for tool in ("mount", "mkfs.ext4", "losetup"):
        needs(tool)
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "tmpfs":
        with mounts.tmpfs(tmp_path / "disk", "1m") as disk:
            yield disk
    else:
        with mounts.ext4(mounts.make_ext4(tmp_path / "image"), tmp_path / "disk") as disk:
            yield disk


def told(name: str, sentence: str) -> None:
    pytest.fail(f"{name} was called damaged: {sentence}")


def _failure(attempt: Callable[[], object]) -> StorageError | None:
    try:
        attempt()
    except StorageError as error:
        return error
    return None


def test_a_disk_that_is_full_at_any_byte_loses_nothing(small_disk: Path) -> None:
    checkpoints = small_disk / "checkpoints"
    for step in (1, 2):
        commit_checkpoint(checkpoints, step_name(step), content(step), {"step": step})
    failures = 0
    for leave in range(0, 1 << 20, 37_000):
        filler = mounts.fill(small_disk, leave)
        failure = _failure(lambda: commit_checkpoint(checkpoints, step_name(3), BIG, {"step": 3}))
        if failure is None:
            break
        failures += 1
        assert failure.errno in DISK_FULL
        assert "the disk is full; free some room" in str(failure)
        assert sorted(os.listdir(checkpoints)) == [step_name(1), step_name(2)], "a temporary folder was left on a full disk"
        assert newest_verified(checkpoints, told) == step_name(2)
        filler.unlink()
    assert failures >= 4, "the disk was never full: this test shows nothing"
    verify_checkpoint(checkpoints / step_name(3))
    assert retain(checkpoints, 2) == [step_name(1)], "a full disk still gives room back"
    filler.unlink()
    commit_checkpoint(checkpoints, step_name(4), content(4), {"step": 4})
    assert newest_verified(checkpoints, told) == step_name(4)


def test_a_record_on_a_full_disk_keeps_its_old_bytes_until_room_is_given_up(small_disk: Path) -> None:
    record, reserve = small_disk / "0001.toml", small_disk / ".reserve"
    write_file(record, b"status = 'running'")
    write_file(reserve, bytes(64 << 10))
    mounts.fill(small_disk, 0)
    with pytest.raises(StorageError, match="disk is full"):
        write_file(record, b"status = 'failed'" * 1000)
    assert record.read_bytes() == b"status = 'running'"
    reserve.unlink()
    write_file(record, b"status = 'failed'")
    assert record.read_bytes() == b"status = 'failed'"


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE strikes in the middle of a file, at any byte."""
    for limit in (0, 1, 4096, 11_999):
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        for step in (1, 2):
            commit_checkpoint(tmp_path / "checkpoints", step_name(step), content(step), {"step": step})
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            os._exit(play("commit", tmp_path, lambda line: None))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 80
        assert sorted(os.listdir(tmp_path / "checkpoints")) == [".lock", step_name(1), step_name(2)]


def test_a_read_only_disk_can_be_read_and_says_what_it_is(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    session = home.session("dog")
    session.create()
    for step in (1, 2):
        commit_checkpoint(session.checkpoints, step_name(step), content(step), {"step": step})
    with mounts.read_only(home.root):
        assert Home.open(home.root).session_names() == ["dog"], "the UI does not open"
        assert newest_verified(session.checkpoints, told) == step_name(2)
        for attempt in (
            lambda: commit_checkpoint(session.checkpoints, step_name(3), content(3), {}),
            lambda: write_file(session.spec_file, b"x"),
            lambda: home.session("cat").create(),
        ):
            with pytest.raises(StorageError, match="the disk is read-only; mount it writable") as refusal:
                attempt()
            assert refusal.value.errno == errno.EROFS
    (session.checkpoints / step_name(2) / "state.json").write_bytes(b"damaged")
    with mounts.read_only(home.root), pytest.raises(StorageError, match="cannot set aside"):
        newest_verified(session.checkpoints, lambda name, sentence: None)
    assert committed(session.checkpoints) == [step_name(1), step_name(2)]


def test_a_folder_that_is_not_ours_to_write_is_refused_in_a_sentence(needs: Callable[[str], str]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fluxtui-faults-"))  # where a plain user can get to
    try:
        folder.chmod(0o755)
        (folder / "checkpoints").mkdir(mode=0o555)
        assert "belongs to user 0, not to you" in _as_nobody(folder / "checkpoints")
        os.chown(folder / "checkpoints", 65534, 65534)
        (folder / "checkpoints").chmod(0o555)
        assert _as_nobody(folder / "checkpoints") == f"{errno.EACCES} permission denied; make the folder yours"
    finally:
        shutil.rmtree(folder)


def _as_nobody(checkpoints: Path) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            commit_checkpoint(checkpoints, step_name(1), content(1), {})
        except StorageError as error:
            os.write(writing, f"{error.errno} {(str(error).partition(': ')[2] or str(error)).partition(', or')[0]}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as answer:
        return answer.read()


def test_an_immutable_folder_is_refused_in_a_sentence(tmp_path: Path, needs: Callable[[str], str]) -> None:
    with mounts.ext4(mounts.make_ext4(tmp_path / "image"), tmp_path / "disk") as disk:
        commit_checkpoint(disk / "checkpoints", step_name(1), content(1), {})
        subprocess.run([needs("chattr"), "+i", disk / "checkpoints"], check=True)
        try:
            with pytest.raises(StorageError, match="does not permit") as refusal:
                commit_checkpoint(disk / "checkpoints", step_name(2), content(2), {})
            assert refusal.value.errno == errno.EPERM
            assert newest_verified(disk / "checkpoints", told) == step_name(1)
        finally:
            subprocess.run(["chattr", "-i", disk / "checkpoints"], check=True)


@pytest.mark.parametrize("before", ["the first byte", "the second file", "the manifest"])
def test_a_disk_that_turns_read_only_in_mid_commit_keeps_what_was_committed(tmp_path: Path, before: str) -> None:
    image = mounts.make_ext4(tmp_path / "image")

    def broken(at: str) -> Iterator[bytes]:
        if at == before:
            Path("/sys/fs/ext4", mounts.loop_device(image), "trigger_fs_error").write_text("fault injected by a test of fluxtui")
        yield b"x" * 50_000

    with mounts.ext4(image, tmp_path / "disk", "errors=remount-ro,commit=600") as disk:
        for step in (1, 2):
            commit_checkpoint(disk / "checkpoints", step_name(step), content(step), {"step": step})
        files = {"a": broken("the first byte"), "b": broken("the second file"), "c": broken("the manifest")}
        with pytest.raises(StorageError) as failure:
            commit_checkpoint(disk / "checkpoints", step_name(3), files, {"step": 3})
        assert failure.value.errno in (errno.EROFS, errno.EIO)
        flags = next(line for line in Path("/proc/mounts").read_text().splitlines() if str(disk) in line).split()[3]
        assert flags.startswith("ro") or "emergency_ro" in flags, "the disk never turned read-only"
        assert newest_verified(disk / "checkpoints", told) == step_name(2)
    subprocess.run(["e2fsck", "-fy", image], capture_output=True, timeout=60)
    with mounts.ext4(image, tmp_path / "disk") as disk:
        assert newest_verified(disk / "checkpoints", told) == step_name(2)
        commit_checkpoint(disk / "checkpoints", step_name(3), content(3), {"step": 3})
        assert sorted(os.listdir(disk / "checkpoints")) == [step_name(1), step_name(2), step_name(3)]


def test_a_disk_that_can_hold_no_more_files_is_not_called_full(tmp_path: Path) -> None:
    with mounts.mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m,nr_inodes=30", "none") as disk:
        commit_checkpoint(disk / "checkpoints", step_name(1), content(1), {"step": 1})
        fillers: list[Path] = []
        with contextlib.suppress(OSError):  # it is full then
            while True:
                (filler := disk / f"f{len(fillers)}").touch()
                fillers.append(filler)
        assert os.statvfs(disk).f_favail == 0 < os.statvfs(disk).f_bavail
        for attempt in (
            lambda: write_file(disk / "record", b"x"),
            lambda: commit_checkpoint(disk / "checkpoints", step_name(2), content(2), {"step": 2}),
        ):
            failed = _failure(attempt)
            assert failed is not None
            assert "the disk can hold no more files (`df -i`)" in str(failed)
            assert failed.errno in DISK_FULL
        assert committed(disk / "checkpoints") == [step_name(1)]
        fillers.pop().unlink()
        fillers.pop().unlink()
        mounts.fill(disk, 0)
        failed = _failure(lambda: write_file(disk / "record", b"x" * 8192))
        assert failed is not None
        assert "the disk is full" in str(failed)
