"""What the UI says and where: notices, help, config.toml, the words at the end; and which key reaches which action."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from fluxtui.actions import BY_NAME, CHAINS, TABLE, clashes, live_keys, of_contexts
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.overview import look_all
from fluxtui.screens import jobs
from fluxtui.screens.dialogs.export_box import ExportBox
from fluxtui.screens.ending import goodbye
from fluxtui.screens.form import jobs as form_jobs
from fluxtui.screens.form.fields import Evaluation
from fluxtui.screens.form_screen import FormScreen
from fluxtui.screens.help import HelpScreen
from fluxtui.screens.log_screen import LogScreen
from fluxtui.screens.pages.caption_editor import CaptionEditor
from fluxtui.screens.session import SessionScreen
from fluxtui.screens.settings import read_settings
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import Fabricated, make_metrics, make_record, make_session
from tests.ui.test_every_key import WAYS


class Held:
    """The session's lock, as a keeper holds it."""

    def __init__(self, folder: SessionFolder) -> None:
        lock = Lock.take(folder.lock_file)
        assert lock is not None
        self.close = lock.release


async def on_page(pilot, app, key: str) -> None:
    await pilot.press("enter", key)
    await seen(pilot, lambda: isinstance(app.screen, SessionScreen), "not opened")
    await pilot.pause()


async def test_a_notice_is_put_away_where_space_is_typed_and_the_hidden_ones_are_counted(empty_home) -> None:
    async with opened(empty_home, (80, 24)) as (app, pilot):
        for number in range(5):
            app.say(f"number {number} failed: something", "bad", stays=True)
        await seen(pilot, lambda: "space puts this away, +2 more" in text_of(app), "not counted")
        await pilot.press("n")
        await seen(pilot, lambda: isinstance(app.screen, FormScreen), "no form")
        await seen(pilot, lambda: "^x puts this away, +2 more" in text_of(app), "the key of the form is not said")
        await pilot.press("space", "ctrl+x")
        assert "number 4" not in text_of(app)
        assert "number 3" in text_of(app)
        await pilot.press(*["ctrl+x"] * 4)
        assert not app.board_of_notices.notices


@pytest.mark.parametrize("key", ["2", "3"])
async def test_the_log_opens_from_pages_whose_cursor_has_its_letter_and_help_says_how(states: Fabricated, key: str) -> None:
    async with opened(states.home, (80, 60), "paused-fox") as (app, pilot):
        await on_page(pilot, app, key)
        await pilot.press("l")
        assert isinstance(app.screen, SessionScreen)
        await pilot.press("question_mark")
        await seen(pilot, lambda: isinstance(app.screen, HelpScreen), "no help")
        here = text_of(app)[: text_of(app).find("On other screens")]
        assert [line for line in here.splitlines() if line.startswith("  L  ") and "The log, full screen." in line], here
        await pilot.press("q", "L")
        await seen(pilot, lambda: isinstance(app.screen, LogScreen), "no log")


async def test_the_palette_and_a_click_on_the_footer_reach_a_pages_own_actions(states: Fabricated) -> None:
    async with opened(states.home, (120, 36), "paused-fox") as (app, pilot):
        await on_page(pilot, app, "2")
        page = app.screen.pages["metrics"]
        await pilot.press("colon", *"log sc", "enter")
        await seen(pilot, lambda: page.is_log, "the palette does not reach the page")
        footer = app.screen.footer
        start = next(start for start, _, name in footer._places if name == "metric-log")
        await pilot.click(footer, offset=(start, 0))
        await seen(pilot, lambda: not page.is_log, "a click does not reach the page")


@pytest.mark.parametrize("context", list(WAYS))
async def test_the_chains_of_the_table_are_those_of_the_screens(states: Fabricated, context: str) -> None:
    """What is live together on a screen is one of the combinations that a remapping is held against."""
    async with opened(states.home, (120, 36), "paused-fox") as (app, pilot):
        for key in WAYS[context]:
            await pilot.press(key)
            await pilot.pause()
        maps = [bindings.key_to_bindings.values() for _, bindings in app.screen._modal_binding_chain]
        live = {one.id for values in maps for bindings in values for one in bindings} & set(BY_NAME)
        assert live in [{action.name for action in of_contexts(chain)} for chain in CHAINS], sorted(live)


def test_every_action_is_reached_by_a_key_somewhere() -> None:
    for action in TABLE:
        assert live_keys(action, CHAINS, {}), action.name
    metrics = [chain for chain in CHAINS if chain[0] == "metrics"]
    assert live_keys(BY_NAME["log"], metrics, {}) == ["L"]


@pytest.mark.parametrize(
    ("keys", "both"),
    [
        ({"kill": "j"}, "'down' and 'kill'"),
        ({"stop": "1"}, "'stop' and 'tab-overview'"),
        ({"log-search": "g"}, "'top' and 'log-search'"),
        ({"redraw": "n"}, "'new' and 'redraw'"),
        ({"caption-trigger": "r"}, "'caption-trigger' and 'resume'"),
    ],
)
def test_a_remapping_that_clashes_with_what_is_live_beside_it_is_said(keys: dict[str, str], both: str) -> None:
    assert any(both in sentence for sentence in clashes(keys)), clashes(keys)


def test_a_remapping_may_do_on_one_screen_what_another_screen_does_otherwise() -> None:
    assert clashes({"log-next": "x", "caption-trigger": "w", "metric-log": "L"}) != []  # L opens the log there
    assert clashes({"log-next": "x"}) == []


def test_a_setting_of_the_ui_that_is_none_is_said_with_what_is_possible(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[ui]\ntheme = "nrod"\nglyphs = "asci"\nfont = "big"\n')
    settings = read_settings(path)
    assert (settings.theme, settings.glyphs) == ("", "")
    theme, glyphs, other = settings.troubles
    assert "'nrod'" in theme
    assert "nord" in theme
    assert "fluxtui-light" in theme
    assert glyphs == "config.toml: [ui] glyphs = 'asci' is not one of ascii, emoji, plain"
    assert "'font'" in other


def test_every_line_of_config_toml_that_nobody_takes_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    keys = 'kill = "ctrl-k"\nstop = "f12,ctrl+shift+x,question_mark"\n'
    path.write_text(f'on-end = "x"\non_end = 5\nmodels = "~/models"\n[keys]\n{keys}')
    settings = read_settings(path)
    assert settings.keys == {}, "half of a remapping is a trap"
    unknown, command, table, key = settings.troubles
    assert "no 'on-end', only on_end, [ui]" in unknown
    assert "on_end is a command" in command
    assert "models is a table" in table
    assert "'ctrl-k' of 'kill' is no key" in key


def test_every_key_of_the_table_could_stand_in_config_toml(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[keys]\n" + "".join(f"{action.name} = '{action.keys}'\n" for action in TABLE))
    assert read_settings(path).troubles == ()


async def test_help_shows_the_command_of_a_key_at_80_columns_and_claims_no_more(states: Fabricated) -> None:
    async with opened(states.home, (80, 240), "paused-fox") as (app, pilot):
        await pilot.press("question_mark")
        text = text_of(app)
        for action in TABLE:
            assert action.verb in text, action.name
        assert "Every key here has a command" not in text
        assert all(len(line) <= 80 for line in text.splitlines())


async def test_an_editor_and_a_prompt_are_left_without_esc(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "one.png").write_bytes(b"")
    (pictures / "one.txt").write_text("as it was")
    make_session(home, "mine", dataset__path=str(pictures))
    async with opened(home, (80, 24), "mine") as (app, pilot):
        await on_page(pilot, app, "7")
        await seen(pilot, lambda: "as it was" in text_of(app), "no captions")
        await pilot.press("enter")
        await seen(pilot, lambda: isinstance(app.screen, CaptionEditor) and "^g" in text_of(app), "no editor, or no way out")
        await pilot.press(*"zzz", "ctrl+g")
        await seen(pilot, lambda: isinstance(app.screen, SessionScreen), "ctrl+g does not leave")
        assert (pictures / "one.txt").read_text() == "as it was"
        app.export("mine", "step-000000001", False)
        await seen(pilot, lambda: isinstance(app.screen, ExportBox) and "^g" in text_of(app), "no prompt, or no way out")
        await pilot.press("ctrl+g")
        await seen(pilot, lambda: isinstance(app.screen, SessionScreen), "ctrl+g does not leave")


def test_goodbye_names_what_trains_what_waits_and_what_needs_somebody(states: Fabricated) -> None:
    lines = goodbye(look_all(states.home))
    assert lines[0] == "training goes on: going-down stopping, just-begun starting, portrait-dev 40 %, ring-lora 57 %"
    assert lines[1] == "waiting: waiting-cat"
    assert lines[2].startswith("need attention: file-gone changed, night-run failed, no-beat silent, ")
    assert lines[2].endswith(" and 2 more")
    assert goodbye([]) == []


def test_a_start_that_waits_says_so_and_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "patient")
    monkeypatch.setattr("fluxtui.control.start", lambda *_, **__: 1)
    monkeypatch.setattr("fluxtui.control.edit", lambda *_: [])
    monkeypatch.setattr(jobs, "SETTLES", 0.3)
    with closing(Held(folder)):
        make_record(folder, status="queued", waiting_for="the CPU, used by ring-lora")
        waits = "patient waits for the CPU, used by ring-lora and starts by itself"
        assert jobs.started(home, "patient").startswith(waits)
        assert form_jobs.edited(home, "patient", Evaluation({}), starts=True).startswith(waits)
        make_record(folder, status="queued")
        assert jobs.started(home, "patient") == "patient waits for its turn and starts by itself, also when this window closes"
        make_record(folder, status="running")
        assert jobs.started(home, "patient").startswith("patient started; ")


async def test_the_demo_is_selected_among_other_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.open(tmp_path / "home")
    make_record(make_session(home, "one"), status="failed", step=50, reason="x")
    monkeypatch.setattr("fluxtui.control.create", lambda home, name, **_: make_session(home, name))
    monkeypatch.setattr("fluxtui.control.start", lambda *_, **__: 1)
    async with opened(home, (80, 24), "one") as (app, pilot):
        await pilot.press("D")
        await seen(pilot, lambda: app.board.sessions.selected.name == "demo", "the old one stays selected")


async def test_the_page_of_samples_says_that_there_is_nothing_to_draw(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    make_session(home, "none", sample__prompts=[])
    async with opened(home, (80, 24), "none") as (app, pilot):
        await on_page(pilot, app, "3")
        await seen(pilot, lambda: "have no prompts to draw; e sets some" in text_of(app), "not said")


async def test_the_page_of_samples_says_what_p_does_now(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "one")
    make_record(folder, status="stopped", step=50, reason="stopped by the user")
    make_metrics(folder, 50)
    async with opened(home, (80, 24), "one") as (app, pilot):
        await on_page(pilot, app, "3")
        await seen(pilot, lambda: "p draws them, but only while it trains; one is" in text_of(app), "not said")
        with closing(Held(folder)):
            make_record(folder, status="running", step=50)
            await seen(pilot, lambda: "p draws them now." in text_of(app), "not said while it trains")
