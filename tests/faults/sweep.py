"""Running a scenario under strace, once plainly to see its system calls, then with a fault at each single one of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.program import BEGIN, END, be_it

CHANGING = ("openat", "write", "fsync", "rename", "mkdir", "unlink", "unlinkat", "rmdir", "chmod", "fchmod")
READING = ("read", "pread64", "preadv2", "getdents64", "newfstatat", "fcntl", "lseek")
# What a scenario may call besides: nothing that changes a file (pwrite64 writes the test's own report).
HARMLESS = {"access", "pwrite64", "close", "getrandom", "mmap", "munmap", "mremap", "mprotect", "brk", "futex", "madvise"} | {
    "getpid", "geteuid", "getcwd", "readlink", "ioctl"
}  # fmt: skip
FAULTS = {
    "SIGKILL": "signal=KILL:when={n}",
    "SIGTERM": "signal=TERM:when={n}",
    "ENOSPC": "error=ENOSPC:when={n}",
    "EIO": "error=EIO:when={n}",
    "EIO for good": "error=EIO:when={n}+",
}
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended."""

    code: int  # negative: the signal
    report: tuple[str, ...]  # what the program said was done, line by line
    errors: str  # standard error
    trace: tuple[str, ...]  # strace's lines between the marks; to the end where it did not get to the second


class Traced:
    """A scenario in a process of its own under strace, begun by `go`.

    The process is forked off this one, so that a run costs no start of an interpreter, and stops itself before it begins;
    strace is attached then, so that the N of `when=N` counts the scenario's own calls only. Not with --seccomp-bpf, which
    is faster: with it, strace 6.1 injects no signals and says nothing.
    """

    def __init__(self, scenario: str, folder: Path, shown: str, inject: str | None = None, beside: Path | None = None) -> None:
        names = [(beside or folder).with_suffix(name) for name in (".trace", ".report", ".errors")]
        self._trace, self._report, self._errors = names
        for path in (self._trace, self._report, self._errors):
            path.write_bytes(b"")
        self.pid = os.fork()
        if self.pid == 0:
            be_it(scenario, folder, self._report, self._errors)
        os.waitpid(self.pid, os.WUNTRACED)
        options = ["-e", f"trace={shown}", *([] if inject is None else ["-e", f"inject={inject}"])]
        command = ["strace", "-y", "-s", "200", "-o", str(self._trace), *options, "-p", str(self.pid)]
        self._strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self._strace.stderr is not None
        said = self._strace.stderr.readline()
        assert "attached" in said, said

    def go(self) -> None:
        """Let it begin."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> Outcome:
        """Its end."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._strace.communicate(timeout=60)
        lines = self._trace.read_text(errors="replace").splitlines()
        first = next((number for number, line in enumerate(lines) if BEGIN in line), len(lines))
        last = next((number for number, line in enumerate(lines) if END in line), len(lines))
        return Outcome(code, self.report(), self._errors.read_text(), tuple(lines[first + 1 : last]))

    def report(self) -> tuple[str, ...]:
        """What it said so far."""
        return tuple(self._report.read_text().splitlines())

    def is_stopped(self) -> bool:
        """Whether an injected SIGSTOP has struck: one after the beginning, since it stopped itself before."""
        return "--- stopped by SIGSTOP ---" in self._trace.read_text(errors="replace").partition(BEGIN)[2]

    def has_ended(self) -> bool:
        """Whether strace has seen its end."""
        return self._strace.poll() is not None

    def kill(self) -> None:
        """End it where it stands."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._strace.communicate(timeout=60)


def run(scenario: str, folder: Path, shown: str, inject: str | None = None) -> Outcome:
    """One run from beginning to end. `shown` and `inject` are strace's expressions."""
    traced = Traced(scenario, folder, shown, inject)
    traced.go()
    return traced.wait()


def call_of(line: str) -> str:
    """The name of the system call of a line of strace; empty for its other lines."""
    match = _CALL.match(line)
    return match[1] if match else ""


def survey(scenario: str, prepared: Path, work: Path, calls: tuple[str, ...]) -> Counter[str]:
    """How many calls of each name the scenario makes, from an undisturbed run: the points that can be struck."""
    outcome = run(scenario, fresh(prepared, work), ",".join(("access", *calls)))
    assert outcome.code == 0, outcome
    return Counter(name for line in outcome.trace if (name := call_of(line)) in calls)


def all_calls(scenario: str, prepared: Path, work: Path) -> set[str]:
    """The names of all system calls between the marks."""
    outcome = run(scenario, fresh(prepared, work), "all")
    assert outcome.code == 0, outcome
    return {name for line in outcome.trace if (name := call_of(line))}


def strike(scenario: str, prepared: Path, work: Path, call: str, fault: str, number: int) -> Outcome:
    """One run with one fault at the N-th call of that name."""
    return run(scenario, fresh(prepared, work), f"access,{call}", f"{call}:{FAULTS[fault].format(n=number)}")


def fresh(prepared: Path, work: Path) -> Path:
    """A copy of the prepared folder at `work`, in place of what the run before left."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(prepared, work, symlinks=True)
    return work


def was_struck(outcome: Outcome, call: str, fault: str) -> bool:
    """Whether the fault happened in this run, at such a call, after the scenario had begun."""
    if fault == "SIGKILL":
        return outcome.code == -9 and any("+++ killed by SIGKILL" in line for line in outcome.trace)
    if fault == "SIGTERM":
        return any("SIGTERM" in line for line in outcome.trace)
    return any("(INJECTED)" in line and call_of(line) == call for line in outcome.trace)
