"""Damaged checkpoints (faults.md rows 29 and 31): set aside, never used, never deleted in silence; the one before is used."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import resource
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxtui.persist.checkpoints.commit import MANIFEST, committed, newest_verified, retain, step_name, verify_checkpoint
from fluxtui.persist.errors import DamagedError, NotFoundError, StorageError
from tests.persist.test_commit import FILES, Told, put


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _grown(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replaced(path: Path, make: object) -> None:
    path.unlink()
    make(path)  # type: ignore[operator]


DAMAGES = {
    "truncated": _truncated,
    "grown": _grown,
    "flipped": _flipped,
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
    "fifo": lambda path: _replaced(path, os.mkfifo),
    "folder": lambda path: _replaced(path, os.mkdir),
    "link": lambda path: (shutil.copy(path, path.parent.parent / "copy"), _replaced(path, lambda at: at.symlink_to("../copy"))),
    "dangling": lambda path: _replaced(path, lambda at: at.symlink_to("nothing")),
    "extra": lambda path: (path.parent / "extra").write_bytes(b""),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
}


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ.get("FLUXTUI_TEST_BOMB", "bomb-went-off"),)


@pytest.mark.parametrize("file", [*FILES, MANIFEST])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_said_and_the_one_before_is_used(
    tmp_path: Path, damage: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUXTUI_TEST_BOMB", str(tmp_path / "bomb"))
    checkpoints = tmp_path / "c"
    put(checkpoints, 1, 2)
    DAMAGES[damage](checkpoints / step_name(2) / file)
    with pytest.raises(DamagedError) as refusal:
        verify_checkpoint(checkpoints / step_name(2))
    assert ("extra" if damage == "extra" else file) in str(refusal.value)
    told = Told()
    assert newest_verified(checkpoints, told) == step_name(1)
    assert [name for name, _ in told] == [step_name(2)]
    assert committed(checkpoints) == [step_name(1)]
    assert (checkpoints / ".corrupt-step-000000002-1").is_dir()
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_bytes(b"x"), lambda path: path.symlink_to("step-000000001")])
def test_what_only_has_the_name_of_a_checkpoint_is_set_aside(tmp_path: Path, make: object) -> None:
    put(tmp_path, 1)
    make(tmp_path / step_name(2))  # type: ignore[operator]
    told = Told()
    assert newest_verified(tmp_path, told) == step_name(1)
    assert len(told) == 1
    assert os.path.lexists(tmp_path / ".corrupt-step-000000002-1")


def test_a_checkpoint_under_another_name_is_not_that_step(tmp_path: Path) -> None:
    put(tmp_path, 1)
    os.rename(tmp_path / step_name(1), tmp_path / step_name(9))
    with pytest.raises(DamagedError, match="another checkpoint"):
        verify_checkpoint(tmp_path / step_name(9))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_one_flipped_bit_or_cut_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    parent = tmp_path_factory.mktemp("flip")
    put(parent, 1)
    path = parent / step_name(1) / data.draw(st.sampled_from([*FILES, MANIFEST]))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        verify_checkpoint(parent / step_name(1))
    shutil.rmtree(parent)


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_hostile_manifest_with_a_right_hash_is_refused(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, nested: bool
) -> None:
    parent = tmp_path_factory.mktemp("hostile")
    put(parent, 1)
    body = (b'{"files":' + b"[" * 5000) if nested else body
    digest = hashlib.sha256(body).hexdigest().encode()
    (parent / step_name(1) / MANIFEST).write_bytes(body + digest + b"\n")
    with pytest.raises(DamagedError):
        verify_checkpoint(parent / step_name(1))
    shutil.rmtree(parent)


def test_a_manifest_of_a_gigabyte_is_refused_in_little_memory(tmp_path: Path) -> None:
    put(tmp_path, 1)
    os.truncate(tmp_path / step_name(1) / MANIFEST, 1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedError, match="larger than"):
        verify_checkpoint(tmp_path / step_name(1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_all_bad_is_refused_every_time_and_nothing_is_deleted(tmp_path: Path) -> None:
    put(tmp_path, 1, 2)
    for step in (1, 2):
        _flipped(tmp_path / step_name(step) / "state.json")
    for _ in range(2):  # also when asked again: a second press of the key must not begin from nothing
        with pytest.raises(DamagedError, match=r"no checkpoint in .* is sound"):
            newest_verified(tmp_path, Told())
    assert sorted(os.listdir(tmp_path)) == [".corrupt-step-000000001-1", ".corrupt-step-000000002-1"]


def test_none_ever_is_none(tmp_path: Path) -> None:
    assert newest_verified(tmp_path / "missing", Told()) is None
    assert newest_verified(tmp_path, Told()) is None
    (tmp_path / ".tmp-step-000000001-x").mkdir()
    assert newest_verified(tmp_path, Told()) is None
    with pytest.raises(NotFoundError):
        verify_checkpoint(tmp_path / step_name(1))


def test_bytes_that_the_disk_lost_are_set_aside_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, 2)
    real, inode = os.preadv, (tmp_path / step_name(2) / "state.json").stat().st_ino

    def bad_sector(descriptor: int, *args: object) -> int:
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", bad_sector)
    told = Told()
    assert newest_verified(tmp_path, told) == step_name(1)
    assert "cannot be read" in told[0][1]
    assert (tmp_path / ".corrupt-step-000000002-1" / "state.json").read_bytes() == FILES["state.json"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.EACCES])
def test_what_this_process_cannot_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    put(tmp_path, 1)

    def fails(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fails)
        with pytest.raises(StorageError) as caught:
            newest_verified(tmp_path, Told())
    assert caught.value.errno == code
    assert newest_verified(tmp_path, Told()) == step_name(1)


def _bad_disk(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    real, inodes = os.preadv, {(folder / "state.json").stat().st_ino for folder in folders}

    def bad_sector(descriptor: int, *args: object) -> int:
        if os.fstat(descriptor).st_ino in inodes:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", bad_sector)


def test_a_disk_that_reads_nothing_is_an_error_and_nothing_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, 2, 3)
    with monkeypatch.context() as patched:
        _bad_disk(patched, *(tmp_path / step_name(step) for step in (1, 2, 3)))
        for call in (lambda: newest_verified(tmp_path, Told()), lambda: retain(tmp_path, 2)):
            with pytest.raises(StorageError, match="cannot be read"):
                call()
    assert committed(tmp_path) == [step_name(1), step_name(2), step_name(3)]
    assert newest_verified(tmp_path, Told()) == step_name(3), "the disk is well again, and nothing was lost"


def test_retention_deletes_nothing_while_one_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, 2, 3)
    _bad_disk(monkeypatch, tmp_path / step_name(3))
    with pytest.raises(StorageError):
        retain(tmp_path, 2)
    assert committed(tmp_path) == [step_name(1), step_name(2), step_name(3)]


def test_retention_never_counts_a_damaged_one_and_never_deletes_it(tmp_path: Path) -> None:
    put(tmp_path, 1, 2, 3, 4)
    _flipped(tmp_path / step_name(4) / "state.json")
    _flipped(tmp_path / step_name(1) / "state.json")
    told = Told()
    assert retain(tmp_path, 2, told) == []
    assert committed(tmp_path) == [step_name(2), step_name(3)]
    assert [name for name, _ in told] == [step_name(4), step_name(1)]
    assert sorted(name for name in os.listdir(tmp_path) if "corrupt" in name) == [
        ".corrupt-step-000000001-1",
        ".corrupt-step-000000004-1",
    ]
