"""Keys that reach real keepers: start, checkpoint, stop, resume, kill, delete, with a trainer that needs no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fluxtui.actions import BY_NAME
from fluxtui.demo import IMAGES_DIR
from fluxtui.engine.trainer.data.dataset import read_dataset
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home
from fluxtui.persist.process import is_alive
from fluxtui.persist.sessions import overview
from fluxtui.persist.settings.recipe import load_spec
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import make_record, make_session

STANDINS = Path(__file__).parent.parent / "keeper"
SETTINGS = {"train.steps": 100_000, "checkpoint.every_steps": 50, "hardware.gpus": []}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose keepers run the stand-in trainer, slowly."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"deeds": [], "step_seconds": 0.05}))
    for name, value in {
        "FLUXTUI_TRAINER": "standin",
        "FLUXTUI_PROVER": "standin_prover",
        "FLUXTUI_STANDIN": str(plan),
        "FLUXTUI_RUNTIME": str(tmp_path / "runtime"),
        "PYTHONPATH": f"{STANDINS}{os.pathsep}{STANDINS.parent.parent}",
    }.items():
        monkeypatch.setenv(name, value)
    return Home.open(tmp_path / "home")


def make(home: Home, name: str, **more: object) -> None:
    from fluxtui import control

    control.create(home, name, dataset="demo", model="pico", sets={**SETTINGS, **more})


async def test_a_session_lives_through_every_key(lab: Home) -> None:
    make(lab, "one")
    async with opened(lab, (120, 36), "one") as (app, pilot):

        def state() -> str:
            return overview.look(lab, "one").state

        try:
            await pilot.press("s")
            await seen(pilot, lambda: state() == "running" and overview.look(lab, "one").step > 5, "it does not run", 60)
            await seen(pilot, lambda: "running" in text_of(app) and "guard: " in text_of(app), "not shown running", 60)
            await pilot.press("s")
            await seen(pilot, lambda: "one is running already" in text_of(app), "not refused")
            await pilot.press("c")
            await seen(pilot, lambda: overview.look(lab, "one").checkpoint, "no checkpoint", 60)
            await pilot.press("x")
            await seen(pilot, lambda: state() == "stopped", "it does not stop", 60)
            await seen(pilot, lambda: "one stopped at step" in text_of(app), "the end is not said", 5)
            await seen(pilot, lambda: "r resumes from step-" in text_of(app), "the next key is not said", 60)
            await pilot.press("r")
            await seen(pilot, lambda: state() == "running", "it does not resume", 60)
            record = overview.look(lab, "one").record
            assert record is not None
            assert record.attempt == 2
            await seen(pilot, lambda: app.situation().session.is_active, "not shown active", 60)
            await pilot.press("K", "y")
            await seen(pilot, lambda: state() == "stopped", "it is not killed", 60)
            assert record.keeper is not None
            await seen(pilot, lambda: not is_alive(record.keeper), "its keeper lives", 60)
            await seen(pilot, lambda: not app.situation().session.is_active, "not shown ended", 60)
            await pilot.press("d", "y")
            await seen(pilot, lambda: not lab.session("one").path.exists(), "it is not deleted", 60)
            await seen(pilot, lambda: app.board.sessions.selected is None, "it is still shown", 60)
        finally:
            end(lab)


async def test_a_question_goes_away_once_what_it_asks_about_has_ended(lab: Home) -> None:
    make(lab, "short", **{"train.steps": 60})
    async with opened(lab, (120, 36), "short") as (app, pilot):
        try:
            await pilot.press("s")
            await seen(pilot, lambda: app.situation().session.is_active, "not shown active", 60)
            await pilot.press("K")
            await seen(pilot, lambda: "Kill it" in text_of(app), "K does not ask")
            await seen(pilot, lambda: "Kill it" not in text_of(app), "it still asks", 60)
            await seen(pilot, lambda: "short completed and proven" in text_of(app), "not announced", 60)
            assert overview.look(lab, "short").state == "completed"
        finally:
            end(lab)


async def test_a_finished_session_is_announced_until_put_away(lab: Home) -> None:
    make(lab, "short", **{"train.steps": 10})
    async with opened(lab, (120, 36), "short") as (app, pilot):
        try:
            await pilot.press("s")
            await seen(pilot, lambda: "short completed and proven" in text_of(app), "not announced", 90)
            await pilot.press("v")
            # the real prover looks again, and what a stand-in made is no LoRA: it says so
            await seen(pilot, lambda: "short is not proven" in text_of(app), "verify says nothing", 60)
            for _ in range(4):
                await pilot.press("space")
            assert "completed and proven" not in text_of(app)
            assert not app.board_of_notices.notices
        finally:
            end(lab)


async def test_those_that_wait_are_listed_as_they_will_start_and_change_places(lab: Home) -> None:
    for name in ("trains", "b-first", "a-second", "alone"):
        make(lab, name)

    def waiting() -> list[str]:
        return [session.name for session in app.board.sessions._shown if session.state == "queued"]

    async with opened(lab, (120, 36), "trains") as (app, pilot):
        try:
            for at, name in enumerate(("trains", "b-first", "a-second")):
                app.board.sessions.select(name)
                await pilot.press("s")
                await seen(pilot, lambda name=name: overview.look(lab, name).state in {"running", "queued"}, name, 60)
                await seen(pilot, lambda at=at: len(waiting()) == at, "not shown", 60)
            assert waiting() == ["b-first", "a-second"]
            app.board.sessions.select("a-second")
            await pilot.press("less_than_sign")
            said = "a-second starts before all others that wait"
            await seen(pilot, lambda: any(said in notice.text for notice in app.board_of_notices.notices), "not said", 60)
            await seen(pilot, lambda: waiting() == ["a-second", "b-first"], "not moved", 60)
            await pilot.press("greater_than_sign")
            await seen(pilot, lambda: waiting() == ["b-first", "a-second"], "not moved back", 60)
            app.board.sessions.select("b-first")
            await pilot.press("x")
            await seen(pilot, lambda: waiting() == ["a-second"], "not withdrawn", 60)
            app.board.sessions.select("alone")
            await pilot.press("less_than_sign")
            why = "alone is new; only one that waits has a place to change"
            assert any(why in notice.text for notice in app.board_of_notices.notices)
        finally:
            end(lab)


async def test_two_uis_show_the_same_within_seconds(lab: Home) -> None:
    make(lab, "both")
    async with opened(lab, (120, 36), "both") as (one, first), opened(lab, (100, 30), "both") as (two, second):
        try:
            await first.press("s")
            await seen(second, lambda: two.situation().session.state == "running", "the other does not see it", 60)
            await second.press("x")
            await first.press("x")
            await seen(first, lambda: one.situation().session.state == "stopped", "it does not stop", 60)
            await seen(second, lambda: two.situation().session.state == "stopped", "the other does not see the end", 60)
            assert len(overview.records(lab, "both")) == 1
        finally:
            end(lab)


async def test_a_session_folder_that_vanishes_takes_no_ui_with_it(lab: Home) -> None:
    make(lab, "gone")
    make(lab, "stays")
    async with opened(lab, (120, 36), "gone") as (app, pilot):
        await pilot.press("enter")
        shutil.rmtree(lab.session("gone").path)
        await seen(pilot, lambda: "gone" not in app.sessions, "still listed")
        for page in ("2", "3", "4", "5", "6", "7"):
            await pilot.press(page)
            assert "This session is gone" in text_of(app), f"page {page} speaks of what is not there"
        await pilot.press("d")
        assert app.board_of_notices.notices[-1].text == "d delete: gone is gone"
        await pilot.press("r")
        assert app.board_of_notices.notices[-1].text == "r resume: gone is gone"
        await pilot.press("q")
        assert app.board.sessions.selected.name == "stays"


def end(home: Home) -> None:
    """No keeper outlives its test."""
    from fluxtui import control
    from fluxtui.persist.errors import FluxTUIError

    for session in overview.look_all(home):
        if session.is_active:
            try:
                control.kill(home, session.name)
            except FluxTUIError:
                continue


async def test_what_a_trainer_refused_for_a_change_is_asked_and_not_tried_the_same_way_again(lab: Home) -> None:
    folder = make_session(lab, "other")
    reason = "the data set is not the one that this session began with: 1.png is another file"
    make_record(folder, status="failed", exit_code=77, reason=reason, remedy="fluxtui resume other --accept-changes")
    async with opened(lab, (120, 36), "other") as (app, pilot):
        assert "r asks whether to go on with the changes" in text_of(app)
        await pilot.press("r")
        await seen(pilot, lambda: "Go on with the changes" in text_of(app), "not asked")
        assert "1.png is another file. The run" in " ".join(text_of(app).replace("│", " ").split())
        await pilot.press("enter")  # No is in focus
        await seen(pilot, lambda: "Go on with the changes" not in text_of(app), "it asks on")
    assert overview.look(lab, "other").attempt == 1


async def test_a_caption_changed_since_the_stop_is_named_at_the_key_and_asked(lab: Home, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("heart-01.png", "heart-01.txt"):
        shutil.copy(Path(IMAGES_DIR) / name, data)
    folder = make_session(lab, "fox", dataset__path=str(data), dataset__regularisation="")
    make_record(folder, status="stopped", step=10, exit_code=75, reason="stopped by the user")
    toml.write(folder.dataset_file, read_dataset(load_spec(folder.spec_file).dataset).fingerprint)
    (data / "heart-01.txt").write_text("another caption")
    async with opened(lab, (80, 24), "fox") as (app, pilot):
        await pilot.press("r")
        await seen(pilot, lambda: "Go on with the changes" in text_of(app), "not asked")
        assert "The data set changed since this session began: heart-01.txt" in text_of(app)
        await pilot.press("enter")  # No is in focus
        await seen(pilot, lambda: "Go on with the changes" not in text_of(app), "it asks on")
    assert folder.attempt_numbers() == [1]


HANGS = """
import sys, time
from pathlib import Path
from fluxtui.persist.files.lock import Lock
held = Lock.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


async def test_a_keeper_that_hangs_before_the_record_of_a_resumption_can_be_killed(
    lab: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its newest record says stopped: K goes by who holds the session."""
    monkeypatch.setattr("fluxtui.control.watch.RETRY_SECONDS", 0.3)
    folder = make_session(lab, "hung")
    make_record(folder, status="stopped", step=10, exit_code=75, reason="stopped by the user")
    keep = ["fluxtui.engine", "keep", "--home", str(lab.root), "--session", "hung"]
    async with opened(lab, (120, 36), "hung") as (app, pilot):
        await pilot.press("K")
        await seen(pilot, lambda: "hung is stopped; nothing of it is running" in text_of(app), "no reason")
        keeper = subprocess.Popen(
            [sys.executable, "-c", HANGS, str(folder.lock_file), *keep],
            stdout=subprocess.PIPE,
            env=os.environ | {"FLUXTUI_RUN_ID": "run-1"},
        )
        try:
            assert keeper.stdout is not None
            keeper.stdout.readline()
            await seen(pilot, lambda: app.situation().is_kept, "it is not seen that somebody holds it")
            await pilot.press("x")
            assert app.board_of_notices.notices[-1].text == "x stop: a keeper of hung has begun and says nothing yet; K ends it"
            await pilot.press("K")
            await seen(pilot, lambda: "Kill it" in text_of(app), "K does not ask")
            await pilot.press("y")
            await seen(pilot, lambda: keeper.poll() is not None, "it is not ended", 60)
            await seen(pilot, lambda: not app.situation().is_kept, "it is still taken for kept")
            assert BY_NAME["kill"].refusal(app.situation()).startswith("hung is stopped")
        finally:
            keeper.kill()
            keeper.wait(10)
