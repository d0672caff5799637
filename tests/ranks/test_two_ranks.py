"""Two ranks under one keeper, with gloo on the CPU: whatever befalls one ends both, the rank is named, and the end is exact."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxtui import control
from fluxtui.persist import metrics, process
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import Record, Result
from tests.trainer.job import SMALL
from tests.trainer.tiny_flux import little_pictures, tiny_flux

EPOCHS = 54  # of 3 steps: 5 pictures by twos
SETS = SMALL | {
    "train.steps": 0, "train.epochs": EPOCHS, "train.batch_size": 1, "lora.dropout": 0.1, "lora.rank_dropout": 0.1,
    "lora.module_dropout": 0.1, "checkpoint.every_steps": 20,
    "hardware.gpus": [],
    "hardware.ranks": 2, "hardware.threads": 1, "guard.retry_delay": 0.1, "guard.grace": 1.0, "guard.max_auto_resumes": 9,
}  # fmt: skip
QUICK = {"guard.step": 14.0, "guard.batch": 14.0, "guard.first_steps": 14.0, "guard.checkpoint": 14.0, "guard.load": 12.0}


class Session:
    """A session of two ranks, and what its records say."""

    def __init__(self, home: Home, name: str, sets: dict[str, Any], model: Path, data: Path) -> None:
        self.home, self.name = home, name
        self.folder: SessionFolder = control.create(home, name, dataset=str(data), model=str(model), sets=sets)

    def record(self, attempt: int) -> Record:
        return toml.read(self.folder.attempt_file(attempt), Record)

    def newest(self) -> int:
        return max(self.folder.attempt_numbers(), default=0)

    def await_step(self, attempt: int, step: int) -> Record:
        """By the metrics, which rank 0 writes at once; the record is a beat behind."""

        def is_there() -> bool:
            seen = metrics.read_tail(self.folder.metrics_file, 1) if self.folder.metrics_file.exists() else []
            return bool(seen) and seen[-1].attempt == attempt and seen[-1].step >= step

        self.until(is_there)
        return self.record(attempt)

    def await_end(self, attempt: int) -> Record:
        """The attempt's final record, once every process of it is gone."""
        self.until(lambda: self.record(attempt).status in ("failed", "stopped", "completed"))
        record = self.record(attempt)
        assert not any(process.is_alive(rank) for rank in record.ranks)
        return record

    def until(self, holds: Callable[[], object], seconds: float = 300.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, overview.look(self.home, self.name)
            time.sleep(0.02)

    def sha(self) -> str:
        return toml.read(self.folder.result_file, Result).tensors_sha256


@pytest.fixture
def new_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Session]:
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))
    home = Home.open(tmp_path / "home")
    model, data = tiny_flux(tmp_path / "model"), little_pictures(tmp_path / "data")

    def make(name: str, **sets: Any) -> Session:
        return Session(home, name, SETS | {key.replace("__", "."): value for key, value in sets.items()}, model, data)

    return make


def test_whatever_befalls_one_of_two_ranks_ends_both_and_resumes_exactly(new_session: Callable[..., Session]) -> None:
    whole = new_session("whole")
    control.start(whole.home, "whole")
    assert control.wait(whole.home, "whole", 300).status == "completed"
    record = whole.record(1)
    assert (record.step, len(record.ranks), record.world_size) == (3 * EPOCHS, 2, 2)  # by the ranks, not by the one that proved
    assert record.prover not in (None, *record.ranks)
    assert control.verify(whole.home, "whole").ok

    one = new_session("struck", **{key.replace(".", "__"): value for key, value in QUICK.items()})
    control.start(one.home, "struck")
    one.await_step(1, 3)
    control.stop(one.home, "struck")
    stopped = one.await_end(1)
    assert stopped.status == "stopped", stopped
    assert stopped.checkpoint

    control.start(one.home, "struck", resume="auto")
    running = one.await_step(2, stopped.step + 2)
    assert process.send(running.ranks[1], signal.SIGKILL)
    killed = one.await_end(2)
    assert (killed.status, killed.signal) == ("failed", "SIGKILL")
    assert "rank 1" in killed.reason

    running = one.await_step(3, killed.step + 2)
    assert process.send(running.ranks[1], signal.SIGSTOP)
    frozen = one.await_end(3)
    assert frozen.status == "failed"
    assert "rank 1 in" in frozen.reason, frozen.reason
    assert "not even a tick" in frozen.reason, frozen.reason

    assert control.wait(one.home, "struck", 300).status == "completed"
    assert one.sha() == whole.sha()


def test_a_kill_ends_both_ranks_at_once(new_session: Callable[..., Session]) -> None:
    one = new_session("killed", train__steps=2000)
    control.start(one.home, "killed")
    running = one.await_step(1, 2)
    control.kill(one.home, "killed")
    ended = one.await_end(1)
    assert ended.status == "stopped"
    assert len(running.ranks) == 2


def test_a_rank_that_never_reaches_the_first_barrier_ends_both_and_is_named(new_session: Callable[..., Session]) -> None:
    """Stopped before the rendezvous: the other polls for it, which is no sign of life."""
    one = new_session("alone", guard__start=12.0, guard__load=4.0, guard__grace=1.0, guard__auto_resume=False)
    control.start(one.home, "alone")
    one.until(lambda: one.newest() == 1 and len(one.record(1).ranks) == 2)
    running = one.record(1)
    assert process.send(running.ranks[1], signal.SIGSTOP)
    ended = one.await_end(1)
    assert ended.status == "failed"
    assert "rank 1" in ended.reason, ended.reason
    assert not one.folder.metrics_file.exists() or not metrics.read_all(one.folder.metrics_file)
    assert not any(process.is_alive(rank) for rank in running.ranks)
