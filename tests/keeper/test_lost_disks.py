"""Faults 5 and 7 under a real keeper: the disk turns read-only under a session; the power is cut in its middle."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from keeper_lab import Keeper, Lab, Session, fast, until

from fluxtui.persist.checkpoints import commit
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from tests.faults import mounts

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def tools(needs):
    for tool in ("mount", "mkfs.ext4", "losetup", "e2fsck"):
        needs(tool)
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")


@contextmanager
def home_on(disk: Path, at: Path) -> Iterator[Lab]:
    """A lab whose home lies on the disk, and whose plan, log of errors and runtime folder do not."""
    lab = Lab(at, Home.open(disk / "home"))
    try:
        yield lab
    finally:
        lab.close()


def takes_writes(disk: Path) -> bool:
    try:
        (disk / "probe").write_bytes(b"x")
    except OSError:
        return False
    return True


def ended(one: Session, keeper: Keeper) -> None:
    keeper.process.kill()
    keeper.wait()
    until(lambda: not one.strays())


def test_5_a_disk_that_turns_read_only_under_a_session_completes_nothing_and_a_resume_is_exact(tmp_path: Path):
    """Its whole home lies there: no checkpoint can be committed, and no verdict be written."""
    image = mounts.make_ext4(tmp_path / "image", 16)
    with mounts.ext4(image, tmp_path / "disk", "errors=remount-ro") as disk, home_on(disk, tmp_path) as lab:
        lab.plan(step_seconds=0.05)
        one = lab.session(steps=60, every=10, guard=fast(auto_resume=False))
        keeper = one.start()
        record = one.await_step(15)
        Path("/sys/fs/ext4", mounts.loop_device(image), "trigger_fs_error").write_text("fault injected by a test of fluxtui")
        until(lambda: not takes_writes(disk))  # it happened
        until(lambda: not any(os.path.exists(f"/proc/{rank.pid}") for rank in record.ranks))  # it could not commit
        seen = overview.look(lab.home, "one")
        assert seen.state in ("running", "silent", "stalled")  # the record's last word: the verdict is owed
        assert keeper.process.poll() is None
        ended(one, keeper)
        seen = overview.look(lab.home, "one")
        assert (seen.state, seen.remedy) == ("lost", "fluxtui resume one")
        refused = one.start(may_fail=True)
        assert refused.wait() == 1
        assert "the disk is read-only; mount it writable" in refused.answer["error"] or "input/output" in refused.answer["error"]
    subprocess.run(["e2fsck", "-fy", image], capture_output=True, timeout=60)
    with mounts.ext4(image, tmp_path / "disk") as disk, home_on(disk, tmp_path) as lab:
        newest = commit.committed(one.folder.checkpoints)[-1]
        assert newest < "step-000000060", "the disk failed too late"
        record = Session(lab, one.folder, one.spec).run()
        assert (record.status, record.attempt) == ("completed", 2)
        assert record.resumed_from == newest


def test_7_after_a_power_cut_the_keeper_goes_on_from_the_newest_checkpoint_that_verifies(tmp_path: Path):
    image, copy = mounts.make_ext4(tmp_path / "image", 16), tmp_path / "copy"
    options = "data=writeback,commit=600"
    with mounts.ext4(image, tmp_path / "disk", options) as disk, home_on(disk, tmp_path) as lab:
        lab.plan({"at": 25, "do": "hang"}, step_seconds=0.02)
        one = lab.session(steps=60, every=10, guard=fast(step=600, first_steps=600))
        keeper = one.start()
        one.await_step(25)
        until(lambda: commit.committed(one.folder.checkpoints) == ["step-000000010", "step-000000020"])
        os.kill(keeper.pid, signal.SIGSTOP)  # nothing is written while the disk is copied
        mounts.cut_power(image, copy)
        os.kill(keeper.pid, signal.SIGCONT)
        ended(one, keeper)
    with mounts.ext4(copy, tmp_path / "disk", options) as disk, home_on(disk, tmp_path) as lab:
        seen = overview.look(lab.home, "one")
        assert (seen.state, seen.status in ("queued", "starting", "running")) == ("lost", True)
        there = commit.committed(one.folder.checkpoints)
        assert there[-1] == "step-000000020"  # it was committed, so it is there
        record = Session(lab, one.folder, one.spec).run()
        assert (record.status, record.attempt, record.resumed_from) == ("completed", 2, "step-000000020")
