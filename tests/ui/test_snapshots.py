"""Screens at 80 by 24 as text: a change of wording or place is looked at before it is taken."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fluxtui.persist import commit
from fluxtui.persist.home import Home
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
