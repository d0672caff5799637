"""The log view over real files that grow, are cut, vanish, and hold anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxtui.persist.home import Home
from fluxtui.screens.log import source as log_source
from fluxtui.screens.log_screen import LogScreen
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import make_record, make_session


@pytest.fixture
def logged(tmp_path: Path) -> tuple[Home, Path]:
    """A session with a log of 3000 lines."""
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "logged")
    make_record(folder, status="stopped", step=5, reason="stopped by the user")
    lines = [f"line {number:05d} {'needle' if number % 1000 == 500 else 'hay'}" for number in range(3000)]
    lines[700:703] = ["=" * 80, "ERROR: TRAINING FAILED - it broke", "=" * 80]
    folder.log_file.write_text("\n".join(lines) + "\n")
    return home, folder.log_file


async def at_end(pilot, app, last: str) -> LogScreen:
    await seen(pilot, lambda: isinstance(app.screen, LogScreen) and last in text_of(app), f"not at {last}")
    return app.screen


async def test_it_opens_at_the_end_and_follows_what_is_written(logged) -> None:
    home, path = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await pilot.press("l")
        await at_end(pilot, app, "line 02999")
        with path.open("a") as log:
            log.write("line 03000 new\npartial")
        await seen(pilot, lambda: "line 03000 new" in text_of(app) and "partial" in text_of(app), "growth is not followed")
        with path.open("a") as log:
            log.write(" whole\n")
        await seen(pilot, lambda: "partial whole" in text_of(app), "the line's rest is not shown")


async def test_a_reader_keeps_the_place_and_is_told_what_is_new(logged) -> None:
    home, path = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await pilot.press("l")
        screen = await at_end(pilot, app, "line 02999")
        await pilot.press("g")
        await seen(pilot, lambda: "line 00000" in text_of(app), "not at the top")
        with path.open("a") as log:
            log.writelines(f"line {number:05d} new\n" for number in range(3000, 3042))
        await seen(pilot, lambda: "+42 new" in text_of(app), "what is new is not counted")
        assert "line 00000" in text_of(app)
        await pilot.press("ctrl+d", "j", "k")
        await seen(pilot, lambda: "line 00030" in text_of(app), "no page down")
        await pilot.press("G")
        await seen(pilot, lambda: "line 03041 new" in text_of(app) and "following" in text_of(app), "it does not follow again")
        assert screen.view.is_following


async def test_a_log_that_is_cut_begun_anew_or_gone_is_followed(logged) -> None:
    home, path = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await pilot.press("l")
        await at_end(pilot, app, "line 02999")
        os.truncate(path, 0)
        with path.open("a") as log:
            log.write("after the cut\n")
        await seen(pilot, lambda: "after the cut" in text_of(app) and "line 02999" not in text_of(app), "the cut is not seen")
        path.rename(path.with_suffix(".1"))
        path.write_text("another file\n")
        await seen(pilot, lambda: "another file" in text_of(app), "the new file is not seen")
        path.unlink()
        await seen(pilot, lambda: "no log yet" in text_of(app), "its end is not seen")
        path.write_text("and again\n")
        await seen(pilot, lambda: "and again" in text_of(app), "it is not found again")


async def test_search_walks_through_matches_and_around_the_end(logged) -> None:
    home, _ = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await pilot.press("l")
        screen = await at_end(pilot, app, "line 02999")
        await pilot.press("g", "slash", *"needle", "enter")
        await seen(pilot, lambda: "3 matches" in text_of(app), "not counted")
        await seen(pilot, lambda: screen.view.first == 500, "not at the first match")
        for key, line in (("n", 1500), ("n", 2500), ("n", 500), ("N", 2500), ("N", 1500)):
            await pilot.press(key)
            assert screen.view.first == line, key
        await pilot.press("slash", "ctrl+u", *"le (broken", "enter")
        await seen(pilot, lambda: "cannot be searched for" in text_of(app), "a broken pattern is not said")
        await pilot.press("slash", "ctrl+u", *r"0250\d needle", "enter")
        await seen(pilot, lambda: "1 match" in text_of(app), "a pattern finds nothing")


async def test_a_filter_shows_only_what_matches_with_its_line_numbers(logged) -> None:
    home, path = logged
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await pilot.press("l")
        await at_end(pilot, app, "line 02999")
        await pilot.press("ampersand", *"needle", "enter")
        await seen(pilot, lambda: all(f"line {at:05d} needle" in text_of(app) for at in (500, 1500, 2500)), "not filtered")
        assert "hay" not in text_of(app)
        assert " 501 line 00500 needle" in text_of(app)
        with path.open("a") as log:
            log.write("a new needle\n")
        await seen(pilot, lambda: "a new needle" in text_of(app), "what comes later is not filtered in")
        await pilot.press("escape")
        await seen(pilot, lambda: "hay" in text_of(app), "the filter stays")


async def test_markers_wrap_and_sideways(logged) -> None:
    home, path = logged
    with path.open("a") as log:
        log.write("x" * 300 + "END\n")
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await pilot.press("l")
        await seen(pilot, lambda: "xxxx" in text_of(app), "not read")
        assert "END" not in text_of(app)
        await pilot.press("w")
        assert "xEND" in text_of(app)
        await pilot.press("w", *["right"] * 14)
        assert "xEND" in text_of(app)
        await pilot.press(*["left"] * 14, "g", "m")
        await seen(pilot, lambda: "ERROR: TRAINING FAILED" in text_of(app).splitlines()[1], "not at the marker")


async def test_a_log_too_long_to_index_at_once_is_shown_from_its_end(logged, monkeypatch: pytest.MonkeyPatch) -> None:
    home, path = logged
    monkeypatch.setattr(log_source, "AT_ONCE", 4096)
    pages = []
    source = log_source.LogSource(path, pages.append)
    source.want_end(50)
    assert source._look() is True
    assert pages[0].indexed < 1
    assert pages[0].lines[-1].startswith("line 02999")
    while source._look():
        pass
    assert pages[-1].count == 3000
    assert pages[-1].lines[-1].startswith("line 02999")
    tail_first = pages[0].lines[0]
    assert pages[-1].moved == int(tail_first.split()[1])
    assert home.session_names() == ["logged"]


async def test_lines_are_neither_lost_nor_reordered_while_a_log_floods(logged) -> None:
    import threading

    _, path = logged
    pages = []
    source = log_source.LogSource(path, pages.append)
    source.want_end(20)

    def flood() -> None:
        with path.open("a") as log:
            for start in range(3000, 103_000, 1000):
                log.writelines(f"line {number:05d} flood\n" for number in range(start, start + 1000))
                log.flush()

    writer = threading.Thread(target=flood)
    writer.start()
    while writer.is_alive() or not pages or pages[-1].count < 103_000:
        source._look()
    for page in pages:
        for at, line in enumerate(page.lines, page.first):
            if at >= 703 and not line.endswith("d") and "flood" not in line:
                continue  # a line that was being written
            if at >= 3000 and line.endswith("flood"):
                assert line == f"line {at:05d} flood"
    assert pages[-1].count == 103_000


async def test_what_a_log_holds_is_shown_inert(logged) -> None:
    home, path = logged
    with path.open("ab") as log:
        log.write(b"\x1b[31mred\x1b[0m \x00nul \xff\xfe bad [bold]no markup[/] \x1b]52;c;aGk=\x07 50%\r100% done\n")
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await seen(pilot, lambda: "100% done" in text_of(app), "not shown")
        text = text_of(app)
        assert "\x1b" not in text
        assert "\x00" not in text
        await pilot.press("l")
        await seen(pilot, lambda: "100% done" in text_of(app), "not shown full screen")


async def test_a_pane_that_opens_high_or_grows_is_filled_to_its_top(logged: tuple[Home, Path]) -> None:
    """A log is opened before its pane knows its size: what it then shows must not be what a pane of no rows would need."""
    home, _ = logged
    async with opened(home, (200, 60), "logged") as (app, pilot):
        pane = app.board.log_pane

        def is_filled() -> bool:
            texts = [line.text for line in pane.body(*pane.inner)]
            return len(texts) == pane.inner[1] and all("line " in text for text in texts)

        await seen(pilot, lambda: pane.inner[1] > 25 and is_filled(), "rows stay empty")
        await pilot.resize_terminal(200, 150)
        await seen(pilot, lambda: pane.inner[1] > 80 and is_filled(), "rows stay empty once it grew")
