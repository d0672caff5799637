"""Checkpoints are written while training goes on: in order, one at a time, and no failure is lost."""

from __future__ import annotations

import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable

import pytest
import torch

from fluxtui.engine.trainer.checkpoint import committer as checkpoints
from fluxtui.engine.trainer.checkpoint import state
from fluxtui.engine.trainer.checkpoint.write_behind import WriteBehind
from fluxtui.engine.trainer.exit_reason import ending_of
from fluxtui.engine.trainer.refusal import NoRoomError
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import StorageError
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]


def told(done: int, total: int) -> None: ...


def test_a_write_is_told_once_when_it_has_ended() -> None:
    go, behind = threading.Event(), WriteBehind()
    behind.begin("first", 3, lambda count: (count(1), go.wait(30), count(2)))  # type: ignore[arg-type, return-value]
    assert behind.poll() is None
    time.sleep(0.2)
    go.set()
    seen: list[tuple[int, int]] = []
    written = behind.settle(lambda done, total: seen.append((done, total)))
    assert written is not None
    assert written.name == "first"
    assert 0.2 <= written.seconds < 30
    assert all(total == 3 for _, total in seen)
    assert (behind.poll(), behind.settle(told)) == (None, None)


def test_what_goes_wrong_in_the_thread_is_raised_in_the_loop_and_once() -> None:
    behind = WriteBehind()

    def fails(count: Callable[[int], None]) -> None:
        raise StorageError("the disk is full")

    behind.begin("first", 1, fails)
    with pytest.raises(StorageError, match="full"):
        behind.settle(told)
    assert behind.poll() is None


def test_training_goes_on_while_a_checkpoint_is_written_and_the_next_one_waits(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = new_bench("slow", train__steps=4, checkpoint__every_steps=2)
    run = bench.prepare_here()
    go, reached, order = threading.Event(), threading.Event(), []
    real = commit.commit_checkpoint

    def held(parent, name, *rest):
        order.append(f"begin {name}")
        reached.set()
        assert go.wait(60)
        path = real(parent, name, *rest)
        order.append(f"end {name}")
        return path

    monkeypatch.setattr(commit, "commit_checkpoint", held)
    run.state.step = 2
    weights = {name: value.detach().clone() for name, value in run.committer.parameters.items()}
    run.commit_if_due(False)
    assert reached.wait(30)
    with torch.no_grad():
        for parameter in run.parameters:
            parameter.add_(1.0)  # the loop goes on
    run.state.step = 4
    waits = threading.Thread(target=run.commit_if_due, args=(False,))
    waits.start()
    waits.join(0.3)
    assert waits.is_alive()
    assert bench.checkpoints() == []
    go.set()
    waits.join(30)
    run.close()
    assert order == ["begin step-000000002", "end step-000000002", "begin step-000000004", "end step-000000004"]
    kept = state.from_safetensors(bench.folder.checkpoints / "step-000000002" / state.ADAPTER_FILE)
    assert all(torch.equal(kept[name], value) for name, value in weights.items()), "a later step changed what was written"


def test_a_commit_is_copied_into_the_memory_of_the_one_before_and_says_what_is_true_now(new_bench: NewBench) -> None:
    run = new_bench("again", train__steps=2).prepare_here()
    committer, folder = run.committer, run.folder.checkpoints

    def commit_at(step: int) -> dict[str, int]:
        run.state.step = step
        committer.commit(run.state)
        committer.settle()
        weights = state.from_safetensors(folder / commit.step_name(step) / state.ADAPTER_FILE)
        assert all(torch.equal(weights[name], value) for name, value in committer.parameters.items())
        assert committer._memory is not None
        return {
            f"{file}/{name}": tensor.data_ptr()
            for file, held in committer._memory.tensors.items()
            for name, tensor in held.items()
        }

    first = commit_at(1)
    with torch.no_grad():
        for parameter in run.parameters:
            parameter.add_(1.0)
            parameter.grad = torch.ones_like(parameter)
    committer.optimizer.step()  # its moments are new since: memory of their own, beside that of the weights
    second = commit_at(2)
    assert first.items() <= second.items()
    assert len(second) > len(first)
    verified = [state.verify(folder / name) for name in commit.committed(folder)]
    assert [manifest.facts["step"] for manifest in verified] == [1, 2]


def test_a_failed_write_ends_the_run_with_the_code_for_storage(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = new_bench("broken", train__steps=6, checkpoint__every_steps=2)
    real = commit.commit_checkpoint

    def breaks(parent, name, *rest):
        if name == "step-000000004":
            raise StorageError("cannot write the checkpoint: the disk failed", 5)
        return real(parent, name, *rest)

    monkeypatch.setattr(commit, "commit_checkpoint", breaks)
    with pytest.raises(StorageError) as failure:
        bench.run_here()
    assert ending_of(failure.value).code == TrainerExit.STORAGE
    assert bench.checkpoints() == ["step-000000002"]
    assert not bench.folder.product.exists(), "the end did not wait for the last checkpoint"


def test_room_is_looked_at_again_before_each_checkpoint(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = new_bench("full", train__steps=4, checkpoint__every_steps=2)
    run = bench.prepare_here()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    assert shutil.disk_usage("/").free == 1000  # the fault happened
    run.state.step = 2
    with pytest.raises(NoRoomError, match=r"the disk has 1000 bytes free, and checkpoint step-000000002 takes .* KiB") as refusal:
        run.commit()
    assert ending_of(refusal.value).code == TrainerExit.STORAGE
    assert bench.checkpoints() == []
    run.close()


def test_a_checkpoint_is_due_by_epochs_by_steps_and_by_minutes(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_bench("due", checkpoint__every_epochs=2, checkpoint__every_steps=5, checkpoint__every_minutes=0.5).prepare_here()
    now = time.monotonic()
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)

    def is_due(step: int, epoch: int, epoch_ended: bool, seconds: float) -> bool:
        run.committer.last_at = now - seconds
        return run.committer.is_due(state.LoopState(step=step, epoch=epoch), epoch_ended)

    assert not is_due(4, 1, True, 29.9)
    assert is_due(4, 2, True, 0)
    assert not is_due(4, 2, False, 0), "in the middle of the third epoch"
    assert is_due(5, 0, False, 0)
    assert is_due(4, 0, False, 30.0)
    run.close()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_number_that_is_not_finite_is_found_and_an_overflowing_sum_is_none(bad: float) -> None:
    huge = torch.full((100,), 3e38)
    assert state.not_finite({"huge": huge, "small": torch.ones(5)}) is None
    broken = huge.clone()
    broken[57] = bad
    assert state.not_finite({"huge": huge, "broken": broken}) == "broken"
    assert state.not_finite({"half": torch.tensor([1.0, bad], dtype=torch.bfloat16)}) == "half"
    assert state.not_finite({}) is None
