"""The examination of the pictures from the form: what it finds is shown, counted, and asked about before a start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fluxtui.persist.home import Home
from tests.ui.conftest import opened, seen, text_of
from tests.ui.test_form import DEMO, fake_engine, form_of


async def test_pictures_are_examined_before_the_start(empty_home: Home, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(DEMO, pictures)
    next(pictures.glob("*.png")).write_bytes(b"torn")
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        screen.form.go_to("dataset.path")
        await pilot.press(*str(pictures))
        await seen(pilot, lambda: screen.form.seen.answers.get("dataset.path") == str(pictures), "not looked at")
        await pilot.press("f4")
        await seen(pilot, lambda: "1 thing to fix" in text_of(app), "the damage is not found", 90)


async def test_no_folder_is_looked_for_before_one_is_given(empty_home: Home) -> None:
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        screen.form.go_to("model.source")
        await pilot.press("ctrl+u", *"owner/other-flux")
        await seen(pilot, lambda: "dataset.path" in screen.form.seen.errors, "not looked at")
        await pilot.press("f4")
        assert app.board_of_notices.notices[-1].text == "name the data set first"
        assert not screen.examination.progress


async def test_what_the_examination_found_is_counted_and_asked_before_the_start(
    empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = ["tiny.png is 10 by 10 pixels, too small", "torn.png is not an image that can be read"]
    report = {"report": {"ok": False, "images": 50, "findings": [{"level": "error", "sentence": one} for one in sentences]}}
    waits = f"case $* in *check*) while [ ! -e {tmp_path}/looked ]; do sleep 0.02; done;; esac"
    fake_engine(tmp_path, monkeypatch, f"{waits}; echo '{json.dumps(report)}'")
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        await seen(pilot, lambda: "ready" in text_of(app), "not ready")
        await pilot.press("f4")
        assert "looking at the pictures" in text_of(app).splitlines()[0], "it calls itself ready before it knows"
        await pilot.press("ctrl+s")
        await seen(pilot, lambda: "Still looking at the pictures" in text_of(app), "it starts before it knows")
        await pilot.press("enter")
        (tmp_path / "looked").touch()
        await seen(pilot, lambda: "2 to fix" in text_of(app).splitlines()[0], "what was found is not counted")
        await pilot.press("ctrl+s")
        await seen(pilot, lambda: "This training will fail: tiny.png is 10 by 10" in text_of(app), "no question, or not why")
        await pilot.press("enter")  # No is in focus
        await seen(pilot, lambda: app.screen is screen, "not back at the form")
        assert not empty_home.session_names(), "it was made although No was the answer"
        screen.form.go_to("dataset.path")
        await pilot.press(*str(shutil.copytree(DEMO, tmp_path / "others")))
        await seen(pilot, lambda: "ready" in text_of(app).splitlines()[0], "other pictures have the findings of these")


async def test_what_was_found_after_the_form_was_left_is_said_and_no_fault(
    empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = json.dumps({"report": {"ok": True, "images": 50, "findings": []}})
    waits = f"case $* in *check*) while [ ! -e {tmp_path}/left ]; do sleep 0.02; done;; esac"
    fake_engine(tmp_path, monkeypatch, f"{waits}; echo '{report}'")
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        await pilot.press("f4")
        await seen(pilot, lambda: "examining the pictures" in text_of(app), "not begun")
        await pilot.press("ctrl+g")
        await seen(pilot, lambda: app.screen is app.board and not screen.is_attached, "not left")
        (tmp_path / "left").touch()
        notices = app.board_of_notices
        await seen(pilot, lambda: notices.notices, "nothing is said")
        assert "50 pictures examined" in notices.notices[-1].text


async def test_findings_come_first_and_are_read_at_80x24(
    empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [{"level": "error", "sentence": f"old-{at:02d}.png is not an image that can be read"} for at in range(20)]
    report = {"report": {"ok": False, "images": 50, "findings": findings}}
    fake_engine(tmp_path, monkeypatch, f"echo '{json.dumps(report)}'")
    monkeypatch.setattr("fluxtui.screens.form.plan.PATIENCE", 3600.0)
    async with opened(empty_home, (80, 24)) as (app, pilot):
        screen = await form_of(pilot, app)
        await pilot.press("f4")
        notices = app.board_of_notices
        await seen(pilot, lambda: notices.notices and "20 things to fix" in notices.notices[-1].text, "no toast")
        rows = text_of(app).splitlines()
        top = next(at for at, row in enumerate(rows) if "what it comes to" in row)
        assert "things to fix" in rows[top + 1], "the findings are not first"
        assert "f5 reads it" in rows[top]
        await pilot.press("f5")
        await pilot.pause()
        assert screen.report.has_focus
        assert screen.report.size.height > 12, "it does not get the room"
        before = text_of(app)
        await pilot.press("pagedown", "j")
        await pilot.pause()
        assert text_of(app) != before, "it does not scroll"
        await pilot.press("G")
        await pilot.pause()
        assert screen.report._top == screen.report.last() > 0
        await pilot.press("escape")
        assert screen.form.has_focus
        assert app.screen is screen
        await pilot.press("down")
        rows = text_of(app).splitlines()
        top = next(at for at, row in enumerate(rows) if "what it comes to" in row)
        assert "fix" not in rows[top + 1], "another question's help does not come first"
