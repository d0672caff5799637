"""What the machine says about an end (fault 25): only a kill for memory of just now, and of this group, explains one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from keeper_lab import Lab, fast, removed, until

from fluxtui.engine.keeper import evidence
from fluxtui.engine.keeper.evidence import RECENT, OutOfMemory

MEMORY = Path("/sys/fs/cgroup/memory")
NOBODY = 2**22 + 1  # no pid can be this large


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The oom_kill counter of the group's own cgroup; the kernel's log is not to be read."""
    file = tmp_path / "memory.events"
    file.write_text("oom 9\noom_kill 3\n")
    monkeypatch.setattr(evidence, "cgroup_file", lambda pid: file)
    monkeypatch.setattr(evidence, "_open_kmsg", lambda: -1)
    return file


def test_a_kill_for_memory_of_just_now_explains_an_end(counter: Path):
    seen = OutOfMemory()
    for now in range(0, 1000, 5):
        seen.look({NOBODY}, now)
    assert seen.words(1000) == ""
    counter.write_text("oom_kill 4\n")
    seen.look({NOBODY}, 1000)  # a look in the same turn, before the exit is noticed
    assert seen.words(1001) == f"its memory cgroup {counter.parent} counted it"


def test_a_kill_for_memory_of_hours_ago_explains_nothing(counter: Path):
    seen = OutOfMemory()
    seen.look({NOBODY}, 0)
    counter.write_text("oom_kill 4\n")
    for now in range(5, 3600, 5):
        seen.look({NOBODY}, now)
        if now > RECENT + 5:
            assert seen.words(now) == ""
    assert len(seen._seen) <= RECENT / 5 + 2  # bounded, however long it runs


def test_the_machines_counter_is_asked_only_where_nothing_nearer_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("oom_kill 1\n")
    monkeypatch.setattr(evidence, "_VMSTAT", vmstat)
    monkeypatch.setattr(evidence, "_open_kmsg", lambda: -1)
    monkeypatch.setattr(evidence, "cgroup_file", lambda pid: None)
    blind = OutOfMemory()
    blind.look({NOBODY}, 0)
    vmstat.write_text("oom_kill 2\n")
    assert blind.words(1) == "the machine ran out of memory"
    own = tmp_path / "memory.events"
    own.write_text("oom_kill 0\n")
    monkeypatch.setattr(evidence, "cgroup_file", lambda pid: own)
    seeing = OutOfMemory()
    seeing.look({NOBODY}, 0)
    vmstat.write_text("oom_kill 3\n")
    assert seeing.words(1) == ""


def test_the_kernels_log_names_a_process_of_ours_or_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evidence, "cgroup_file", lambda pid: None)
    for pid, words in ((NOBODY, "the kernel's log names it"), (NOBODY + 1, "")):
        log = tmp_path / f"kmsg-{pid}"
        log.write_text(f"6,1,2,-;Memory cgroup out of memory: Killed process {pid} (python) total-vm:1kB\n")
        monkeypatch.setattr(evidence, "_open_kmsg", lambda log=log: os.open(log, os.O_RDONLY))
        seen = OutOfMemory()
        seen._pids = {NOBODY}
        seen.look({NOBODY}, 0)
        assert seen.words(1) == words
        assert seen.words(1 + RECENT) == ""
        seen.close()


@pytest.mark.root
def test_25_a_kill_for_memory_of_somebody_else_does_not_explain_a_sigkill(lab: Lab, tmp_path: Path):
    """A stranger in a cgroup of its own runs out of memory while the trainer trains; then somebody kills the trainer."""
    group = MEMORY / f"fluxtui-test-{os.getpid()}-stranger"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(20 * 2**20))
        lab.plan(
            {"attempt": 1, "at": 12, "do": "wait_for", "reached": str(tmp_path / "in"), "until": str(tmp_path / "go")},
            {"attempt": 1, "at": 13, "do": "signal", "signal": "SIGKILL"},
        )
        one = lab.session(guard=fast(auto_resume=False))
        keeper = one.start()
        until((tmp_path / "in").exists)
        before = evidence._count(Path("/proc/vmstat"))
        eats = [sys.executable, "-S", "-c", "x = []\nwhile True: x.append(bytearray(b'x' * 2**20))"]
        stranger = subprocess.run(["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *eats], check=False)
        assert stranger.returncode == -9  # the fault happened
        assert evidence._count(Path("/proc/vmstat")) > before
        (tmp_path / "go").touch()
        keeper.wait()
        one.check()
        assert one.record().reason.startswith("killed by SIGKILL in train, and not by the kernel for memory")
    finally:
        until(lambda: removed(group), 10)
