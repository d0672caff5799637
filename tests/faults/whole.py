"""The whole trainer under strace: real model, real data, a fault at the N-th system call of a name."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass

from fluxtui.engine import wire
from fluxtui.persist.sessions.record import Phase
from tests.faults.sweep import FAULTS
from tests.trainer.job import Bench

CALLS = ("fsync", "rename", "mkdir", "rmdir", "unlink", "unlinkat", "write", "openat")
_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)")


@dataclass(frozen=True, slots=True)
class Struck:
    """How a trainer under strace ended."""

    code: int
    log: str
    trace: tuple[str, ...]

    def has(self, call: str, fault: str) -> bool:
        """Whether the fault happened in it."""
        if fault == "SIGKILL":
            return self.code == -9
        return any("(INJECTED)" in line and _name(line) == call for line in self.trace)


def survey(bench: Bench) -> Counter[str]:
    """How many calls of each name a thread makes at the most from the first step to the end; strace counts by thread."""
    struck = run(bench, f"trace={','.join(CALLS)}")
    assert struck.code == wire.TrainerExit.DONE, struck.log
    counts = Counter(
        line.split()[0] + " " + _name(line) for line in struck.trace if "resumed>" not in line and _name(line) in CALLS
    )
    found: Counter[str] = Counter()
    for key, count in counts.items():
        call = key.partition(" ")[2]
        found[call] = max(found[call], count)
    return found


def strike(bench: Bench, call: str, fault: str, number: int) -> Struck:
    """One attempt with a fault at the N-th such call of any of its threads, counted from its first step."""
    return run(bench, f"trace={call}", f"inject={call}:{FAULTS[fault].format(n=number)}")


def run(bench: Bench, *expressions: str) -> Struck:
    """One attempt, under strace from the moment when training begins: what is imported before is not what is struck."""
    trace = bench.root / "trace"
    running = bench.start()
    with running.changed:
        running.changed.wait_for(
            lambda: any(line.phase is Phase.TRAIN for line in running.lines) or not running.is_running, timeout=120
        )
    running.signal(signal.SIGSTOP)
    options = [word for expression in expressions for word in ("-e", expression)]
    command = ["strace", "-f", "-o", str(trace), *options, "-p", str(running.processes[0].pid)]
    strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    said = strace.stderr.readline()
    running.signal(signal.SIGCONT)
    ended = running.wait()
    strace.communicate(timeout=60)
    assert "attached" in said, (said, ended.log)
    return Struck(ended.code, ended.log, tuple(trace.read_text(errors="replace").splitlines()))


def _name(line: str) -> str:
    match = _CALL.match(line)
    return match[1] if match else ""
