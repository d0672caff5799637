"""The queue for GPUs, with readings as NVML would give them: only the driver is made up; locks and records are real."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from keeper_lab import Lab, Session, until

from fluxtui.engine.keeper import queue
from fluxtui.engine.keeper.gauges import Gauges, has_driver
from fluxtui.engine.keeper.queue import Queue
from fluxtui.gpu import Gpu, Gpus
from fluxtui.persist import process
from fluxtui.persist.errors import UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import runtime_folder
from fluxtui.persist.sessions.record import Record
from fluxtui.persist.settings.spec import HardwareSpec

GIB = 2**30
EMPTY = Gpu(index=0, uuid="GPU-aa", name="A", memory_total=24 * GIB, memory_used=9 * GIB)
FULL = Gpu(index=1, uuid="GPU-bb", name="A", memory_total=24 * GIB, memory_used=1 * GIB)
BOTH = Gpus(devices=(EMPTY, FULL), at=1.0)
UNLIKE = Gpus(devices=(EMPTY, msgspec.structs.replace(FULL, name="B")), at=1.0)


class Readings(Gauges):
    """Gauges that show what a test says, and start no child."""

    def __init__(self, readings: Gpus) -> None:
        super().__init__()
        self.readings = readings

    def start(self) -> None: ...

    def latest(self) -> Gpus:
        return self.readings


@pytest.fixture(autouse=True)
def _driver(lab: Lab, monkeypatch):
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(lab.path / "runtime"))
    monkeypatch.setattr(queue, "has_driver", lambda: True)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


def record_of(session: Session, minutes: int = 0, **changes) -> Record:
    known = {"session_id": session.spec.id, "attempt": 1, "nonce": "n", "status": "queued", "host": "here"}
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    return Record(**(known | {"queued_at": at, "boot_id": process.boot_id(), "run_id": "r"} | changes))


def waiting(lab: Lab, name: str, minutes: int, wanted: object, held: list[Lock], **changes) -> None:
    """Another session of the home whose keeper lives."""
    session = lab.session(name, gpus=wanted)
    toml.write(session.folder.attempt_file(1), record_of(session, minutes, **changes))
    lock = Lock.take(session.folder.lock_file)
    assert lock is not None
    held.append(lock)


def ask(lab: Lab, gpus: object, readings: Gpus = BOTH, name: str = "mine", **changes) -> queue.Turn:
    session = lab.session(name, gpus=gpus)
    return Queue(lab.home, name, HardwareSpec(gpus=gpus), Readings(readings)).ask(record_of(session, 10, **changes))


def test_auto_takes_one_free_gpu_the_one_with_the_most_free_memory(lab: Lab):
    first = ask(lab, "auto", name="first")
    assert first.lease.uuids == ["GPU-bb"]
    second = ask(lab, "auto", name="second")
    assert second.lease.uuids == ["GPU-aa"]
    third = ask(lab, "auto", name="third")
    assert third.lease is None
    assert third.waiting_for == "a session of another home (GPU GPU-bb)"
    first.lease.release()
    assert ask(lab, "auto", name="fourth").lease.uuids == ["GPU-bb"]


@pytest.mark.parametrize(
    ("gpus", "uuids"), [([1], ["GPU-bb"]), (["GPU-aa"], ["GPU-aa"]), ([0, 1], ["GPU-aa", "GPU-bb"]), ([0, "GPU-aa"], ["GPU-aa"])]
)
def test_gpus_are_chosen_by_index_or_uuid_and_no_other_is_touched(lab: Lab, gpus, uuids):
    assert ask(lab, gpus).lease.uuids == uuids
    free = {"GPU-aa", "GPU-bb"} - set(uuids)
    assert all(not Lock.held(runtime_folder() / f"gpu-{uuid}") for uuid in free)


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(lab: Lab):
    with pytest.raises(UsageError, match=r"no GPU 7; it has: 0 \(GPU-aa\), 1 \(GPU-bb\)"):
        ask(lab, [7])


def test_of_two_gpus_both_or_none_are_taken(lab: Lab):
    busy = Lock.take(runtime_folder() / "gpu-GPU-bb")
    assert ask(lab, [0, 1]).lease is None
    assert not Lock.held(runtime_folder() / "gpu-GPU-aa")
    busy.release()


@pytest.mark.parametrize(
    "readings", [Gpus(why="the GPUs are not read yet"), Gpus(why="the NVIDIA driver has not answered for 9 s", at=5.0)]
)
def test_a_driver_that_does_not_answer_is_waited_for_and_never_replaced_by_the_cpu(lab: Lab, readings):
    for gpus in ("auto", [0]):
        turn = ask(lab, gpus, readings, name=f"s{len(str(gpus))}")
        assert turn.lease is None
        assert readings.why in turn.waiting_for


def test_without_a_driver_auto_is_the_cpu_of_the_home(lab: Lab, monkeypatch):
    monkeypatch.setattr(queue, "has_driver", lambda: False)
    turn = ask(lab, "auto")
    assert turn.lease.uuids == []
    assert Lock.held(lab.home.cpu_lock)
    with pytest.raises(UsageError, match="no GPU 0"):
        ask(lab, [0], Gpus(why="there is no NVIDIA driver", at=1.0), name="other")


def test_whoever_waits_longer_for_the_same_gpu_goes_first(lab: Lab):
    held: list[Lock] = []
    waiting(lab, "older", 5, [0], held)
    assert ask(lab, [0], name="a").waiting_for == "older (before it in the queue)"
    assert ask(lab, "auto", name="b").waiting_for == "older (before it in the queue)"
    assert ask(lab, [1], name="c").lease.uuids == ["GPU-bb"]  # it could not use that one
    assert ask(lab, [0], name="d", priority=-1).lease.uuids == ["GPU-aa"]


def test_younger_dead_and_retrying_ones_are_not_waited_for(lab: Lab):
    held: list[Lock] = []
    waiting(lab, "younger", 20, [0], held)
    waiting(lab, "dead", 1, [0], held)
    held.pop().release()
    waiting(lab, "between-retries", 2, [1], held, gpus=["GPU-bb"])
    waiting(lab, "on-the-cpu", 3, [], held)
    assert ask(lab, [0]).lease.uuids == ["GPU-aa"]


def test_the_owner_of_a_busy_gpu_is_named(lab: Lab):
    held: list[Lock] = []
    waiting(lab, "trains", 1, [1], held, status="running", gpus=["GPU-bb"])
    busy = Lock.take(runtime_folder() / "gpu-GPU-bb")
    assert ask(lab, [1]).waiting_for == "trains (GPU GPU-bb)"
    busy.release()


def test_a_queue_survives_every_front_and_is_reordered_and_withdrawn_from(lab: Lab):
    """Real keepers whose fronts are dead; one waits in front of another, one leaves, the rest runs in the new order."""
    lab.plan(step_seconds=0.05)
    steps = {"first": 160, "second": 20, "third": 20, "fourth": 20}
    sessions = {name: lab.session(name, steps=count) for name, count in steps.items()}
    for name, session in sessions.items():
        front = session.start(wrap=["/bin/sh", "-c", '"$@" & wait', "sh"], FLUXTUI_RUN_ID=f"keeper-of-{name}")
        front.process.kill()
        front.wait()
        until(lambda session=session: session.attempts and session.record())
        if name == "first":
            session.await_step(1)
    waiting = [sessions[name] for name in ("second", "third", "fourth")]
    until(lambda: all(session.record().waiting_for for session in waiting))
    sessions["third"].request("priority", -5)
    sessions["fourth"].request("stop")
    until(lambda: sessions["fourth"].record().status == "stopped")
    assert sessions["fourth"].record().reason == "taken out of the queue"
    for name in ("first", "second", "third"):
        until(lambda name=name: sessions[name].record().status == "completed", 60)
    begun = sorted(("first", "second", "third"), key=lambda name: sessions[name].record().started_at)
    assert begun == ["first", "third", "second"]
    for session in sessions.values():
        until(lambda session=session: not session.is_kept())
        session.check()


def test_a_session_of_the_cpu_sees_no_gpu_and_locks_none(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000, gpus=[])
    keeper = one.start(CUDA_VISIBLE_DEVICES="0,1")
    rank = one.await_step(3).ranks[0]
    environment = Path(f"/proc/{rank.pid}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=" in environment
    assert one.record().gpus == []
    assert list((lab.path / "runtime").glob("gpu-*")) == []
    one.request("kill")
    keeper.wait()


INSTANCES = tuple(
    Gpu(index=index, uuid=uuid, name=uuid, memory_total=10 * GIB) for index, uuid in ((0, "MIG-1a"), (0, "MIG-1b"), (1, "GPU-cc"))
)


@pytest.mark.parametrize(
    ("said", "gpus", "wanted"),
    [
        (None, "auto", [["GPU-bb"], ["GPU-aa"]]),
        ("0", "auto", [["GPU-aa"]]),
        ("1, 0", "auto", [["GPU-bb"], ["GPU-aa"]]),
        ("GPU-a", "auto", [["GPU-aa"]]),
        ("1,7,0", "auto", [["GPU-bb"]]),  # as CUDA reads it: nothing after a name that is none
        ("0", [0], [["GPU-aa"]]),
        (None, "all", [["GPU-aa", "GPU-bb"]]),
        ("1", "all", [["GPU-bb"]]),
        ("", "auto", [[]]),
        ("-1", "all", [[]]),
        ("NoDevFiles", "auto", [[]]),
    ],
)
def test_what_cuda_visible_devices_leaves_is_all_there_is(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, said: str | None, gpus: object, wanted: list[list[str]]
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert Queue(lab.home, "mine", HardwareSpec(gpus=gpus), Readings(BOTH))._wanted() == wanted


@pytest.mark.parametrize(
    ("said", "gpus", "readings", "words"),
    [
        ("0", [1], BOTH, "GPU 1 is not among those that CUDA_VISIBLE_DEVICES=0 leaves"),
        ("7", "auto", BOTH, "CUDA_VISIBLE_DEVICES=7 leaves none"),
        (None, [7], BOTH, r"no GPU 7; it has: 0 \(GPU-aa\), 1 \(GPU-bb\)"),
        (None, [0], Gpus(devices=INSTANCES, at=1.0), "GPU 0 is cut into MIG instances: name one of them, MIG-1a, MIG-1b"),
        (None, ["MIG-1a", "MIG-1b"], Gpus(devices=INSTANCES, at=1.0), "one MIG instance and nothing beside it"),
        (None, "all", Gpus(devices=INSTANCES, at=1.0), "one MIG instance and nothing beside it"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, said: str | None, gpus: object, readings: Gpus, words: str
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    with pytest.raises(UsageError, match=words):
        ask(lab, gpus, readings)


@pytest.mark.parametrize(
    ("environment", "gpus", "wanted"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "auto", [["GPU-bb"]]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bb"}, "auto", [["GPU-bb"]]),
        ({}, [1], [["GPU-bb"]]),  # hardware.gpus counts as nvidia-smi does
        ({"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_ID": "7"}, "all", [["GPU-bb"]]),
        ({"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_ID": "7"}, [0], [["GPU-bb"]]),  # one GPU: which is Slurm's to say
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_ID": "7"}, [1], [["GPU-bb"]]),
        ({"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_ID": "7"}, [0, 1], "Slurm gave this job 1 GPUs .* hardware.gpus wants 2"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "auto", "CUDA counts the fastest first .* set CUDA_DEVICE_ORDER=PCI_BUS_ID"),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, ["GPU-bb"], "CUDA counts the fastest first"),
    ],
)
def test_an_index_among_unlike_cards_is_never_guessed_at(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], gpus: object, wanted: list[list[str]] | str
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    queue = Queue(lab.home, "mine", HardwareSpec(gpus=gpus), Readings(UNLIKE))
    if isinstance(wanted, list):
        assert queue._wanted() == wanted
    else:
        with pytest.raises(UsageError, match=wanted):
            queue._wanted()


def test_one_mig_instance_is_a_gpu_like_any_other(lab: Lab):
    assert ask(lab, ["MIG-1b"], Gpus(devices=INSTANCES, at=1.0)).lease.uuids == ["MIG-1b"]
    assert ask(lab, [0], Gpus(devices=INSTANCES[:1], at=1.0), name="other").lease.uuids == ["MIG-1a"]


@pytest.mark.skipif(has_driver(), reason="this machine has GPUs")
def test_a_gpu_that_was_asked_for_and_is_not_there_is_never_replaced_by_the_cpu(lab: Lab):
    one = lab.session(gpus=[0])
    record = one.run()
    assert (record.status, record.started_at, record.ranks) == ("failed", None, [])
    assert "no GPU 0" in record.reason


def test_the_trainer_is_told_the_memory_of_the_smallest_of_its_cards():
    small = Gpu(index=2, uuid="GPU-dd", name="D", memory_total=12 * GIB)
    gauges = Readings(Gpus(devices=(EMPTY, FULL, small), at=1.0))
    gauges.uuids = ["GPU-aa", "GPU-bb"]
    assert gauges.card_memory() == 24 * GIB
    gauges.uuids = ["GPU-aa", "GPU-dd"]
    assert gauges.card_memory() == 12 * GIB
    gauges.uuids = []
    assert gauges.card_memory() == 0
