"""Cache entries are whole or not there, whoever writes, tears, evicts or exchanges them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluxtui.engine.trainer.data.cache import Cache, EntryKey, key_of
from fluxtui.engine.trainer.data.reading import Readers
from fluxtui.engine.trainer.refusal import HungReadError
from fluxtui.persist import cache_folder
from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files.lock import Lock

BYTES = 4096


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))
    cache_folder.make(tmp_path / "cache")
    return tmp_path / "cache"


def cache_in(folder: Path, limit: int = 1 << 30) -> Cache:
    return Cache(folder, Readers(30.0), limit)


def entry_of(fill: int) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {"latents": ("F32", (BYTES // 4,), bytes([fill]) * BYTES)}


def key(number: int) -> EntryKey:
    return key_of("latents", image=f"picture {number}")


def path_of(folder: Path, number: int) -> Path:
    return cache_folder.entry_path(folder, "latents", key(number).key)


def test_what_is_saved_is_loaded(folder: Path) -> None:
    cache = cache_in(folder)
    assert cache.load(key(1)) is None
    cache.save(key(1), entry_of(7))
    found = cache.load(key(1))
    assert found is not None
    assert (found["latents"][0], found["latents"][1], bytes(found["latents"][2])) == entry_of(7)["latents"]
    assert cache.is_whole(key(1))
    assert path_of(folder, 1).stat().st_mode & 0o777 == 0o600


def test_keys_depend_on_everything_they_are_made_of() -> None:
    keys = {
        key_of("latents", image="a", box=(0.0, 1.0)), key_of("latents", image="b", box=(0.0, 1.0)),
        key_of("latents", image="a", box=(0.0, 2.0)), key_of("text", image="a", box=(0.0, 1.0)),
    }  # fmt: skip
    assert len({entry.key for entry in keys}) == 4
    assert key_of("text", a=1, b=2) == key_of("text", b=2, a=1)


@pytest.mark.parametrize("place", [0, 3, 20, 100, -1, -BYTES // 2])
def test_one_flipped_bit_anywhere_is_found(folder: Path, place: int) -> None:
    cache = cache_in(folder)
    cache.save(key(1), entry_of(7))
    data = bytearray(path_of(folder, 1).read_bytes())
    data[place] ^= 1
    path_of(folder, 1).write_bytes(data)
    with pytest.raises(DamagedError):
        cache.load(key(1))


def test_a_torn_an_empty_and_a_foreign_entry_are_found(folder: Path) -> None:
    cache = cache_in(folder)
    cache.save(key(1), entry_of(7))
    whole = path_of(folder, 1).read_bytes()
    cache.save(key(2), entry_of(9))
    for data in (b"", whole[:100], whole[:-1], whole + b"x", path_of(folder, 2).read_bytes()):
        path_of(folder, 1).write_bytes(data)
        with pytest.raises(DamagedError):
            cache.load(key(1))
    path_of(folder, 1).write_bytes(whole[:-1])
    assert not cache.is_whole(key(1))


def test_a_pipe_in_an_entrys_place_does_not_block(folder: Path) -> None:
    cache = cache_in(folder)
    cache.save(key(1), entry_of(7))
    path_of(folder, 1).unlink()
    os.mkfifo(path_of(folder, 1))
    with pytest.raises(DamagedError):
        cache.load(key(1))
    assert [type(found) for found in cache.load_all([key(1), key(2)])] == [DamagedError, type(None)]
    cache.save(key(1), entry_of(7))
    assert cache.load(key(1)) is not None


def _write_for_a_while(folder: Path, fill: int, rounds: int) -> None:
    cache = cache_in(folder)
    for number in range(rounds):
        cache.save(key(number % 5), entry_of(fill))


def test_two_writers_of_the_same_entries_never_show_half_of_one(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_for_a_while, args=(folder, fill, 150)) for fill in (1, 2)]
    for writer in writers:
        writer.start()
    cache = cache_in(folder)
    seen = set()
    while any(writer.is_alive() for writer in writers):
        for number in range(5):
            try:
                found = cache.load(key(number))
            except DamagedError:
                pytest.fail("half an entry was seen")
            if found is not None:
                data = bytes(found["latents"][2])
                assert data in (bytes([1]) * BYTES, bytes([2]) * BYTES)
                seen.add(data[0])
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen == {1, 2}
    assert not [path for path in folder.rglob("*") if ".tmp" in path.name]


def test_the_unused_for_longest_goes_first_and_the_bound_holds(folder: Path) -> None:
    cache = cache_in(folder)
    for number in range(6):
        cache.save(key(number), entry_of(number))
        os.utime(path_of(folder, number), (1000 + number, 1000 + number))
    cache.touch(key(0))     # used again: the youngest now
    size = path_of(folder, 0).stat().st_size
    assert cache_folder.usage(folder) == cache_folder.Usage(6, 6 * size)
    removed = cache_folder.prune(folder, 3 * size)
    assert removed == cache_folder.Usage(3, 3 * size)
    assert [number for number in range(6) if path_of(folder, number).exists()] == [0, 4, 5]


def test_what_a_live_session_leased_is_never_evicted(folder: Path) -> None:
    cache = cache_in(folder, limit=0)
    for number in range(4):
        cache.save(key(number), entry_of(number))
    lease = cache.lease([key(1), key(3)])
    assert cache.prune().entries == 2
    assert [number for number in range(4) if path_of(folder, number).exists()] == [1, 3]
    lease.release()
    assert cache.prune().entries == 2
    assert not list((folder / "leases").iterdir())


def test_a_lease_ends_with_its_process_however_that_ends(folder: Path) -> None:
    cache = cache_in(folder, limit=0)
    cache.save(key(1), entry_of(1))
    code = (
        "import sys, time; from pathlib import Path; from fluxtui.persist import cache_folder\n"
        f"lease = cache_folder.lease(Path({str(folder)!r}), [{key(1).key!r}])\n"
        "print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert cache.prune().entries == 0
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert cache.prune().entries == 1


def test_leftovers_of_a_killed_writer_are_swept(folder: Path) -> None:
    shelf = folder / "latents" / "ab"
    shelf.mkdir()
    left = shelf / ".tmp-4194305-0123456789abcdef"      # a pid that Linux never gives
    left.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    cache_folder.prune(folder, 1 << 30)
    assert not left.exists()


def test_an_eviction_waits_its_turn(folder: Path) -> None:
    held = Lock.take(folder / "lock")
    assert held is not None
    cache = cache_in(folder, limit=0)
    cache.save(key(1), entry_of(1))
    pruning = subprocess.Popen([sys.executable, "-c", (
        f"from pathlib import Path; from fluxtui.persist import cache_folder; cache_folder.prune(Path({str(folder)!r}), 0)"
    )])  # fmt: skip
    time.sleep(1.0)
    assert pruning.poll() is None
    assert path_of(folder, 1).exists()
    held.release()
    assert pruning.wait(30) == 0
    assert not path_of(folder, 1).exists()


# ---- reads that do not answer


def test_a_read_that_never_returns_is_given_up_and_the_file_named(capfd: pytest.CaptureFixture[str]) -> None:
    readers = Readers(floor=0.5)
    began = time.monotonic()
    with pytest.raises(HungReadError, match="the photo did not answer"):
        readers.call("the photo", lambda: time.sleep(600))
    assert time.monotonic() - began < 30
    assert "Thread" in capfd.readouterr().err      # every stack is in the log


def test_a_slow_read_moves_the_limit_and_zero_is_no_limit() -> None:
    readers = Readers(floor=0.05)
    assert readers.limit() == 0.05
    assert Readers(0.0).call("a", lambda: time.sleep(0.2) or 7) == 7
    quick = Readers(floor=0.1)
    for _ in range(5):
        quick.call("a", lambda: time.sleep(0.08))
    assert quick.limit() >= 0.8


def test_reading_ahead_keeps_the_order_and_hands_on_errors() -> None:
    readers = Readers(30.0, threads=4)
    jobs = [(f"{n}", lambda n=n: time.sleep(0.001 * (7 * n % 5)) or n) for n in range(50)]
    assert list(readers.ahead(jobs, 8)) == list(range(50))

    def fails() -> int:
        raise DamagedError("third")

    results = readers.ahead([("1", lambda: 1), ("2", lambda: 2), ("3", fails), ("4", lambda: 4)], 4)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(DamagedError, match="third"):
        next(results)


def test_no_more_than_the_window_is_read_ahead() -> None:
    started: list[int] = []
    readers = Readers(30.0, threads=4)
    results = readers.ahead([(f"{n}", lambda n=n: started.append(n)) for n in range(100)], 5)
    next(results)
    time.sleep(0.3)
    assert len(started) <= 6
