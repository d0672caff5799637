"""What the panel of the selected session says comes next, in states that the fabricated home does not have."""

from __future__ import annotations

from pathlib import Path

from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.overview import look
from fluxtui.persist.sessions.record import Phase
from fluxtui.screens.ending import _ending
from fluxtui.screens.panels.session_row import _field, told_of
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import make_product, make_record, make_session


async def test_a_stop_after_the_epoch_is_seen_by_whoever_opens_the_panel(home_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "ring-lora")
    make_record(
        folder, status="running", phase=Phase.TRAIN, step=30, epoch=2, epoch_end=50, step_seconds=1.0, stops_after_epoch=True
    )
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    async with opened(home, (120, 36)) as (app, pilot):
        await seen(pilot, lambda: "stops after epoch 2, in about 20 s" in text_of(app), "that it stops")
        assert "x stops it now, with a checkpoint" in text_of(app)
        assert "20s left" in text_of(app)  # to the end of the epoch, not of the training
        await pilot.press("enter")
        await seen(pilot, lambda: "after epoch 2, in about 20 s" in text_of(app), "that it stops")
    lock.release()


async def test_after_a_failure_comes_first_what_to_put_right_then_the_key_that_helps(home_path: Path) -> None:
    home = Home.open(home_path)
    for name, reason, remedy in (
        ("hot", "the loss of step 12 is not finite", "make one with a lower learning rate: fluxtui new hot-2 --from hot "
         "--set train.learning_rate=0.5"),
        ("torn", "a.png is damaged", "fix what fluxtui check /p names, then fluxtui resume torn"),
        ("full", "the disk is full", "make room or fix the disk, then fluxtui resume full"),
        ("slow", "hung in train for 301 s", "the stacks are in the log; fluxtui resume slow goes on from the last checkpoint"),
        ("big", "it does not fit", "set hardware.stream_blocks=12: fluxtui resume big --set hardware.stream_blocks=12"),
    ):  # fmt: skip
        folder = make_session(home, name)
        make_record(folder, status="failed", reason=reason, remedy=remedy, checkpoint="step-000000100")
    async with opened(home, (120, 36)) as (app, pilot):
        for name, said in (
            ("hot", "N makes one with a lower learning rate; or fluxtui new hot-2 --from hot --set train.learning_rate=0.5"),
            ("torn", "fix what fluxtui check /p names, then r resumes from step-000000100"),
            ("full", "make room or fix the disk, then r resumes from step-000000100"),
            ("slow", "the stacks are in the log; r resumes from step-000000100"),
            ("big", "set hardware.stream_blocks=12: fluxtui resume big --set hardware.stream_blocks=12"),
        ):
            app.board.sessions.select(name)
            await seen(pilot, lambda said=said: said in text_of(app), f"{said} of {name}")
            assert "r resumes from step-000000100;" not in text_of(app)


def test_what_has_no_step_left_shows_its_phase_in_place_of_no_time(home_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "ring-lora")
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    for phase, shown in ((Phase.PROVE, "proof"), (Phase.SAMPLE, "sample"), (Phase.CHECKPOINT, "saving")):
        make_record(folder, status="running", phase=phase, step=400, step_seconds=1.0)
        assert _field(look(home, "ring-lora"), "left", {})[0] == shown
    make_record(folder, status="running", phase=Phase.TRAIN, step=390, step_seconds=1.0)
    assert _field(look(home, "ring-lora"), "left", {})[0] == "10s"
    lock.release()


def test_one_step_is_said_as_one(home_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "tiny", train__steps=1)
    make_record(folder, status="completed", step=1, steps=1, exit_code=0, proof=make_product(folder))
    session = look(home, "tiny")
    assert told_of(session).startswith("proven, 1 step")
    assert "steps" not in told_of(session) + _ending(session)[0]


async def test_no_attempt_is_shown_running_whose_keeper_is_dead(home_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "ring-lora")
    make_record(folder, status="running", phase=Phase.TRAIN, step=30)
    make_record(folder, attempt=2, status="running", phase=Phase.TRAIN, step=64)
    async with opened(home, (200, 60), "ring-lora") as (app, pilot):
        for place in ("the dashboard", "the overview"):
            await seen(pilot, lambda: "keeper died or machine rebooted at step 30" in text_of(app), f"not on {place}")
            assert "running" not in text_of(app), place
            await pilot.press("enter")
