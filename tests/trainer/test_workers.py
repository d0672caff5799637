"""Data workers: what they read is what threads read; one that hangs, dies or is orphaned never holds anything up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxtui.engine.trainer.data.cache import Cache, key_of
from fluxtui.engine.trainer.data.data_worker import Wanted, read_one
from fluxtui.engine.trainer.data.reading import Readers
from fluxtui.engine.trainer.data.workers import Workers
from fluxtui.engine.trainer.refusal import DataWorkerError
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist import cache_folder

COUNT = 12
SIZE = 300_000      # bytes, more than a pipe holds


def wanted(number: int) -> Wanted:
    entry = key_of("text", number=number)
    return Wanted(entry.kind, entry.key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cache_folder.make(tmp_path)
    cache = Cache(tmp_path, Readers(30.0))
    for number in range(COUNT):
        cache.save(key_of("text", number=number), {"pooled": ("F32", (SIZE // 4,), bytes([number]) * SIZE)})
    return tmp_path


@pytest.fixture
def workers(folder: Path) -> Iterator[Workers]:
    made = Workers(folder, 2, floor=20.0)
    yield made
    made.end()


def requests(count: int = COUNT) -> list[list[Wanted]]:
    return [[wanted(number), wanted((number + 1) % COUNT)] for number in range(count)]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_workers_answer_in_order_what_a_plain_read_gives(folder: Path, workers: Workers) -> None:
    expected = [[read_one(folder, one) for one in request] for request in requests()]
    assert list(workers.read(requests())) == expected
    assert expected[3][0].tensors["pooled"][2] == bytes([3]) * SIZE


def test_a_reading_inside_another_and_one_left_in_the_middle_mix_nothing_up(folder: Path, workers: Workers) -> None:
    expected = [[read_one(folder, one) for one in request] for request in requests()]
    outer = workers.read(requests())
    assert [next(outer), next(outer)] == expected[:2]
    assert list(workers.read(requests(5))) == expected[:5]
    left = workers.read(requests())
    assert next(left) == expected[0]
    left.close()
    assert list(outer) == expected[2:]
    assert list(workers.read(requests(3))) == expected[:3]


def test_damage_and_absence_come_back_as_words(folder: Path, workers: Workers) -> None:
    path = cache_folder.entry_path(folder, "text", wanted(1).key)
    path.write_bytes(path.read_bytes()[:-1])
    cache_folder.entry_path(folder, "text", wanted(2).key).unlink()
    (read,) = workers.read([[wanted(0), wanted(1), wanted(2)]])
    assert read[0].tensors
    assert not read[1].tensors
    assert str(path) in read[1].damage
    assert (read[2].tensors, read[2].damage) == ({}, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_is_said_with_its_signal(folder: Path, workers: Workers, number: signal.Signals) -> None:
    reading = workers.read(requests())
    next(reading)
    os.kill(workers.pids[0], number)
    with pytest.raises(DataWorkerError, match=f"killed by {number.name}") as caught:
        list(reading)
    assert caught.value.exit == TrainerExit.DATA_WORKER
    workers.end()


def test_a_worker_that_hangs_is_given_up_and_ended(folder: Path) -> None:
    workers = Workers(folder, 2, floor=1.0)
    list(workers.read(requests(4)))
    pids = workers.pids
    os.kill(pids[1], signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(DataWorkerError, match="gave no batch in time"):
        list(workers.read(requests()))
    assert time.monotonic() - began < 60
    workers.end()       # a stopped process is ended all the same
    assert all(is_gone(pid) for pid in pids)


def test_workers_end_with_a_trainer_that_is_killed(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fluxtui.engine.trainer.data.workers import Workers\n"
        f"workers = Workers(Path({str(folder)!r}), 2, 30.0); list(workers.read([]))\n"
        "print(*workers.pids, flush=True); time.sleep(600)"
    )
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    pids = [int(word) for word in trainer.stdout.readline().split()]
    assert len(pids) == 2
    for pid in pids:        # they are past their own look at the parent once they sleep in a read
        _until(lambda pid=pid: "python" in Path(f"/proc/{pid}/cmdline").read_text())
    trainer.kill()
    trainer.wait()
    _until(lambda: all(is_gone(pid) for pid in pids))


def test_a_worker_whose_parent_is_another_leaves_at_once(folder: Path) -> None:
    command = [sys.executable, "-m", "fluxtui.engine.trainer.data.data_worker", "1", str(folder)]
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True)
    assert done.returncode == TrainerExit.WRONG_PARENT


def test_a_worker_needs_no_torch(folder: Path) -> None:
    module = "fluxtui.engine.trainer.data.data_worker"
    code = f"import sys, {module}; sys.exit(any(n in sys.modules for n in ('torch', 'numpy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)
