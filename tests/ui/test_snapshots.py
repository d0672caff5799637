"""Screens as text: a change of wording or place is looked at before it is taken."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fluxtui.control import engine
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.home import Home
from fluxtui.screens.form_screen import FormScreen
from tests.ui.conftest import opened, same_as_snapshot, seen, still, text_of
from tests.ui.fabricate import make_log, make_metrics, make_record, make_session

DEMO = Path(__file__).parent.parent.parent / "fluxtui" / "demo" / "images"
BEGAN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def home(home_path: Path) -> Home:
    """One stopped session with checkpoints and samples, on the demo's pictures."""
    home = Home.open(home_path)
    folder = make_session(home, "paused-fox")
    make_record(
        folder, status="stopped", step=192, epoch=8, exit_code=75, reason="stopped by the user",
        checkpoint="step-000000192", started_at=BEGAN, finished_at=BEGAN + timedelta(minutes=9), queued_at=BEGAN,
    )  # fmt: skip
    make_metrics(folder, 192)
    make_log(folder, 192, "TRAINING STOPPED BY USER - checkpoint step-000000192")
    for step in (100, 192):
        commit.commit_checkpoint(folder.checkpoints, commit.step_name(step), {"adapter.safetensors": b"x" * 5000}, {"step": step})
    (folder.samples / "step-000000192").mkdir()
    shutil.copy(DEMO / "heart-01.png", folder.samples / "step-000000192" / "00.png")
    return home


@pytest.mark.parametrize(
    ("name", "keys", "shows"),
    [
        ("metrics", ("enter", "2"), "steps 0 to 192"),
        ("samples", ("enter", "3"), "▀▀▀"),
        ("checkpoints", ("enter", "4"), "step-000000100"),
        ("spec", ("enter", "5"), "compared with the defaults"),
        ("captions", ("enter", "7"), "▀▀▀"),
        ("palette", ("colon", *"zoom"), "zoom out"),
        ("question", ("d",), "Delete paused-fox"),
        ("metrics-help", ("enter", "2", "question_mark"), "Training goes on without"),
    ],
)
async def test_screens_at_80_by_24(home: Home, name: str, keys: tuple[str, ...], shows: str) -> None:
    async with opened(home, (80, 24), "paused-fox") as (app, pilot):
        await seen(pilot, lambda: app.board.selected.history.steps, "no metrics")
        await seen(pilot, lambda: app.board.gauges.host is not None, "no gauges")
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await seen(pilot, lambda: shows in text_of(app), f"no {shows!r}")
        await pilot.pause(0.2)
        same_as_snapshot(f"{name}-80x24", re.sub(r"\d+ more", "N more", still(text_of(app))))


PAGES = (
    (("2",), "metrics", "steps 0 to 192"),
    (("3",), "samples", "▀▀▀"),
    (("4",), "checkpoints", "step-000000100"),
    (("5", "m"), "spec", "compared with the defaults"),  # only what differs: the schema may grow
    (("7",), "captions", "▀▀▀"),
)


@pytest.mark.parametrize("size", [(120, 36), (200, 60)])
async def test_pages_of_a_session_at_larger_sizes(home: Home, size: tuple[int, int]) -> None:
    async with opened(home, size, "paused-fox") as (app, pilot):
        await seen(pilot, lambda: app.board.selected.history.steps, "no metrics")
        await pilot.press("enter")
        for keys, name, shows in PAGES:
            await pilot.press(*keys)
            await seen(pilot, lambda shows=shows: shows in text_of(app), f"no {shows!r}")
            await pilot.pause(0.2)
            same_as_snapshot(f"{name}-{size[0]}x{size[1]}", re.sub(r"\d+ more", "N more", still(text_of(app))))


PLAN = {"training_peak": 187_000_000, "encoding_peak": 96_000_000, "steps": 400, "like_step_seconds": 0.072}


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
async def test_forms_with_plan_and_report(home: Home, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """New, clone, edit. The doctor's report is a real one; the plan is as the engine answered once: it goes by the machine."""
    ask = engine.last_object
    monkeypatch.setattr(engine, "last_object", lambda verb, *more: (0, PLAN, "") if verb == "plan" else ask(verb, *more))
    monkeypatch.setattr("fluxtui.screens.form.plan.PATIENCE", 0.0)
    make_session(home, "not-yet")
    async with opened(home, size, "paused-fox") as (app, pilot):
        await seen(pilot, lambda: app.board.gauges.host is not None, "no gauges")
        for name, key, session in (("new", "n", "paused-fox"), ("clone", "N", "paused-fox"), ("edit", "e", "not-yet")):
            app.board.sessions.select(session)
            await pilot.pause()
            await pilot.press(key)
            await seen(pilot, lambda: isinstance(app.screen, FormScreen) and app.screen.form.seen.spec is not None, f"no {name}")
            await seen(pilot, lambda: size[0] < 100 or "at the peak" in text_of(app), "no plan")
            await pilot.pause(0.2)
            same_as_snapshot(f"form-{name}-{size[0]}x{size[1]}", still(text_of(app)))
            if name == "new":
                await pilot.press("f4")
                await seen(pilot, lambda: app.screen.examination.report, "no report", 60)
                app.board_of_notices.notices.clear()
                app.screen.notices.show()
                await pilot.press("f5")
                await pilot.pause(0.2)
                same_as_snapshot(f"form-report-{size[0]}x{size[1]}", still(text_of(app)))
            await pilot.press("escape")
            if app.screen is not app.board:
                await pilot.press("escape")
            await seen(pilot, lambda: app.screen is app.board, "it does not leave")


async def test_a_light_theme_and_the_key_that_walks_through_them(home: Home) -> None:
    async with opened(home, (80, 24), "paused-fox") as (app, pilot):
        dark = app.look.inks.style("text")
        seen_themes = {app.theme}
        while app.theme != "fluxtui-light":
            await pilot.press("T")
            assert app.theme not in seen_themes
            seen_themes.add(app.theme)
        assert 'theme = "fluxtui-light"' in app.board_of_notices.notices[-1].text  # how it stays
        light = app.look.inks.style("text")
        assert sum(light.bgcolor.triplet) > 600 > 100 > sum(dark.bgcolor.triplet)

        def is_light() -> bool:
            row = next(strip for strip in app.screen._compositor.render_strips() if "paused-fox" in strip.text)
            return all(sum(segment.style.bgcolor.triplet) > 400 for segment in row if segment.style and segment.style.bgcolor)

        await seen(pilot, is_light, "a row is not drawn anew", 5)
