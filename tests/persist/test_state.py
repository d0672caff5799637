"""The one function that says what a session is: by table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxtui.persist.sessions.record import ACTIVE, Phase, ProcessIdentity, Record, Status
from fluxtui.persist.sessions.state import Facts, Output, Shown, State, derive, of_attempt

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BOOT, OTHER_BOOT = "boot-1", "boot-2"
KEEPER = ProcessIdentity(pid=100, start_ticks=1, boot_id=BOOT, run_id="r")
RUNNING = Record(
    session_id="s",
    attempt=1,
    nonce="n",
    status="running",
    phase=Phase.TRAIN,
    step=120,
    steps=400,
    queued_at=NOW,
    beat_at=NOW - timedelta(seconds=3),
    host="here",
    boot_id=BOOT,
    run_id="r",
    keeper=KEEPER,
    ranks=[msgspec.structs.replace(KEEPER, pid=101)],
    checkpoint="step-000000100",
)
ALIVE = Facts(name="a", now=NOW, host="here", boot_id=BOOT, lock_held=True, keeper_state="S", trainer_states=("R",))
FREE = replace(ALIVE, lock_held=False, keeper_state=None, trainer_states=())


def record(**changes: Any) -> Record:
    return msgspec.structs.replace(RUNNING, **changes)


STALE = {"beat_at": NOW - timedelta(hours=3)}
ELSEWHERE = {"host": "there", "boot_id": OTHER_BOOT}

TABLE: list[tuple[str, Record | None, Facts, State, str, str]] = [
    ("never started", None, FREE, "new", "not started", "fluxtui start a"),
    ("a keeper that has no record yet", None, ALIVE, "starting", "keeper", ""),
    ("a keeper that has not written its own record yet", record(), replace(ALIVE, is_new_keeper=True), "starting", "keeper", ""),
    ("the lock cannot be looked at", record(), replace(FREE, lock_unseen="no descriptors"), "unreadable", "no desc", "show a"),
    ("this boot has no name", record(), replace(FREE, boot_id=""), "lost", "keeper died", "fluxtui resume a"),
    ("waiting for a GPU", record(status="queued", waiting_for="the GPU of b"), ALIVE, "queued", "waiting for the GPU of b", ""),
    ("waiting for a retry", record(status="queued", reason="retry 1 of 3 at 12:01"), ALIVE, "queued", "retry 1 of 3", ""),
    ("starting", record(status="starting"), ALIVE, "starting", "", ""),
    ("training", record(), ALIVE, "running", "", ""),
    ("training, GPU idle", record(gpu_hint="GPU under 5 % for 300 s"), ALIVE, "running", "GPU under 5 %", ""),
    ("stopping", record(status="stopping"), ALIVE, "stopping", "checkpoint", ""),
    ("done and proven", record(status="completed"), replace(FREE, output="ok"), "completed", "", ""),
    ("the file is gone", record(status="completed"), replace(FREE, output="missing"), "changed", "gone", "fluxtui resume a"),
    (
        "the file is another",
        record(status="completed"),
        replace(FREE, output="different"),
        "changed",
        "not the one",
        "fluxtui resume a",
    ),
    (
        "the disk cannot read the file",
        record(status="completed"),
        replace(FREE, output="unreadable"),
        "unreadable",
        "completed, but the file cannot be read: the disk failed",
        "look at `dmesg`; once the disk answers again, fluxtui verify a",
    ),
    (
        "the file is another user's",
        record(status="completed"),
        replace(FREE, output="denied"),
        "unreadable",
        "completed, but the file cannot be read: permission denied",
        "make a.safetensors yours; then fluxtui verify a",
    ),
    (
        "failed",
        record(status="failed", reason="non-finite at step 7", remedy="lower it"),
        FREE,
        "failed",
        "non-finite at step 7",
        "lower it",
    ),
    ("failed without a word", record(status="failed"), FREE, "failed", "no reason given", "fluxtui resume a"),
    ("stopped", record(status="stopped", reason="stopped by you"), FREE, "stopped", "stopped by you", "fluxtui resume a"),
    (
        "the keeper died",
        record(),
        FREE,
        "lost",
        "keeper died at step 120; the last checkpoint is step-000000100",
        "fluxtui resume a",
    ),
    ("the machine rebooted", record(boot_id=OTHER_BOOT), FREE, "lost", "machine rebooted at step 120", "fluxtui resume a"),
    (
        "rebooted while it waited",
        record(status="queued", boot_id=OTHER_BOOT),
        FREE,
        "lost",
        "rebooted while it waited",
        "fluxtui resume a",
    ),
    ("died in the proof", record(phase=Phase.PROVE), FREE, "lost", "trains nothing", "fluxtui resume a"),
    ("another pod is gone", record(**ELSEWHERE, **STALE), FREE, "lost", "no sign of life from there", "fluxtui resume a"),
    ("another pod lives", record(**ELSEWHERE), FREE, "elsewhere", "running on there", "on there:"),
    ("another pod lives, lock seen", record(**ELSEWHERE), ALIVE, "elsewhere", "running on there", "on there:"),
    ("another container of this machine", record(host="there"), ALIVE, "running", "", ""),
    ("another container of this machine died", record(host="there"), FREE, "lost", "keeper died", "fluxtui resume a"),
    ("failed on another pod", record(status="failed", reason="x", **ELSEWHERE), FREE, "failed", "x", "fluxtui resume a"),
    ("keeper stopped", record(), replace(ALIVE, keeper_state="T"), "suspended", "nothing watches it", "kill -CONT 100"),
    ("trainer stopped", record(), replace(ALIVE, trainer_states=("S", "T")), "suspended", "trainer is stopped", "kill -CONT 101"),
    (
        "both stopped",
        record(),
        replace(ALIVE, keeper_state="t", trainer_states=("T",)),
        "suspended",
        "keeper is stopped",
        "kill -CONT 100",
    ),
    ("disk for 11 s", record(), replace(ALIVE, trainer_states=("D",), storage_seconds=11.0), "storage", "disk", "dmesg"),
    ("disk for 9 s", record(), replace(ALIVE, trainer_states=("D",), storage_seconds=9.0), "running", "", ""),
    ("no beat for 21 s", record(beat_at=NOW - timedelta(seconds=21)), ALIVE, "silent", "21 s", "fluxtui logs a"),
    ("no beat for 19 s", record(beat_at=NOW - timedelta(seconds=19)), ALIVE, "running", "", ""),
    ("a beat of tomorrow: the clock was set back", record(beat_at=NOW + timedelta(days=1)), ALIVE, "running", "", ""),
    ("no beat at all yet", record(status="queued", beat_at=None), ALIVE, "queued", "about to start", ""),
    ("stalled", record(amber="step for 41 s (limit 300 s)"), ALIVE, "stalled", "step for 41 s", "fluxtui logs a"),
    ("stalled and silent", record(amber="x", beat_at=NOW - timedelta(seconds=40)), ALIVE, "silent", "40 s", "fluxtui logs a"),
    ("processes not to be seen", record(), replace(ALIVE, keeper_state=None, trainer_states=()), "running", "", ""),
    ("attempts not to be listed", None, replace(FREE, unlisted="permission denied"), "unreadable", "denied", "fix that"),
    ("record torn", None, replace(FREE, unreadable="The record is torn."), "unreadable", "torn", "fluxtui resume a"),
    (
        "record torn, keeper alive",
        None,
        replace(ALIVE, unreadable="The record is torn."),
        "unreadable",
        "keeper is at work",
        "fluxtui kill a",
    ),
    (
        "spec torn, keeper alive",
        record(),
        replace(ALIVE, unreadable="The spec is torn.", is_spec_readable=False),
        "unreadable",
        "torn. A keeper is at work",
        "fluxtui stop a",
    ),
    (
        "spec torn",
        record(),
        replace(FREE, unreadable="The spec is torn.", is_spec_readable=False),
        "unreadable",
        "spec",
        "fix session.toml",
    ),
    (
        "spec torn, its keeper kept a copy",
        record(),
        replace(FREE, unreadable="The spec is torn.", is_spec_readable=False, is_spec_kept=True),
        "unreadable",
        "torn. Its keeper has a copy",
        "fluxtui resume a",
    ),
]


@pytest.mark.parametrize(
    ("seen", "facts", "state", "reason", "remedy"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_is_shown(seen: Record | None, facts: Facts, state: str, reason: str, remedy: str) -> None:
    shown = derive(seen, facts)
    assert shown.state == state
    assert reason in shown.reason
    assert (remedy in shown.remedy) if remedy else not shown.remedy


def test_the_table_holds_every_state() -> None:
    assert {row[3] for row in TABLE} == set(get_args(State))


def test_every_state_has_glyph_word_and_colour() -> None:
    for state in get_args(State):
        shown = Shown(state)
        assert shown.glyph
        assert shown.word == state
        assert shown.colour
    assert [state for state in get_args(State) if Shown(state).colour == "green"] == ["completed"], "green only with proof"


_facts = st.builds(
    Facts,
    name=st.just("a"),
    now=st.just(NOW),
    host=st.sampled_from(["here", "there"]),
    boot_id=st.sampled_from([BOOT, OTHER_BOOT]),
    lock_held=st.booleans(),
    keeper_state=st.sampled_from([None, "R", "S", "D", "T"]),
    trainer_states=st.lists(st.sampled_from("RSDTZ"), max_size=2).map(tuple),
    storage_seconds=st.floats(0, 100),
    output=st.sampled_from(get_args(Output)),
    unreadable=st.sampled_from(["", "torn"]),
    is_spec_readable=st.booleans(),
    lock_unseen=st.sampled_from(["", "no descriptors"]),
    is_new_keeper=st.booleans(),
)
_records = st.none() | st.builds(
    record,
    status=st.sampled_from(get_args(Status)),
    beat_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    phase=st.none() | st.sampled_from(Phase),
    amber=st.sampled_from(["", "x"]),
    host=st.sampled_from(["here", "there"]),
    boot_id=st.sampled_from([BOOT, OTHER_BOOT]),
    keeper=st.none() | st.just(KEEPER),
    ranks=st.lists(st.just(KEEPER), max_size=1),
)


@given(_records, _facts)
def test_whatever_is_known_the_answer_is_no_lie(seen: Record | None, facts: Facts) -> None:
    shown = derive(seen, facts)
    if shown.state == "completed":
        assert seen is not None
        assert seen.status == "completed"
        assert facts.output not in ("missing", "different", "unreadable", "denied")
    if shown.state in {"running", "stopping", "queued", "stalled", "suspended", "storage", "silent"}:
        assert facts.lock_held
        assert not facts.is_new_keeper
        assert seen is not None
        assert seen.status in ACTIVE
    if shown.state == "lost":
        assert not facts.lock_unseen
    if shown.state in {"failed", "lost", "changed", "unreadable", "suspended", "stalled", "new", "stopped"}:
        assert shown.reason
        assert shown.remedy


def test_an_attempt_whose_keeper_died_is_lost_and_stays_it() -> None:
    """Its record says for ever that it runs."""
    assert of_attempt(RUNNING, ("lost", "keeper died at step 120")) == ("lost", "keeper died at step 120")
    assert of_attempt(RUNNING) == ("lost", "keeper died or machine rebooted at step 120")
    assert of_attempt(record(phase=Phase.PROVE))[1].endswith("while the product was being proven")
    assert of_attempt(record(status="queued", phase=None))[1].endswith("while it waited")
    assert of_attempt(RUNNING, ("running", "")) == ("running", "")
    assert of_attempt(RUNNING, ("stalled", "the step takes long")) == ("running", "")
    stopped = record(status="stopped", reason="stopped by the user")
    assert of_attempt(stopped) == of_attempt(stopped, ("stopped", "")) == ("stopped", "stopped by the user")
