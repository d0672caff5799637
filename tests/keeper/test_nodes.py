"""One session on several machines: keepers that know each other by files alone. Here all on one, with the stand-in trainer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from keeper_lab import Keeper, Lab, Session, fast, until

from fluxtui.engine.keeper.clock import wall
from fluxtui.engine.keeper.machines.messages import Call, NodeFolder, NodeRecord, call_file
from fluxtui.engine.wire import TrainJob
from fluxtui.persist import process
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import toml
from fluxtui.persist.settings.spec import HardwareSpec


def join(session: Session, node: int, may_fail: bool = False, **environment: str) -> Keeper:
    """`fluxtui join`, as far as its keeper."""
    command = [sys.executable, "-m", "fluxtui.engine", "join", "--home", str(session.lab.home.root)]
    started = subprocess.Popen(
        [*command, "--session", session.folder.name, "--node", str(node)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=session.lab.errors, env=session.lab.environment(environment), cwd="/", start_new_session=True,
    )  # fmt: skip
    session.lab.keepers.append(started)
    assert started.stdout is not None
    line = started.stdout.readline()
    started.stdout.close()
    answer = json.loads(line)
    assert may_fail or answer["ok"], answer
    return Keeper(started, answer)


def node_record(session: Session, node: int = 1) -> NodeRecord:
    return toml.read(NodeFolder(session.folder.path, node).attempt_file(0), NodeRecord)


def log_of(session: Session, node: int = 1) -> str:
    return NodeFolder(session.folder.path, node).log_file.read_text()


@pytest.fixture
def two(lab: Lab) -> Session:
    lab.extra = {"FLUXTUI_RUN_ID": "-"}
    return lab.session(steps=2000, nodes=2, rendezvous="127.0.0.1", guard=fast(max_auto_resumes=0, node=5))


def test_ranks_are_numbered_over_the_machines_and_all_end_with_the_proof(lab: Lab) -> None:
    lab.plan(step_seconds=0.05)
    session = lab.session(steps=30, nodes=3, ranks=2, rendezvous="127.0.0.1")
    others = [join(session, 1), join(session, 2)]
    keeper = session.start()
    assert keeper.wait() == 0
    assert [other.wait() for other in others] == [0, 0], log_of(session)
    record = session.record()
    assert record.status == "completed", record.reason
    assert record.nodes == [socket.gethostname()] * 3
    assert "6 ranks" in session.log()
    said = [session.log(), log_of(session, 1), log_of(session, 2)]
    assert [sorted(line.split()[-1] for line in text.splitlines() if line.startswith("standin")) for text in said] == [
        ["0", "1"], ["2", "3"], ["4", "5"],
    ]  # fmt: skip
    session.check()


def test_a_rank_killed_on_another_machine_ends_all_and_is_named_and_both_try_again(lab: Lab) -> None:
    lab.plan(step_seconds=0.05)
    session = lab.session(steps=60, nodes=2, rendezvous="127.0.0.1")
    other, keeper = join(session, 1), session.start()
    session.await_step(12)
    rank = until(lambda: node_record(session).ranks)[0]
    assert process.send(rank, signal.SIGKILL)
    assert keeper.wait() == 0
    assert other.wait() == 0
    first, second = session.records()
    assert (first.status, first.signal) == ("failed", "SIGKILL")
    assert first.reason.startswith(f"rank 1 (node 1, {socket.gethostname()}): killed by SIGKILL"), first.reason
    assert "nodes/1.log" in first.remedy
    assert second.status == "completed", "the other machine joined the next attempt by itself"
    session.check()


@pytest.fixture
def retried(lab: Lab) -> Session:
    lab.extra = {"FLUXTUI_RUN_ID": "-"}
    return lab.session(steps=2000, nodes=2, rendezvous="127.0.0.1", guard=fast(max_auto_resumes=1, node=3, start=3600))


def test_the_keeper_of_another_machine_is_killed_and_neither_that_attempt_nor_the_next_waits_for_it(retried: Session) -> None:
    other, keeper = join(retried, 1), retried.start()
    retried.await_step(5)
    rank = until(lambda: node_record(retried).ranks)[0]
    other.process.kill()
    assert keeper.wait() == 0
    for record in retried.records():
        assert record.status == "failed"
        assert record.reason.startswith(f"node 1, {socket.gethostname()}: its keeper is gone"), record.reason
        assert "fluxtui join one --node 1" in record.remedy
    assert (len(retried.records()), record.started_at) == (2, None)
    assert not process.is_alive(rank)
    retried.check()


def test_node_0s_keeper_is_killed_and_nothing_is_left_on_any_machine(two: Session) -> None:
    other, keeper = join(two, 1), two.start()
    two.await_step(5)
    rank = until(lambda: node_record(two).ranks)[0]
    keeper.process.kill()
    assert other.wait() == 1
    assert not process.is_alive(rank)
    assert "node 0" in node_record(two).reason
    assert "its keeper is gone" in log_of(two)
    two.check()


def test_a_keeper_that_stands_still_counts_as_lost_by_the_readers_own_watch_and_a_retry_waits_no_longer(retried: Session) -> None:
    other, keeper = join(retried, 1), retried.start()
    retried.await_step(5)
    os.kill(other.pid, signal.SIGSTOP)
    assert keeper.wait() == 0
    assert len(retried.records()) == 2
    for record in retried.records():
        assert record.status == "failed"
        assert "no sign of life from its keeper for" in record.reason
    os.kill(other.pid, signal.SIGCONT)
    assert other.wait() in (0, 1)
    assert not any(process.is_alive(rank) for rank in node_record(retried).ranks)
    retried.check()


def test_a_hang_on_one_machine_is_judged_over_all_and_its_stacks_are_in_that_machines_log(lab: Lab) -> None:
    lab.plan({"at": 7, "do": "hang", "rank": 1}, {"at": 7, "do": "hang", "rank": 0})
    session = lab.session(steps=60, nodes=2, rendezvous="127.0.0.1", guard=fast(max_auto_resumes=0))
    other, keeper = join(session, 1), session.start()
    assert keeper.wait() == 0
    assert other.wait() == 0
    reason = session.record().reason
    assert reason.startswith("hung"), reason
    assert f"rank 1 (node 1, {socket.gethostname()}) in" in reason
    assert "do_hang" in log_of(session)
    session.check()


def test_a_machine_that_is_asked_to_leave_stops_the_session_with_a_checkpoint(two: Session) -> None:
    other, keeper = join(two, 1), two.start()
    two.await_step(5)
    os.kill(other.pid, signal.SIGTERM)
    assert keeper.wait() == 0
    assert other.wait() == 0
    record = two.record()
    assert record.status == "stopped", record.reason
    assert record.checkpoint
    two.check()


def test_stop_and_kill_reach_every_machine(two: Session) -> None:
    other, keeper = join(two, 1), two.start()
    two.await_step(5)
    two.request("stop")
    assert keeper.wait() == 0
    assert two.record().status == "stopped"
    assert other.wait() == 0, "the session's keeper has left, and so it leaves"
    other, keeper = join(two, 1), two.start("--resume", "auto")
    two.await_step(two.record(1).step + 5)
    rank = until(lambda: node_record(two).ranks)[0]
    two.request("kill")
    assert keeper.wait() == 0
    assert other.wait() == 0
    assert two.record().reason == "killed by you"
    assert not process.is_alive(rank)
    two.check()


def test_a_machine_that_never_joins_is_named_and_a_stop_does_not_wait_for_it(two: Session, lab: Lab) -> None:
    keeper = two.start()
    until(lambda: two.record().waiting_for == "node 1 to join")
    two.request("stop")
    assert keeper.wait() == 0
    assert two.record().status == "stopped"
    alone = lab.session("alone", nodes=2, guard=fast(start=1))
    alone.start().wait()
    assert alone.record().reason == f"node 1 did not join within {alone.spec.guard.start:.0f} s"
    assert "fluxtui join alone --node 1" in alone.record().remedy


def test_a_machine_that_has_not_the_gpu_asked_for_says_so_before_anything_is_trained(lab: Lab) -> None:
    session = lab.session("alone", nodes=2, rendezvous="127.0.0.1")
    other = join(session, 1)
    call = Call(
        attempt=1, run_id="r", host="there", beat_at=wall(), stage="gather",
        job=TrainJob(
            home=str(lab.home.root), session=str(session.folder.path), attempt=1, nonce="n", run_id="r", recipe_sha256="",
            spec=msgspec.structs.replace(session.spec, hardware=HardwareSpec(gpus=[7], nodes=2)), threads=1,
        ),
    )  # fmt: skip
    toml.write(call_file(session.folder), call)

    def ended() -> NodeRecord | None:
        try:
            found = node_record(session)
        except FluxTUIError:
            return None
        return found if found.end else None

    record = until(ended)
    assert (record.end, record.run_id) == ("failed", "r"), "so that node 0 hears of it"
    assert "has no GPU 7" in record.reason
    os.kill(other.pid, signal.SIGTERM)
    assert other.wait() == 0


def test_the_ranks_of_each_machine_are_told_the_memory_of_its_own_cards(lab: Lab, library: Path) -> None:
    lab.plan(step_seconds=0.02)
    session = lab.session(steps=10, nodes=2, rendezvous="127.0.0.1", gpus=[1, 0])
    drivers = []
    for node, settings in enumerate(("gpus=2\ngib0=80\ngib1=48\n", "gpus=2\ngib0=24\ngib1=40\n")):
        file = lab.path / f"driver-{node}"
        file.write_text(settings)
        own = {"FLUXTUI_RUNTIME": str(lab.path / f"runtime-{node}")}  # of another machine: it has GPUs and locks of its own
        drivers.append({"LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(file)} | own)
    other, keeper = join(session, 1, **drivers[1]), session.start(**drivers[0])
    assert keeper.wait() == 0
    assert other.wait() == 0, log_of(session)
    record = session.record()
    assert (record.status, record.gpus) == ("completed", ["GPU-2", "GPU-1"]), record.reason
    for text, gib in ((session.log(), 48), (log_of(session), 24)):
        said = [line for line in text.splitlines() if line.startswith("card of")]
        assert said == [f"card of {gib << 30}, sees GPU-2,GPU-1"] * 2, text
    session.check()


def test_a_node_joins_once_and_only_a_session_that_has_it(two: Session) -> None:
    first = join(two, 1)
    assert "joined already" in join(two, 1, may_fail=True).answer["error"]
    assert "node 0 is where" in join(two, 0, may_fail=True).answer["error"]
    assert not call_file(two.folder).exists(), "it writes nothing of the session"
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait() == 0
