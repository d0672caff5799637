"""The table of guards (docs/guards.md), as arithmetic: observations in, verdict out."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fluxtui.engine.keeper.guard import LOAD_AT_MOST, RULES, RankGuard, Spans, StopGuard, limits
from fluxtui.engine.keeper.machines import group_guard
from fluxtui.engine.wire import ProgressLine
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings.spec import GuardSpec

DEFAULT = GuardSpec()


def seen(*seconds: float) -> Spans:
    spans = Spans()
    for one in seconds:
        spans.add(one)
    return spans


@pytest.mark.parametrize(
    ("kind", "waits", "amber", "kill"),
    [
        ("start", [], 30, 300),
        ("download", [], 60, 300),
        ("load", [], 60, 600),
        ("encode", [], 60, 300),
        ("encode", [1.0] * 20, 60, 300),
        ("encode", [20.0] * 20, 200, 600),
        ("cache", [20.0] * 20, 200, 600),
        ("batch", [], 30, 300),
        ("batch", [12.0] * 20, 120, 360),
        ("first_steps", [99.0] * 3, 300, 1800),
        ("step", [], 30, 300),
        ("step", [7.0] * 20, 35, 300),
        ("step", [40.0] * 20, 200, 800),
        ("step", [40.0] * 18 + [400.0, 400.0], 2000, 8000),  # p95 of 20 is the 19th
        ("step", [40.0] * 19 + [400.0], 200, 800),
        ("checkpoint", [5.0, 100.0, 7.0], 500, 1000),
        ("sample", [5.0, 100.0, 7.0], 500, 1000),
        ("validate", [], 60, 600),
        ("export", [30.0], 150, 600),
        ("prove", [], 60, 600),
    ],
)
def test_limits_follow_the_table(kind, waits, amber, kill):
    found = limits(kind, DEFAULT, seen(*waits))
    assert (found.amber, found.kill) == (amber, kill)


@pytest.mark.parametrize("kind", list(RULES))
def test_a_floor_of_zero_never_kills_and_still_shows_amber(kind):
    floors = replace(DEFAULT, **{RULES[kind].floor: 0.0})
    found = limits(kind, floors, seen(1.0))
    assert found.kill is None
    assert found.amber > 0


@pytest.mark.parametrize("kind", list(RULES))
def test_limits_grow_with_what_is_seen_and_never_fall_below_the_floor(kind):
    spans = Spans()
    last = limits(kind, DEFAULT, spans)
    for wait in (0.01, 1.0, 100.0, 1000.0):
        for _ in range(600):
            spans.add(wait)
        now = limits(kind, DEFAULT, spans)
        assert now.kill >= last.kill >= getattr(DEFAULT, RULES[kind].floor)
        assert now.amber < now.kill
        last = now


@pytest.mark.parametrize("kind", list(RULES))
def test_amber_comes_before_the_end_below_a_small_floor_too(kind):
    floor = RULES[kind].amber / 2
    found = limits(kind, replace(DEFAULT, **{RULES[kind].floor: floor}), Spans())
    assert (found.amber, found.kill) == (floor / 2, floor)


def test_spans_keep_the_last_512_and_the_longest_ever():
    spans = seen(*[900.0] * 600, *[1.0] * 512)
    assert spans.p95() == 1.0
    assert spans.longest == 900.0


def guard_in(phase: Phase | None, **line) -> RankGuard:
    guard = RankGuard(DEFAULT, since=0.0)
    guard.heard(0.0, ProgressLine(phase=phase, **line))
    return guard


def trained(steps: int, seconds: float = 1.0) -> RankGuard:
    """A rank that has done so many steps, each of so many seconds, the last one now."""
    guard = guard_in(Phase.TRAIN, step=100)
    for number in range(1, steps + 1):
        guard.heard(number * seconds, ProgressLine(phase=Phase.TRAIN, step=100 + number))
    return guard


def test_before_its_first_line_a_process_is_starting():
    guard = RankGuard(DEFAULT, since=10.0)
    assert not guard.judge(310.0).is_hung
    assert guard.judge(310.1).is_hung
    assert guard.judge(310.1).kind == "start"


def test_the_first_five_steps_of_a_process_may_take_longer():
    guard = trained(4, 100.0)
    assert guard.judge(400.0).kind == "first_steps"
    assert not guard.judge(2200.0).is_hung
    assert guard.judge(2200.1).is_hung
    guard = trained(5, 10.0)
    assert guard.judge(50.0).kind == "step"
    assert guard.judge(350.1).is_hung


def test_after_the_first_steps_the_shortest_of_them_is_the_measure():
    guard = RankGuard(DEFAULT, since=0.0)
    now = 0.0
    for step, seconds in enumerate([0.0, 1700.0, 400.0, 420.0, 400.0, 410.0]):  # kernels are compiled in the first
        now += seconds
        guard.heard(now, ProgressLine(phase=Phase.TRAIN, step=step))
        assert guard.longest_step == (1700.0 if 0 < step < 5 else 400.0 if step else 0.0)
    assert guard.judge(now).kind == "step"
    assert not guard.judge(now + 410).is_hung
    assert not guard.judge(now + 7999).is_hung
    assert guard.judge(now + 8001).is_hung


def test_a_step_limit_grows_with_the_steps():
    guard = trained(45, 30.0)
    now = 45 * 30.0
    assert not guard.judge(now + 599).is_hung
    assert guard.judge(now + 601).is_hung
    assert guard.judge(now + 151).is_amber
    assert not guard.judge(now + 149).is_amber


def test_alive_is_no_progress_but_explains():
    guard = trained(10)
    for second in range(10, 400, 5):
        assert not guard.heard(float(second), ProgressLine(alive=True))
    judged = guard.judge(396.0)
    assert judged.is_hung
    assert judged.ticked == 1.0
    assert "other threads still run" in group_guard.judge({0: guard}, 396.0).hung_words()


def test_silence_of_the_ticking_thread_is_said():
    guard = trained(10)
    assert "not even a tick for 390 s" in group_guard.judge({0: guard}, 400.0).hung_words()


def test_the_same_line_again_is_no_progress():
    guard = trained(10)
    for second in range(10, 400):
        guard.heard(float(second), ProgressLine(phase=Phase.TRAIN, step=110))
    assert guard.judge(400.0).is_hung


def test_waiting_for_a_batch_has_its_own_limit_and_ends_with_the_batch():
    guard = trained(10)
    guard.heard(10.5, ProgressLine(phase=Phase.TRAIN, step=110, waiting="batch"))
    assert guard.judge(11.0).kind == "batch"
    assert guard.judge(310.6).is_hung
    guard.heard(11.0, ProgressLine(phase=Phase.TRAIN, step=110))
    assert guard.judge(11.0).kind == "step"
    assert guard.judge(11.0).waited == 0.0


def test_each_batch_is_progress_within_a_step():
    guard = trained(10)
    for micro in range(40):
        assert guard.heard(10.0 + micro, ProgressLine(phase=Phase.TRAIN, step=110, waiting="batch", item=micro))
        assert guard.heard(10.5 + micro, ProgressLine(phase=Phase.TRAIN, step=110, item=micro))


@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        (Phase.PREFLIGHT, "start"), (Phase.DOWNLOAD, "download"), (Phase.LOAD, "load"), (Phase.ENCODE, "encode"),
        (Phase.CACHE, "cache"),
        (Phase.VALIDATE, "validate"), (Phase.SAMPLE, "sample"), (Phase.CHECKPOINT, "checkpoint"), (Phase.EXPORT, "export"),
        (Phase.PROVE, "prove"), (Phase.TRAIN, "first_steps"),
    ],
)  # fmt: skip
def test_every_phase_has_its_row(phase, kind):
    assert guard_in(phase).kind == kind


def test_a_busy_load_is_given_an_hour_and_not_more():
    guard = guard_in(Phase.LOAD)
    cpu = 0.0
    for second in range(0, 3700, 10):
        cpu += 5.0
        guard.activity.seen(float(second), cpu, 0)
        assert guard.judge(float(second)).is_hung == (second > LOAD_AT_MOST)
    assert second > LOAD_AT_MOST


def test_a_load_that_reads_bytes_is_busy_and_one_that_only_ticks_is_not():
    for cpu, read, is_hung in ((0.0, 10 * 2**20, False), (0.02, 0, False), (0.001, 100, True)):
        guard = guard_in(Phase.LOAD)
        for second in range(0, 700, 1):
            guard.activity.seen(float(second), cpu * second, read * second)
        assert guard.judge(699.0).is_hung == is_hung


def test_a_step_is_not_extended_by_burning_cpu():
    guard = trained(10)
    for second in range(10, 400):
        guard.activity.seen(float(second), float(second), second * 10**9)
    assert guard.judge(399.0).is_hung


def test_a_group_is_hung_only_when_every_rank_is():
    slow, sampling = trained(10), trained(10)
    sampling.heard(10.0, ProgressLine(phase=Phase.SAMPLE, item=0))
    ranks = {0: sampling, 1: slow}
    assert slow.judge(400.0).is_hung
    assert not group_guard.judge(ranks, 400.0).is_hung  # rank 1 waits for the samples of rank 0
    judged = group_guard.judge(ranks, 620.0)
    assert judged.is_hung
    assert "rank 0 in sample for 610 s" in judged.hung_words()
    assert "rank 1 in train for 610 s" in judged.hung_words()


def test_a_rank_that_never_spoke_is_judged_by_rank_0():
    ranks = {0: trained(10), 1: RankGuard(DEFAULT, since=0.0)}
    assert not group_guard.judge(ranks, 309.0).is_hung
    judged = group_guard.judge(ranks, 311.0)
    assert judged.is_hung
    assert judged.hung_words().endswith("; rank 1 never said a word")


def loading(ticked: float | None, busy_until: float) -> RankGuard:
    """A rank in load since second 5, at work until then as far as its CPU time tells."""
    guard = RankGuard(DEFAULT, since=0.0)
    guard.heard(5.0, ProgressLine(phase=Phase.LOAD))
    if ticked is not None:
        guard.heard(ticked, ProgressLine(alive=True))
    for second in range(6, int(busy_until)):
        guard.activity.seen(float(second), cpu=0.1 * second, read=0)
    return guard


def test_ranks_that_poll_for_one_that_never_came_are_not_at_work():
    waiting = loading(ticked=699.0, busy_until=700.0)
    assert waiting.judge(700.0).busy
    assert not group_guard.judge({0: waiting, 1: loading(ticked=699.0, busy_until=10.0)}, 700.0).is_hung  # it waits: rank 0 loads
    assert group_guard.judge({0: waiting, 1: loading(ticked=6.0, busy_until=7.0)}, 700.0).is_hung  # stopped before it came
    never = group_guard.judge({0: waiting, 1: RankGuard(DEFAULT, since=0.0)}, 700.0)
    assert never.is_hung
    assert never.hung_words().endswith("; rank 1 never said a word")
    assert not group_guard.judge({0: waiting, 1: RankGuard(DEFAULT, since=0.0)}, 590.0).is_hung


@pytest.mark.parametrize(
    ("step", "checkpoint", "limit"), [(0.0, 0.0, 60.0), (10.0, 5.0, 60.0), (30.0, 20.0, 150.0), (500.0, 10.0, 600.0)]
)
def test_a_stop_may_take_three_steps_and_three_checkpoints_within_bounds(step, checkpoint, limit):
    stop = StopGuard.asked(100.0, DEFAULT, step, checkpoint)
    assert stop.limit == limit
    assert not stop.is_over(100.0 + limit)
    assert stop.is_over(100.1 + limit)


def test_a_stop_is_extended_while_bytes_of_its_checkpoint_move():
    stop = StopGuard.asked(0.0, DEFAULT, 1.0, 1.0)
    for second in range(200):
        stop.checkpoint_bytes(float(second), 1000 * second)
    assert not stop.is_over(199.0)
    for second in range(200, 220):
        stop.checkpoint_bytes(float(second), 1000 * 199)
    assert stop.is_over(219.0)


def test_checkpoint_time_counts_from_its_first_line_to_the_next_phase():
    guard = trained(10)
    guard.heard(11.0, ProgressLine(phase=Phase.CHECKPOINT, item=0))
    guard.heard(20.0, ProgressLine(phase=Phase.CHECKPOINT, item=1))
    guard.heard(22.0, ProgressLine(phase=Phase.TRAIN, step=110))
    assert guard.longest_checkpoint == 11.0
    assert guard.longest_step == 1.0


def test_a_checkpoint_written_behind_the_loop_says_itself_how_long_it_took():
    one = RankGuard(DEFAULT, 0.0)
    one.heard(1.0, ProgressLine(phase=Phase.TRAIN, step=1))
    one.heard(2.0, ProgressLine(phase=Phase.CHECKPOINT, step=1))
    one.heard(2.2, ProgressLine(phase=Phase.TRAIN, step=1))
    assert one.longest_checkpoint == pytest.approx(0.2)
    one.heard(90.0, ProgressLine(checkpoint="step-000000001", checkpoint_seconds=85.0))
    assert one.longest_checkpoint == 85.0
    assert StopGuard.asked(91.0, DEFAULT, one.longest_step, one.longest_checkpoint).limit >= 3 * 85.0
