"""Faults 12 and 13: a disk that does not answer, a disk that is slow, a machine that stands still. Slow is never hung."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from keeper_lab import SLOW, Lab, fast, removed, until

from fluxtui.persist import process
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from tests.faults import mounts

pytestmark = pytest.mark.root
FREEZER = Path("/sys/fs/cgroup/freezer")
FROZEN_SECONDS = max(20.0, 6.0 * SLOW)  # of wall time, and longer than any limit


@pytest.fixture(autouse=True)
def tools(needs):
    for tool in ("mount", "mkfs.ext4", "fsfreeze", "strace"):
        needs(tool)
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Reads pass, whoever writes waits in state D."""
    subprocess.run(["fsfreeze", "-f", folder], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", folder], check=True, timeout=60)


def shown(lab: Lab) -> overview.Overview:
    return overview.look(lab.home, "one")


def test_12_a_disk_that_does_not_answer_is_shown_as_storage_and_nobody_is_blamed(tmp_path: Path):
    """The whole home lies on it: the trainer waits in its checkpoint, the keeper in its record."""
    with mounts.ext4(mounts.make_ext4(tmp_path / "image", 16), tmp_path / "disk") as disk:
        lab = Lab(tmp_path, Home.open(disk / "home"))
        try:
            lab.plan(step_seconds=0.05)
            one = lab.session(steps=100_000)
            keeper = one.start()
            rank = one.await_step(12).ranks[0]
            with frozen(disk):
                for pid in (rank.pid, keeper.pid):
                    until(lambda pid=pid: process.state_letter(pid) == "D", what="in state D")  # the fault happened
                seen = until(lambda: (now := shown(lab)).state == "storage" and now, 30)
                assert "a disk that does not answer" in seen.reason
                assert "dmesg" in seen.remedy
                time.sleep(4 * SLOW)  # longer than every limit of this session
            until(lambda: shown(lab).state == "running")
            assert process.is_alive(rank)
            step = one.record().step
            one.await_step(step + 20)
            one.request("stop")
            keeper.wait()
            one.check()
            assert (one.record().status, one.attempts) == ("stopped", [1])
            assert "STUCK" not in one.log()
        finally:
            lab.close()


def test_12_a_kill_is_not_called_done_before_the_process_is_gone(lab: Lab, tmp_path: Path):
    """Only the checkpoints lie on the disk that does not answer: SIGKILL has been sent, and the trainer is still there."""
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=100_000)
    with mounts.ext4(mounts.make_ext4(tmp_path / "image", 16), one.folder.checkpoints):
        keeper = one.start()
        rank = one.await_step(12).ranks[0]
        with frozen(one.folder.checkpoints):
            until(lambda: process.state_letter(rank.pid) == "D")
            one.request("kill")
            until(lambda: "SIGKILL sent" in (seen := one.record()).amber and seen, 30)
            record = one.record()
            assert record.amber.endswith(f"{rank.pid} (state D)")
            assert record.status == "stopping"
            assert process.is_alive(rank)
            assert keeper.process.poll() is None
            assert "TRAINING STOPPED BY USER" not in one.log()
        keeper.wait()
        assert not process.is_alive(rank)
        one.check()
        assert (one.record().status, one.record().reason) == ("stopped", "killed by you")


def test_13_a_disk_that_is_slow_to_sync_is_amber_at_most(lab: Lab, tmp_path: Path, needs):
    lab.plan({"at": 8, "do": "wait_for", "reached": str(tmp_path / "in"), "until": str(tmp_path / "go")})
    one = lab.session(guard=fast(checkpoint=8))
    keeper = one.start()
    until((tmp_path / "in").exists)
    rank = one.record().ranks[0]
    delay = f"inject=fsync:delay_enter={int(1.2e6 * SLOW)}:when=1..5"
    trace = tmp_path / "trace"
    strace = subprocess.Popen([needs("strace"), "-T", "-o", trace, "-p", str(rank.pid), "-e", "trace=fsync", "-e", delay])
    until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{rank.pid}/status").read_text())
    (tmp_path / "go").touch()
    seen = until(lambda: one.record().amber, 30)
    assert seen.startswith("checkpoint for")
    keeper.wait(60)
    strace.wait(10)
    assert trace.read_text().count("(DELAYED)") == 5  # the fault happened
    one.check()
    assert (one.record().status, one.attempts) == ("completed", [1])
    assert "STUCK" not in one.log()


def test_13_a_machine_that_stands_still_is_no_hang(lab: Lab):
    """Keeper and trainer together in the freezer, for longer than any limit, as a suspended machine or a paused container."""
    group = FREEZER / f"fluxtui-test-{os.getpid()}"
    group.mkdir()
    state = group / "freezer.state"
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=100)
    try:
        keeper = one.start(wrap=["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"])
        one.await_step(12)
        state.write_text("FROZEN")
        until(lambda: state.read_text().strip() == "FROZEN")
        before = one.record().step
        time.sleep(FROZEN_SECONDS)
        assert one.record().step <= before + 1  # the fault happened: nothing moved
        state.write_text("THAWED")
        keeper.wait()
        one.check()
        assert (one.record().status, one.attempts) == ("completed", [1])
        assert "the keeper stood still for" in one.log()
        assert "STUCK" not in one.log()
    finally:
        state.write_text("THAWED")
        until(lambda: removed(group), 10)
