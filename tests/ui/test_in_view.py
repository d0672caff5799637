"""Keys act on the session that is in view; the dashboard opens on the one that needs somebody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.screens import jobs
from fluxtui.screens.log_screen import LogScreen
from fluxtui.screens.session import SessionScreen
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import make_log, make_metrics, make_record, make_session


class Two:
    """Two sessions that train."""

    def __init__(self, root: Path) -> None:
        self.home = Home.open(root)
        self.locks: dict[str, Lock] = {}
        for name in ("fox", "owl"):
            folder = make_session(self.home, name)
            make_record(folder, status="running", step=50)
            make_metrics(folder, 50)
            make_log(folder, 50)
            lock = Lock.take(folder.lock_file)
            assert lock is not None
            self.locks[name] = lock

    def folder(self, name: str) -> SessionFolder:
        return self.home.session(name)

    def complete(self, name: str) -> None:
        make_record(self.folder(name), status="stopped", step=400, finished_at=datetime.now(UTC), reason="stopped by the user")
        self.locks.pop(name).release()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path / "home")
    yield made
    for lock in made.locks.values():
        lock.release()


async def test_keys_on_a_sessions_screen_reach_no_other_session(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """The open session ends, the list that shows only active ones selects another: that one is not stopped."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(jobs, "asked", lambda home, name, verb: asked.append((name, verb)) or verb)
    resumed: list[str] = []
    monkeypatch.setattr(jobs, "resumed", lambda home, name, *_: resumed.append(name) or name)
    async with opened(two.home, (100, 30), "fox") as (app, pilot):
        await pilot.press("a", "enter")
        await seen(pilot, lambda: isinstance(app.screen, SessionScreen), "not opened")
        await pilot.press("x")
        await seen(pilot, lambda: asked == [("fox", "stop")], "the open one is not stopped")
        two.complete("fox")
        await seen(pilot, lambda: app.board.sessions.selected.name == "owl", "the list keeps it")
        await seen(pilot, lambda: "stopped" in text_of(app).splitlines()[0], "its end is not shown")
        for key in ("x", "X", "c", "p", "s"):
            await pilot.press(key)
            await pilot.pause(0.1)
            said = app.board_of_notices.notices[-1].text
            assert ("fox has been started" if key == "s" else "fox is stopped") in said, (key, said)
        assert asked == [("fox", "stop")]
        await pilot.press("r")
        await seen(pilot, lambda: resumed == ["fox"], "another one is resumed")


async def test_a_sessions_screen_goes_on_with_what_the_dashboard_hides(two: Two) -> None:
    async with opened(two.home, (100, 30), "fox") as (app, pilot):
        await pilot.press("a", "enter", "2")
        await seen(pilot, lambda: isinstance(app.screen, SessionScreen) and "step 50" in text_of(app), "no curve")
        app.board.sessions.select("owl")
        await pilot.pause()
        make_metrics(two.folder("fox"), 90, first=51)
        make_record(two.folder("fox"), status="running", step=90)
        await seen(pilot, lambda: "step 90" in text_of(app), "its metrics are not read any more")
        assert "owl" not in text_of(app)
        await pilot.press("q")
        await seen(pilot, lambda: list(app.board.selected.history.steps[-1:]) == [50], "the selected one is not followed again")


async def test_a_full_screen_log_stays_with_its_session(two: Two) -> None:
    async with opened(two.home, (100, 30), "fox") as (app, pilot):
        await pilot.press("l")
        await seen(pilot, lambda: isinstance(app.screen, LogScreen), "no log")
        app.board.sessions.select("owl")
        await pilot.pause()
        assert app.situation().session.name == "fox"


async def test_it_opens_on_what_needs_attention_though_another_one_trains(two: Two) -> None:
    make_record(make_session(two.home, "aaa-stopped"), status="stopped", step=4, reason="stopped by the user")
    broken = make_session(two.home, "broken")
    make_record(broken, status="failed", step=40, reason="non-finite loss", finished_at=datetime.now(UTC))
    async with opened(two.home, (80, 24)) as (app, pilot):
        assert app.board.sessions.selected.name == "broken"
        await seen(pilot, lambda: "non-finite loss" in text_of(app), "its reason is not shown")
        assert app.board.sessions.shown[0].state == "running"  # what trains stands on top all the same


async def test_where_nothing_needs_attention_it_opens_on_what_trains(two: Two) -> None:
    make_record(make_session(two.home, "aaa-stopped"), status="stopped", step=4, reason="stopped by the user")
    async with opened(two.home, (80, 24)) as (app, _):
        assert app.board.sessions.selected.state == "running"


async def test_a_filter_that_hides_the_selected_session_shows_the_next_one_at_once(two: Two) -> None:
    async with opened(two.home, (100, 30), "fox") as (app, pilot):
        await pilot.press("slash", *"owl")
        await seen(pilot, lambda: app.board.selected.session.name == "owl", "the panel shows what is hidden", 3)
