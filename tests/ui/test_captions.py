"""The captions page: edited in place, undone, and never shown as they were."""

from __future__ import annotations

import asyncio
import shutil
import stat
import threading
from pathlib import Path

import pytest

from fluxtui.persist.files import durable
from fluxtui.persist.home import Home
from fluxtui.screens.keys import keys_in_order
from fluxtui.screens.pages import captions
from tests.ui.conftest import opened, seen, text_of, turned_to
from tests.ui.fabricate import Fabricated, make_record, make_session

DEMO = Path(__file__).parent.parent.parent / "fluxtui" / "demo" / "images"


@pytest.fixture
def captioned(tmp_path: Path) -> tuple[Home, Path]:
    """A session on pictures of the user's own."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, picture in enumerate(sorted(DEMO.glob("*.png"))[:3]):
        shutil.copy(picture, pictures / f"photo{number}.png")
        (pictures / f"photo{number}.txt").write_text(f"a picture of thing {number}")
    (pictures / "photo2.txt").write_bytes(b"\xff\xfe not text")
    (pictures / "photo0.txt").chmod(0o640)
    home = Home.open(tmp_path / "home")
    make_session(home, "mine", dataset__path=str(pictures), dataset__trigger="ohwx")
    return home, pictures


async def test_captions_are_edited_in_place_with_trigger_and_undo(captioned) -> None:
    home, pictures = captioned
    file = pictures / "photo0.txt"
    make_record(home.session("mine"), status="stopped", step=3, reason="stopped")
    async with opened(home, (120, 40), "mine") as (app, pilot):
        await pilot.press("e")
        await seen(pilot, lambda: "a picture of thing 0" in text_of(app) and "▀▀▀" in text_of(app), "no captions")
        await pilot.press("enter")
        await seen(pilot, lambda: type(app.screen).__name__ == "CaptionEditor", "no editor")
        await pilot.press(*" by night", "enter")
        await seen(pilot, lambda: file.read_text() == "a picture of thing 0 by night", "not saved")
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        await pilot.press("t")
        await seen(pilot, lambda: file.read_text() == "ohwx, a picture of thing 0 by night", "no trigger")
        await pilot.press("t")
        assert "has ohwx already" in text_of(app)
        await pilot.press("u", "u")
        await seen(pilot, lambda: file.read_text() == "a picture of thing 0", "not undone")
        await pilot.press("enter")
        await seen(pilot, lambda: type(app.screen).__name__ == "CaptionEditor", "no editor")
        await pilot.press(*"zzz", "escape")
        await pilot.press("G", "enter")
        await seen(pilot, lambda: "not UTF-8" in text_of(app), "not said", 5)
        assert file.read_text() == "a picture of thing 0"
        assert [path.name for path in pictures.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("closes", ["escape", "enter"])
async def test_keys_typed_after_the_editor_of_a_caption_was_closed_wait_for_nothing(
    captioned, closes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_in_order, "LOST", 600.0)  # a key that is given up by time alone would show
    home, _ = captioned
    make_record(home.session("mine"), status="stopped", step=3, reason="stopped")
    async with opened(home, (120, 40), "mine") as (app, pilot):
        await pilot.press("e")
        await seen(pilot, lambda: "a picture of thing 0" in text_of(app), "no captions")
        async with asyncio.timeout(30):
            await pilot.press("enter", "x", closes, "j", "enter")
        assert type(app.screen).__name__ == "CaptionEditor"
        assert app.screen._area.text == "a picture of thing 1"


async def test_captions_are_written_and_undone_in_the_order_of_the_keys_however_slow_the_disk_is(
    captioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, pictures = captioned
    file, may_write = pictures / "photo0.txt", threading.Event()
    write_file = durable.write_file

    def slowly(path: Path, *rest: object) -> None:
        """The first one is the slowest, as on a disk that wakes up."""
        if path == file and b"ohwx" in rest[0] and not may_write.is_set():
            assert may_write.wait(20)
        write_file(path, *rest)

    monkeypatch.setattr(durable, "write_file", slowly)
    async with opened(home, (120, 40), "mine") as (app, pilot):
        await pilot.press("enter", "7")
        await seen(pilot, lambda: "a picture of thing 0" in text_of(app), "no captions")
        await pilot.press("t", "t")
        assert "has ohwx already" in text_of(app), "the second key saw what the first one did not yet write"
        await pilot.press("j", "t", "u", "u")
        assert app.screen.page.here() == 0, "the one that was undone is in view"
        may_write.set()
        await seen(pilot, lambda: not app.screen.page._files._waiting, "not written")
        assert file.read_text() == "a picture of thing 0"
        assert (pictures / "photo1.txt").read_text() == "a picture of thing 1"
        await seen(pilot, lambda: "ohwx" not in text_of(app).partition("photo0")[2], "still shown")


async def test_a_reading_of_the_captions_that_comes_late_shows_nothing_old(captioned, monkeypatch: pytest.MonkeyPatch) -> None:
    home, pictures = captioned
    begun, may_end = threading.Event(), threading.Event()
    async with opened(home, (120, 40), "mine") as (app, pilot):
        await pilot.press("enter", "7")
        await seen(pilot, lambda: "a picture of thing 0" in text_of(app), "no captions")
        page, looked = app.screen.page, captions.pairs_of

        def slowly(part):
            found = looked(part)
            texts = {pair.caption: captions._shown(pair.caption) for pair in found.items}
            begun.set()
            assert may_end.wait(20)
            monkeypatch.setattr(captions, "_shown", lambda path: texts[path])  # as they were when it began
            return found

        monkeypatch.setattr(captions, "pairs_of", slowly)
        page.shown()
        await seen(pilot, begun.is_set, "no reading")
        monkeypatch.setattr(captions, "pairs_of", looked)
        (pictures / "photo0.txt").write_text("what it says now")
        page.shown()
        await seen(pilot, lambda: "what it says now" in text_of(app), "the later reading is not shown")
        taken = page._taken
        may_end.set()
        await pilot.pause(0.5)
        assert page._taken == taken
        assert "what it says now" in text_of(app), "the late one took its place"


async def test_a_caption_of_a_further_folder_gets_the_trigger_of_that_folder(captioned) -> None:
    home, pictures = captioned
    more = pictures.parent / "more"
    more.mkdir()
    shutil.copy(pictures / "photo0.png", more)
    (more / "photo0.txt").write_text("a picture of another")
    make_session(home, "two", dataset__path=str(pictures), dataset__trigger="ohwx", dataset__folders=[f"{more} --trigger vexo"])
    make_record(home.session("two"), status="stopped", step=3, reason="stopped")
    async with opened(home, (120, 40), "two") as (app, pilot):
        await pilot.press("e")
        await seen(pilot, lambda: "a picture of thing 0" in text_of(app), "no captions")
        await pilot.press("G", "t")
        await seen(pilot, lambda: (more / "photo0.txt").read_text() == "vexo, a picture of another", "no trigger")
    assert (pictures / "photo0.txt").read_text() == "a picture of thing 0"


async def test_the_demos_captions_are_not_edited(states: Fabricated) -> None:
    async with opened(states.home, (120, 40), "ring-lora") as (app, pilot):
        await turned_to(pilot, app, "7")
        await seen(pilot, lambda: "heart-01.png" in text_of(app), "no captions")
        await pilot.press("enter")
        assert "part of FluxTUI" in text_of(app)
