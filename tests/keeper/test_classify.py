"""The table of ends (docs/recovery.md): a code or signal, and what was seen beside it, to words and a retry."""

from __future__ import annotations

import signal

import pytest

from fluxtui.engine.keeper.classify import Evidence, RankExit, classify, remedy_of
from fluxtui.engine.wire import ECHO, TrainerExit

SEEN = Evidence(phase="train")


@pytest.mark.parametrize(
    ("code", "end", "is_retried", "words"),
    [
        (0, "done", False, ""),
        (75, "stopped", False, "stopped, with a checkpoint"),
        (70, "failed", False, "without its keeper"),
        (76, "failed", False, "not finite"),
        (77, "failed", False, "data set"),
        (78, "failed", False, "settings"),
        (79, "failed", False, "GPU's memory"),
        (80, "failed", False, "disk"),
        (81, "failed", True, "GPU was lost"),
        (82, "failed", True, "data worker"),
        (83, "failed", True, "hung"),
        (1, "failed", True, "exit code 1"),
        (17, "failed", True, "exit code 17"),
        (255, "failed", True, "exit code 255"),
    ],
)
def test_every_code_has_its_words_and_its_retry(code, end, is_retried, words):
    verdict = classify([RankExit(0, code=code)], SEEN)
    assert (verdict.end, verdict.is_retried) == (end, is_retried)
    assert words in verdict.reason
    assert verdict.remedy or end == "done"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGTERM"])
def test_every_signal_is_named_and_tried_again(name):
    verdict = classify([RankExit(0, signal=getattr(signal, name))], SEEN)
    assert (verdict.end, verdict.is_retried, verdict.marker) == ("failed", True, "CRASHED")
    assert name in verdict.reason
    assert "in train" in verdict.reason


@pytest.mark.parametrize(
    "seen",
    [Evidence(because="kill"), Evidence(remedy="see the log; fluxtui resume a goes on from the last checkpoint")],
)
def test_no_remedy_speaks_of_a_checkpoint_that_is_not_there(seen):
    verdict = classify([RankExit(0, code=1)], seen)
    assert remedy_of(verdict, "a", "step-000000100").endswith("fluxtui resume a goes on from the last checkpoint")
    assert remedy_of(verdict, "a", "").endswith("fluxtui resume a starts from step 0: there is no checkpoint yet")


def test_the_oom_killer_is_named_with_the_peak_and_not_tried_again():
    seen = Evidence(out_of_memory="its memory cgroup /x was at its limit", peak_memory=3 * 2**30)
    verdict = classify([RankExit(0, signal=signal.SIGKILL)], seen)
    assert (verdict.end, verdict.is_retried) == ("failed", False)
    assert "OOM killer" in verdict.reason
    assert "3.0 GiB" in verdict.reason
    assert "hardware.workers=0" in verdict.remedy


def test_a_data_worker_ended_by_the_oom_killer_is_host_memory():
    verdict = classify([RankExit(0, code=82)], Evidence(out_of_memory="the kernel's log names it"))
    assert verdict.reason.startswith("host memory: a data worker")
    assert not verdict.is_retried


def test_an_oom_of_somebody_else_does_not_explain_a_segfault():
    verdict = classify([RankExit(0, signal=signal.SIGSEGV)], Evidence(out_of_memory="the machine ran out of memory"))
    assert "memory" not in verdict.reason
    assert verdict.is_retried


def test_sigbus_with_a_full_shared_memory_is_explained():
    verdict = classify([RankExit(0, signal=signal.SIGBUS)], Evidence(shared_memory_full=True))
    assert "/dev/shm is full" in verdict.reason
    assert "shm-size" in verdict.remedy


@pytest.mark.parametrize(
    "line",
    [
        "ModuleNotFoundError: No module named 'torch'",
        "/usr/bin/python: No module named fluxtui.engine",
        "ImportError: libcudart.so.12",
    ],
)
def test_what_cannot_be_imported_is_said_and_not_tried_again(line):
    verdict = classify([RankExit(0, code=1)], Evidence(has_spoken=False, last_log_line=line))
    assert verdict.reason == f"the engine cannot start: {line}"
    assert not verdict.is_retried
    assert classify([RankExit(0, code=1)], Evidence(has_spoken=True, last_log_line=line)).is_retried


def test_the_trainers_own_sentence_comes_first():
    verdict = classify([RankExit(0, code=76)], Evidence(error="the loss is NaN at step 12", remedy="halve it"))
    assert (verdict.reason, verdict.remedy) == ("the loss is NaN at step 12", "halve it")


def test_hung_is_retried_whatever_the_process_then_died_of_and_done_stays_done():
    seen = Evidence(because="hung", hung="in train for 301 s")
    for left in (RankExit(0, signal=9, ended_by_keeper=True), RankExit(0, code=75), RankExit(0, signal=11)):
        verdict = classify([left], seen)
        assert (verdict.end, verdict.is_retried) == ("failed", True)
        assert verdict.reason.startswith("hung in train for 301 s")
    assert classify([RankExit(0, code=0)], seen).end == "done"


def test_kill_is_stopped_by_you():
    verdict = classify([RankExit(0, signal=9, ended_by_keeper=True)], Evidence(because="kill"))
    assert (verdict.end, verdict.is_retried, verdict.reason) == ("stopped", False, "killed by you")


@pytest.mark.parametrize(
    ("left", "end"),
    [
        (RankExit(0, code=75), "stopped"),
        (RankExit(0, code=0), "done"),  # proof wins over a pending stop
        (RankExit(0, signal=9, ended_by_keeper=True), "stopped"),
        (RankExit(0, signal=11), "stopped"),
        (RankExit(0, code=1), "stopped"),
        (RankExit(0, code=82), "stopped"),  # what would be tried again is not, and counts as the stop that was asked
        (RankExit(0, code=76), "failed"),  # the user must know that it diverged
        (RankExit(0, code=80), "failed"),  # ... or that the checkpoint could not be kept
    ],
)
def test_what_ends_while_a_stop_is_pending(left, end):
    verdict = classify([left], Evidence(because="stop"))
    assert verdict.end == end
    assert not verdict.is_retried


def test_of_several_ranks_the_one_that_explains_is_named():
    crashed = RankExit(1, signal=signal.SIGSEGV)
    follows = RankExit(0, code=1)  # the other end of the broken connection
    ended = RankExit(2, signal=9, ended_by_keeper=True)
    for order in ([follows, crashed, ended], [crashed, follows, ended]):
        verdict = classify(order, SEEN)
        assert verdict.culprit is crashed
        assert verdict.reason == "rank 1: crashed by SIGSEGV in train"
    first = [RankExit(1, code=82), RankExit(0, code=1)]
    assert classify(first, SEEN).culprit is first[0]
    assert classify([RankExit(0, code=0), RankExit(1, code=0)], SEEN).end == "done"
    assert classify([RankExit(0, code=0), RankExit(1, code=3)], SEEN).end == "failed"


def test_a_rank_that_lost_its_connection_is_never_named_where_another_explains_it():
    echo, cause = RankExit(0, code=TrainerExit.PEER), RankExit(1, code=1)
    assert classify([echo, cause], Evidence(error="ValueError: x")).reason.startswith("rank 1: ")
    crashed = classify([echo, RankExit(1, signal=signal.SIGSEGV)], Evidence(error=f"rank 0: {ECHO}: closed by peer"))
    assert crashed.reason == "rank 1: crashed by SIGSEGV"
    alone = classify([echo], Evidence())
    assert (alone.reason, alone.is_retried) == ("the connection to the other ranks broke", True)
