"""Reading a log full screen: filtered, wrapped, copied, and through a rotation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fluxtui.persist.home import Home
from fluxtui.screens.log.view import LogView
from fluxtui.screens.log_screen import LogScreen
from fluxtui.screens.terminal import copying
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import make_record, make_session


@pytest.fixture
def logged(tmp_path: Path) -> tuple[Home, Path]:
    """A session with a log of 3000 lines, each 500th with a needle and a long end."""
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "logged")
    make_record(folder, status="stopped", step=5, reason="stopped by the user")
    lines = [f"line {at:05d} {'needle ' + 'w' * 150 + 'END' if at % 500 == 250 else 'hay'}" for at in range(3000)]
    folder.log_file.write_text("\n".join(lines) + "\n")
    return home, folder.log_file


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was copied, and what it was called."""
    took: list[tuple[str, str]] = []
    monkeypatch.setattr(copying, "copy", lambda app, text, what: took.append((text, what)))
    return took


async def full_screen(pilot, app, last: str = "line 02999") -> LogView:
    await pilot.press("l")
    await seen(pilot, lambda: isinstance(app.screen, LogScreen) and last in text_of(app), f"not at {last}")
    return app.screen.view


def shown_first(app) -> str:
    return text_of(app).splitlines()[1]


async def test_y_copies_the_lines_shown_filtered_or_not(logged, copied) -> None:
    home, _ = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await full_screen(pilot, app)
        await pilot.press("y")
        assert copied[-1][0].splitlines()[-1] == "line 02999 hay"
        assert copied[-1][1] == "the lines shown"
        await pilot.press("ampersand", *"needle", "enter")
        await seen(pilot, lambda: "line 02750 needle" in text_of(app), "not filtered")
        await pilot.press("y")
        await seen(pilot, lambda: len(copied) == 2, "nothing is copied")
        lines = copied[1][0].splitlines()
        assert [line[:10] for line in lines] == [f"line {at:05d}" for at in range(250, 3000, 500)]
        assert all(line.endswith("END") for line in lines)


async def test_lines_are_marked_and_copied_whole_though_they_reach_beyond_the_screen(logged, copied) -> None:
    home, _ = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        view = await full_screen(pilot, app)
        await pilot.press("v", "k", "k")
        assert "3 lines marked, y copies" in text_of(app)
        await pilot.press("y")
        assert copied[-1] == ("line 02997 hay\nline 02998 hay\nline 02999 hay", "3 lines")
        assert view.chosen is None
        await pilot.press("g")
        await seen(pilot, lambda: "line 00000" in text_of(app), "not at the top")
        await pilot.press("v", *["ctrl+d"] * 20, "j")
        end = view.chosen[1]
        assert end > 400
        await seen(pilot, lambda: f"line {end:05d}" in text_of(app), "what is marked last is out of view")
        await pilot.press("y")
        await seen(pilot, lambda: len(copied) == 2, "what is not on the page is not copied")
        assert [line[:10] for line in copied[1][0].splitlines()] == [f"line {at:05d}" for at in range(end + 1)]
        await pilot.press("v", "j", "escape")
        assert view.chosen is None
        assert isinstance(app.screen, LogScreen)


async def test_marked_matches_are_copied_without_what_lies_between(logged, copied) -> None:
    home, _ = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await full_screen(pilot, app)
        await pilot.press("ampersand", *"needle", "enter")
        await seen(pilot, lambda: "following" in text_of(app), "a few matches are not at their end")
        await pilot.press("v", "k", "y")
        await seen(pilot, lambda: copied, "nothing is copied")
        assert [line[:10] for line in copied[0][0].splitlines()] == ["line 02250", "line 02750"]


async def test_w_wraps_what_is_filtered_too(logged) -> None:
    home, _ = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await full_screen(pilot, app)
        await pilot.press("ampersand", *"needle", "enter")
        await seen(pilot, lambda: "line 02750 needle" in text_of(app), "not filtered")
        assert "wEND" not in text_of(app)
        await pilot.press("w")
        assert "wrapped" in text_of(app)
        await seen(pilot, lambda: text_of(app).count("wEND") == 6, "the ends are not shown")


async def test_a_filter_follows_at_its_end_and_holds_elsewhere(logged) -> None:
    home, path = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        view = await full_screen(pilot, app)
        await pilot.press("ampersand", *"hay", "enter")
        await seen(pilot, lambda: "2994 matches" in text_of(app) and "searching" not in text_of(app), "not searched")
        assert shown_first(app).strip() == "1 line 00000 hay"
        with path.open("a") as log:
            log.writelines(f"line {at:05d} hay\n" for at in range(3000, 3005))
        await seen(pilot, lambda: "+5 new" in text_of(app), "what is new is not counted")
        await pilot.press("G")
        await seen(pilot, lambda: "line 03004 hay" in text_of(app) and "following" in text_of(app), "not at the end")
        with path.open("a") as log:
            log.writelines(f"line {at:05d} hay\n" for at in range(3005, 3050))
        await seen(pilot, lambda: "line 03049 hay" in text_of(app), "new matches do not scroll in")
        await pilot.press("k")
        with path.open("a") as log:
            log.write("line 03050 hay\n")
        await seen(pilot, lambda: "+1 new" in text_of(app), "it does not hold")
        assert "line 03050" not in text_of(app)
        await pilot.press("n", "N")
        assert view.is_filtered


async def test_search_filter_and_markers_go_on_in_a_log_that_was_begun_anew(logged) -> None:
    home, path = logged
    with path.open("a") as log:
        log.write("ERROR: TRAINING FAILED - old\n" + "x\n" * 50)
    async with opened(home, (100, 30), "logged") as (app, pilot):
        view = await full_screen(pilot, app, "x\n")
        await pilot.press("g", "m")
        await seen(pilot, lambda: "FAILED - old" in shown_first(app), "no marker")
        await pilot.press("ampersand", *"needle", "enter")
        await seen(pilot, lambda: "6 matches" in text_of(app), "not filtered")
        os.truncate(path, 0)
        with path.open("a") as log:
            log.write("fresh needle one\nfresh hay\n" + "y\n" * 200)
            log.write("ERROR: TRAINING CRASHED - new\nfresh needle two\n" + "z\n" * 200)
        await seen(pilot, lambda: "2 matches" in text_of(app) and "fresh needle two" in text_of(app), "the filter is dead")
        with path.open("a") as log:
            log.write("fresh needle three\n")
        await seen(pilot, lambda: "fresh needle three" in text_of(app), "what comes later is not filtered in")
        await pilot.press("escape")
        await seen(pilot, lambda: not view.is_filtered and "fresh needle three" in text_of(app), "the filter stays")
        await pilot.press("g")
        await seen(pilot, lambda: "fresh needle one" in shown_first(app), "not at the top")
        await pilot.press("m")
        await seen(pilot, lambda: "CRASHED - new" in shown_first(app), "the marker is that of the log before")


async def test_a_reader_is_told_of_a_rotation_and_finds_the_place_in_the_part_before(logged) -> None:
    home, path = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        view = await full_screen(pilot, app)
        await pilot.press("o")
        await seen(pilot, lambda: "there is no part before" in text_of(app), "not said")
        await pilot.press("slash", *"line 01750", "enter")
        await seen(pilot, lambda: "line 01750" in shown_first(app), "not at the line")
        await pilot.press("escape")
        await pilot.pause(0.4)  # the place is known to the reading thread
        shutil.copy(path, path.with_name("training.log.1"))  # as the keeper rotates
        os.truncate(path, 0)
        with path.open("a") as log:
            log.write("after the rotation\n")
        await seen(pilot, lambda: "the log was rotated" in text_of(app), "a jump without a word")
        await seen(pilot, lambda: "after the rotation" in text_of(app), "the new part is not shown")
        assert not view.is_at_end
        assert "rotated" in text_of(app).splitlines()[0]
        await pilot.press("o")
        await seen(pilot, lambda: "line 01750" in shown_first(app), "not where the reader was")
        assert "training.log.1" in text_of(app).splitlines()[0]
        await pilot.press("o")
        await seen(pilot, lambda: "after the rotation" in text_of(app) and "following" in text_of(app), "no way back")


async def test_a_held_place_stays_as_far_as_the_new_log_goes(logged) -> None:
    home, path = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        view = await full_screen(pilot, app)
        await pilot.press("g")
        await seen(pilot, lambda: "line 00000" in text_of(app), "not at the top")
        await pilot.press("j", "j")
        await pilot.pause(0.4)  # the place is known to the reading thread
        fresh = path.with_name("fresh")
        fresh.write_text("".join(f"new  {at:05d} hay\n" for at in range(2000)))
        fresh.replace(path)
        await seen(pilot, lambda: "new  00002" in shown_first(app), "the place is not held")
        assert not view.is_following
