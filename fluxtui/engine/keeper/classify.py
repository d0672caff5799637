"""How a trainer ended, in words; what to change; whether it is tried again. Pure. The same for people: docs/recovery.md.

A reason is one sentence that a person can act on. Whatever ended without proof is never called completed here: `DONE` only
says that the proof may begin.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fluxtui.engine.remedies import LOWER_RATE, TAKES_LESS
from fluxtui.engine.wire import ECHO, TrainerExit

End = Literal["done", "stopped", "failed"]
Marker = Literal["", "FAILED", "CRASHED"]
Because = Literal["", "hung", "stop", "kill", "peer"]


@dataclass(frozen=True, slots=True)
class RankExit:
    """How one process left: by a code or by a signal, never both."""

    rank: int
    code: int | None = None
    signal: int | None = None
    ended_by_keeper: bool = False  # the signal was the keeper's own: says nothing about the process

    @property
    def signal_name(self) -> str:
        """`SIGKILL`; empty where it left by a code."""
        if self.signal is None:
            return ""
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"

    def words(self) -> str:
        return self.signal_name or f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the keeper saw beside the exit itself."""

    because: Because = ""  # why the keeper ended it, where it did
    hung: str = ""  # "in train for 301 s", where because is hung
    error: str = ""  # the last sentence the trainer sent before it left
    remedy: str = ""
    has_spoken: bool = True  # it sent at least one line
    last_log_line: str = ""
    out_of_memory: str = ""  # words of the kernel's OOM killer; empty: it killed nobody here
    shared_memory_full: bool = False
    peak_memory: int = 0  # bytes of host memory, the highest seen of one process
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the record will say, and whether another attempt may follow."""

    end: End
    reason: str = ""
    remedy: str = ""
    is_retried: bool = False
    marker: Marker = ""
    culprit: RankExit | None = None


_RESUME = "fluxtui resume {name} goes on from the last checkpoint"
_ANEW = "fluxtui resume {name} starts from step 0: there is no checkpoint yet"
KILLED = "killed by you"
_NO_WORKERS = "or with fewer processes: fluxtui resume {name} --set hardware.workers=0"
_SMALLER = f"make one that takes less: {TAKES_LESS}; fluxtui plan {{name}} shows what takes how much"

# code -> (what it is called where the trainer left no sentence, what to do, whether it is tried again)
_CODES: dict[int, tuple[str, str, bool]] = {
    TrainerExit.WRONG_PARENT: ("the trainer found itself without its keeper", _RESUME, False),
    TrainerExit.NON_FINITE: (
        "the loss or a gradient was not finite",
        LOWER_RATE,
        False,
    ),
    TrainerExit.DATA: (
        "the data set cannot be used",
        "fix what fluxtui check {data} names, then fluxtui resume {name}",
        False,
    ),
    TrainerExit.CONFIGURATION: ("the settings do not fit", "fix what the reason names, then fluxtui resume {name}", False),
    TrainerExit.GPU_MEMORY: ("the GPU's memory was not enough", _SMALLER, False),
    TrainerExit.STORAGE: (
        "the disk failed to keep what was written",
        "make room or fix the disk, then fluxtui resume {name}",
        False,
    ),
    TrainerExit.GPU_LOST: (
        "the GPU was lost",
        "fluxtui doctor; if the GPU stays away the machine needs a reboot, then fluxtui resume {name}",
        True,
    ),
    TrainerExit.DATA_WORKER: ("a data worker died", _RESUME, True),
    TrainerExit.HUNG: ("the trainer found itself hung", _RESUME, True),
    TrainerExit.PEER: (ECHO, _RESUME, True),
    TrainerExit.NETWORK: ("the network failed", "fluxtui resume {name} goes on with the download where it was", True),
}

_CANNOT_IMPORT = re.compile(
    r"No module named|ModuleNotFoundError|ImportError|cannot import name|cannot open shared object file|undefined symbol"
)


# who left because another did explains less than that other
_MILDER: dict[int | None, int] = {TrainerExit.PEER: 1, TrainerExit.STOPPED: 2, TrainerExit.DONE: 3}


def culprit(exits: Sequence[RankExit]) -> RankExit:
    """The rank whose end explains the others': one that left by itself, by a signal first, then who left first."""
    own = [one for one in exits if not one.ended_by_keeper] or list(exits)
    return min(own, key=lambda one: (_MILDER.get(one.code, 0), one.signal is None))


def classify(exits: Sequence[RankExit], seen: Evidence) -> Verdict:
    """The verdict on all ranks of one attempt. `exits` is in the order in which they left; at least one."""
    if seen.because == "kill":
        return Verdict("stopped", KILLED, _RESUME, culprit=culprit(exits))
    worst = culprit(exits)
    verdict = _hung(worst, seen) if seen.because == "hung" else _left(worst, seen)
    if len(exits) > 1 and verdict.end == "failed" and seen.because != "hung":
        verdict = _with_reason(verdict, f"rank {worst.rank}: {verdict.reason}")
    return _as_stopped(verdict) if seen.because == "stop" else verdict


def _hung(worst: RankExit, seen: Evidence) -> Verdict:
    if worst.code == TrainerExit.DONE and not worst.ended_by_keeper:
        return Verdict("done", culprit=worst)  # it ended well while its stack was being dumped; the proof decides
    reason = f"hung {seen.hung}" + (f"; {seen.error}" if seen.error else "")
    return Verdict("failed", reason, f"the stacks are in the log; {_RESUME}", True, "FAILED", worst)


def _left(worst: RankExit, seen: Evidence) -> Verdict:
    if worst.signal is not None:
        return _by_signal(worst, seen)
    assert worst.code is not None
    if worst.code == TrainerExit.DONE:
        return Verdict("done", culprit=worst)
    if worst.code == TrainerExit.STOPPED:
        return Verdict("stopped", seen.error or "stopped, with a checkpoint", seen.remedy or _RESUME, culprit=worst)
    if not seen.has_spoken and _CANNOT_IMPORT.search(seen.last_log_line):
        reason = f"the engine cannot start: {seen.last_log_line}"
        return Verdict(
            "failed", reason, "repair the installation (fluxtui doctor), then fluxtui resume {name}", False, "FAILED", worst
        )
    if worst.code == TrainerExit.DATA_WORKER and seen.out_of_memory:
        return _host_memory(worst, seen, "a data worker was")
    known = _CODES.get(worst.code)
    if known is not None:
        words, remedy, is_retried = known
        return Verdict("failed", seen.error or words, seen.remedy or remedy, is_retried, "FAILED", worst)
    words = seen.error or seen.last_log_line or "no word from the trainer"
    return Verdict("failed", f"exit code {worst.code}: {words}", seen.remedy or _RESUME, True, "FAILED", worst)


def _by_signal(worst: RankExit, seen: Evidence) -> Verdict:
    where = f" in {seen.phase}" if seen.phase else ""
    if worst.signal == signal.SIGKILL:
        if seen.out_of_memory:
            return _host_memory(worst, seen, "the trainer was")
        reason = f"killed by SIGKILL{where}, and not by the kernel for memory: something else on this machine ended it"
        return Verdict("failed", reason, _RESUME, True, "CRASHED", worst)
    reason = f"crashed by {worst.signal_name}{where}"
    remedy = f"its stack is in the log; {_RESUME}"
    if worst.signal == signal.SIGBUS:
        reason += (
            ": /dev/shm is full" if seen.shared_memory_full else ": a mapped file shrank, or shared memory or the disk is full"
        )
        remedy = f"make room in /dev/shm (a container's --shm-size), then {_RESUME}; {_NO_WORKERS}"
    if worst.signal == signal.SIGTERM:
        reason, remedy = f"ended by a SIGTERM{where} that was not the keeper's", _RESUME
    if seen.error and ECHO not in seen.error:
        reason += f": {seen.error}"
    return Verdict("failed", reason, remedy, True, "CRASHED", worst)


def _host_memory(worst: RankExit, seen: Evidence, who: str) -> Verdict:
    peak = f"; the trainer's peak was {seen.peak_memory / 2**30:.1f} GiB" if seen.peak_memory else ""
    reason = f"host memory: {who} killed by the kernel's OOM killer ({seen.out_of_memory}){peak}"
    remedy = f"free memory on this machine or give it more, then {_RESUME}; {_NO_WORKERS}"
    return Verdict("failed", reason, remedy, False, "CRASHED", worst)


def _as_stopped(verdict: Verdict) -> Verdict:
    """A stop was pending: what ended otherwise than well is still the user's stop, unless the trainer itself says why not."""
    worst = verdict.culprit
    assert worst is not None
    if verdict.end != "failed" or (worst.code in _CODES and not verdict.is_retried):
        return verdict
    how = f"it ended by itself on the way: {verdict.reason}"
    if worst.ended_by_keeper:
        early = worst.signal == signal.SIGTERM
        how = "before there was anything to keep" if early else "it did not finish in its time and was ended"
    return Verdict("stopped", f"stopped by you; {how}", _RESUME, culprit=worst)


def remedy_of(verdict: Verdict, name: str, checkpoint: str) -> str:
    """What to do, for this session; `checkpoint` is its newest that verifies, or empty."""
    remedy = verdict.remedy.replace("{name}", name)
    return remedy if checkpoint else remedy.replace(_RESUME.replace("{name}", name), _ANEW.replace("{name}", name))


def _with_reason(verdict: Verdict, reason: str) -> Verdict:
    return Verdict(verdict.end, reason, verdict.remedy, verdict.is_retried, verdict.marker, verdict.culprit)
