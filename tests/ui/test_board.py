"""The dashboard in every size and state, and each of its keys."""

from __future__ import annotations

import asyncio
import time

import pytest

from fluxtui.actions import BY_NAME, of_contexts
from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier
from fluxtui.screens.log.pane import STAYS
from tests.ui.conftest import opened, same_as_snapshot, seen, still, text_of
from tests.ui.fabricate import Fabricated, every_state, make_log, make_session

SIZES = [(80, 24), (120, 36), (200, 60)]


async def drawn(pilot, app) -> None:
    """Everything that comes from threads has come."""
    await seen(pilot, lambda: app.board.gauges.host is not None, "no gauges")
    await seen(pilot, lambda: app.board.log_pane.page.is_read, "no log")
    await seen(pilot, lambda: app.board.attempts._records or app.board.sessions.selected is None, "no attempts")
    await seen(pilot, lambda: app.board.selected.history.steps or app.board.sessions.selected is None, "no metrics")


async def walked_to(pilot, app, name: str) -> None:
    """The session selected by walking down from the top, so that the panel is scrolled the same way each time."""
    await pilot.press("g")
    for _ in range(len(app.sessions)):
        await pilot.pause()
        if app.board.sessions.selected.name == name:
            return
        await pilot.press("j")
    raise AssertionError(f"no {name} below the top")


@pytest.mark.parametrize("size", SIZES)
async def test_dashboard_of_every_state(states: Fabricated, size) -> None:
    async with opened(states.home, size, "ring-lora") as (app, pilot):
        await walked_to(pilot, app, "ring-lora")
        await drawn(pilot, app)
        same_as_snapshot(f"board-{size[0]}x{size[1]}", still(text_of(app)))


async def test_first_run_says_what_to_do_in_three_lines(empty_home) -> None:
    async with opened(empty_home, (80, 24)) as (app, pilot):
        text = text_of(app)
        lines = [line for line in text.splitlines() if line.strip().startswith(("D  ", "n  ", "?  "))]
        assert len(lines) == 3, text
        same_as_snapshot("first-run-80x24", still(text))
        del pilot


async def test_every_state_has_glyph_and_word_and_its_reason(states: Fabricated) -> None:
    async with opened(states.home, (160, 60)) as (app, _):
        text = text_of(app)
        for session in app.sessions.values():
            line = next(line for line in text.splitlines() if f" {session.name} " in line and session.state in line)
            assert app.look.glyphs.state(session.state) in line
        assert "non-finite loss at step 40" in text
        assert "waiting for the CPU, used by ring-lora" in text
        assert "killed by the OOM killer" in text


async def test_it_opens_on_what_needs_attention(states: Fabricated) -> None:
    async with opened(states.home, (80, 24)) as (app, _):
        assert app.board.sessions.selected.state in {"suspended", "silent", "stalled"}


async def test_movement_by_letters_and_arrows(states: Fabricated) -> None:
    async with opened(states.home, (100, 30)) as (app, pilot):
        table = app.board.sessions
        names = [session.name for session in table.shown]
        for key, at in (
            ("j", 1),
            ("down", 2),
            ("k", 1),
            ("up", 0),
            ("G", len(names) - 1),
            ("g", 0),
            ("end", len(names) - 1),
            ("home", 0),
        ):
            await pilot.press(key)
            assert table.selected.name == names[at], key
        await pilot.press("pagedown")
        assert table.selected.name not in names[:2]
        assert table.selected.name in text_of(app)


async def test_a_filter_narrows_as_one_types_and_escape_shows_all(states: Fabricated) -> None:
    async with opened(states.home, (100, 30)) as (app, pilot):
        await pilot.press("slash", *"failed oom")
        assert [session.name for session in app.board.sessions.shown] == ["night-run"]
        await pilot.press("enter")
        assert app.board.sessions.has_focus
        assert "night-run" in text_of(app)
        await pilot.press("escape")
        assert len(app.board.sessions.shown) == len(app.sessions)
        await pilot.press("slash", *"zzz")
        assert "No session matches" in text_of(app)
        await pilot.press("escape")
        assert len(app.board.sessions.shown) == len(app.sessions)


async def test_groups_and_orders(states: Fabricated) -> None:
    async with opened(states.home, (100, 30)) as (app, pilot):
        await pilot.press("a")
        assert all(session.is_active or session.state == "elsewhere" for session in app.board.sessions.shown)
        await pilot.press("a")
        assert {"failed", "lost", "stalled"} <= {session.state for session in app.board.sessions.shown}
        await pilot.press("a", "a", "o")
        names = [session.name for session in app.board.sessions.shown]
        assert names == sorted(names)
        assert "by name" in text_of(app)


async def test_the_selected_session_stays_selected_wherever_it_moves(states: Fabricated) -> None:
    async with opened(states.home, (100, 30), "paused-fox") as (app, pilot):
        await pilot.press("o", "o")
        assert app.board.sessions.selected.name == "paused-fox"


async def test_guard_line_and_the_one_key_that_comes_next(states: Fabricated) -> None:
    async with opened(states.home, (120, 36)) as (app, pilot):
        for name, *expected in (
            ("ring-lora", "guard: step 0.074 s of 300 s", "x stops it with a checkpoint"),
            ("stuck-batch", "guard: batch for 41 s (limit 300 s)"),
            ("paused-fox", "r resumes from step-000000192"),
            ("too-hot", "non-finite loss at step 40", "lower train.learning_rate"),
            ("power-cut", "machine rebooted at step 310", "r resumes from step-000000300"),
            ("a-new-one", "s starts it"),
            ("blue-vase", "y copies its path; 4 E exports it, v proves it again", "blue-vase/blue-vase"),
            ("other-pod", "x stops it with a checkpoint; q leaves"),
        ):
            app.board.sessions.select(name)
            for text in expected:
                await seen(pilot, lambda text=text: text in text_of(app), f"{text} of {name}")


async def test_zoom_gives_a_panel_the_room_and_takes_it_back(states: Fabricated) -> None:
    async with opened(states.home, (100, 30), "ring-lora") as (app, pilot):
        height = app.board.log_pane.size.height
        await pilot.press("tab", "tab", "plus")
        assert app.board.log_pane.has_focus
        assert app.board.log_pane.size.height > height
        await pilot.press("plus")
        assert not app.board.sessions.display
        await pilot.press("underscore", "minus")
        assert app.board.log_pane.size.height == height


async def test_every_size_from_20x5_up_draws_something(states: Fabricated) -> None:
    async with opened(states.home, (80, 24)) as (app, pilot):
        for size in (
            (20, 5),
            (1, 1),
            (60, 20),
            (61, 21),
            (99, 24),
            (100, 40),
            (159, 30),
            (160, 61),
            (300, 100),
            (3, 50),
            (20, 5),
            (80, 24),
        ):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            text = text_of(app)
            if 10 < size[0] <= 60:
                assert "61×21 is needed" in text, size
        await pilot.press("j")
        assert "sessions" in text_of(app)


async def test_plain_ascii_and_no_colour_show_the_same_words(states: Fabricated) -> None:
    async with opened(states.home, (100, 30), "ring-lora", TerminalKind(Tier.ASCII, False)) as (app, pilot):
        await walked_to(pilot, app, "ring-lora")
        await drawn(pilot, app)
        text = text_of(app)
        assert text.isascii(), sorted({character for character in text if not character.isascii()})
        same_as_snapshot("board-ascii-100x30", still(text))


async def test_refused_keys_say_why_and_nothing_happens(states: Fabricated, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a refused key reached control")

    for name in ("start", "stop", "kill", "checkpoint", "sample", "remove", "verify"):
        monkeypatch.setattr(f"fluxtui.control.{name}", never)
    cases = (
        ("ring-lora", "s", "ring-lora is running already"),
        ("ring-lora", "r", "nothing to resume"),
        ("ring-lora", "d", "x stops it first"),
        ("ring-lora", "v", "only a completed one can be proven"),
        ("blue-vase", "x", "nothing of it is running"),
        ("blue-vase", "K", "nothing of it is running"),
        ("blue-vase", "s", "blue-vase is completed: N makes one that trains on"),
        ("a-new-one", "K", "has not been started yet: s starts it"),
        ("a-new-one", "r", "has not been started yet: s starts it"),
        ("power-cut", "K", "nothing of it is running"),
        ("paused-fox", "s", "r resumes it"),
        ("waiting-cat", "c", "this needs a running one"),
        ("going-down", "x", "is stopping already"),
        ("other-pod", "s", "running on pod-7"),
    )
    async with opened(states.home, (120, 36)) as (app, pilot):
        for session, key, why in cases:
            app.board.sessions.select(session)
            await pilot.press(key)
            said = app.board_of_notices.notices[-1].text
            assert why in said, (session, key, said)
            await seen(pilot, lambda said=said: said[:30] in text_of(app), "not shown")


async def test_kill_asks_first_with_no_in_focus(states: Fabricated, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []

    def kill(home, name):
        from fluxtui.control import Answer

        killed.append(name)
        return Answer(f"{name}: it is being ended.")

    monkeypatch.setattr("fluxtui.control.kill", kill)
    async with opened(states.home, (120, 36), "ring-lora") as (app, pilot):
        for keys in (("K", "enter"), ("K", "escape"), ("K", "n"), ("K", "q"), ("K", "right", "left", "enter")):
            await pilot.press(*keys)
            await pilot.pause()
            assert killed == [], keys
        await pilot.press("K")
        await seen(pilot, lambda: "What was trained since" in text_of(app), "no question")
        assert "since step-000000200 is lost" in app.screen._question._text
        await pilot.press("y")
        await seen(pilot, lambda: killed == ["ring-lora"], "not killed")
        await seen(pilot, lambda: "it is being ended" in text_of(app), "not said")


async def test_every_key_of_the_dashboard_does_something_without_a_fault(
    states: Fabricated, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxtui.control import Answer

    for name in ("start", "stop", "kill", "checkpoint", "sample", "remove", "verify", "create"):
        monkeypatch.setattr(f"fluxtui.control.{name}", lambda *_, **__: Answer("done"))
    keys = [action.keys.split(",")[0] for action in of_contexts(["board", "list"]) if action.name not in {"quit", "verify"}]
    async with opened(states.home, (120, 36), "ring-lora") as (app, pilot):
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
            for _ in range(5):
                if app.screen is not app.board:
                    await pilot.press("escape")
                    await pilot.pause()
            assert app.screen is app.board, key
            if app.board.filter.is_open:
                await pilot.press("escape")
        assert "fault" not in text_of(app)


async def test_help_and_palette_know_every_action_of_the_table(states: Fabricated) -> None:
    async with opened(states.home, (120, 200)) as (app, pilot):
        await pilot.press("question_mark")
        text = text_of(app)
        for action in BY_NAME.values():
            assert action.help.split(".")[0][:30] in text, action.name
        await pilot.press("q")
        assert app.screen is app.board
        await pilot.press("colon", *"zoom ou")
        assert "zoom out" in text_of(app)
        await pilot.press("escape")
        await pilot.press("ctrl+p", *"sort", "enter")
        assert app.board.sessions.sort == "name"


async def test_remapped_keys_are_shown_and_obeyed(states: Fabricated) -> None:
    from fluxtui.screens.settings import Settings

    async with opened(states.home, (160, 36), settings=Settings(keys={"sort": "z", "help": "f1"})) as (app, pilot):
        await pilot.press("o")
        assert app.board.sessions.sort == "activity"
        await pilot.press("z")
        assert app.board.sessions.sort == "name"
        assert "f1 help" in text_of(app)


async def test_a_thousand_sessions_scroll_smoothly(tmp_path) -> None:
    made = every_state(tmp_path / "home", 0)
    try:
        template = make_session(made.home, "template")
        spec = template.spec_file.read_bytes()
        for number in range(1000):
            folder = made.home.sessions / f"many-{number:04d}"
            (folder / "attempts").mkdir(parents=True)
            (folder / "session.toml").write_bytes(spec.replace(b'"template"', f'"many-{number:04d}"'.encode()))
        async with opened(made.home, (120, 36)) as (app, pilot):
            assert len(app.sessions) == 1018
            took = []
            for key in ["j"] * 10 + ["pagedown"] * 10 + ["G", "g", "G"]:
                began = time.thread_time()
                await pilot.press(key)
                took.append(time.thread_time() - began)  # of the UI's own thread: other processes do not count
            assert sorted(took)[len(took) // 2] < 0.06, took
            assert app.board.sessions.selected is app.board.sessions.shown[-1]
    finally:
        made.close()


async def test_a_held_key_reads_no_log_that_it_passes_and_a_single_press_reads_one_at_once(
    home_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxtui.persist.home import Home
    from fluxtui.screens.log.source import LogSource

    home = Home.open(home_path)
    for at in range(40):
        folder = make_session(home, f"session-{at:02d}")
        make_log(folder, 3, f"the log of session-{at:02d}")
    begun: list[str] = []
    begin = LogSource.start
    monkeypatch.setattr(LogSource, "start", lambda self: (begun.append(self._path.parent.name), begin(self))[1])
    async with opened(home, (80, 24), "session-05") as (app, pilot):
        pane = app.board.log_pane
        await seen(pilot, lambda: "the log of session-05" in text_of(app), "no log")
        await asyncio.sleep(2 * STAYS)
        begun.clear()
        app.board.sessions.walk_to(6)
        await pilot.pause()
        assert begun == ["session-06"]  # not a moment later
        for at in range(7, 38):
            app.board.sessions.walk_to(at)
            await pilot.pause(0.005)
        assert "the log of" not in text_of(app)  # not that of another session below this one's name
        await seen(pilot, lambda: "the log of session-37" in text_of(app), "the one it stays at is not read")
        assert begun[-1] == "session-37"
        assert len(begun) < 8, begun  # two; a few more where a loaded machine took its time between two keys
        assert pane.path == home.session("session-37").log_file


async def test_who_reads_the_attempts_stays_where_he_is_while_the_session_goes_on(states: Fabricated) -> None:
    async with opened(states.home, (200, 60), "ring-lora") as (app, pilot):
        await drawn(pilot, app)
        attempts = app.board.attempts
        records = list(attempts._records) * 60
        attempts.take(records)
        await pilot.pause()
        attempts.focus()
        await pilot.press("j", "j", "j")
        attempts.take(records)  # a beat of its keeper
        await pilot.pause()
        assert attempts.here() == 3
        app.board.sessions.walk_to(app.board.sessions.here() + 1)
        await pilot.pause()
        assert attempts.here() == 0


async def test_the_focus_is_where_it_was_once_there_is_room_again(states: Fabricated) -> None:
    async with opened(states.home, (80, 24), "ring-lora") as (app, pilot):
        for keys in ((), ("enter",)):
            await pilot.press(*keys)
            before = app.screen.focused
            await pilot.resize_terminal(60, 20)
            await seen(pilot, lambda: "is too small" in text_of(app), "not said")
            await pilot.resize_terminal(80, 24)
            await seen(pilot, lambda: "is too small" not in text_of(app), "still said")
            await seen(pilot, lambda before=before: app.screen.focused is before, "the focus went elsewhere", 3)
        await pilot.press("q")
        await seen(pilot, lambda: app.screen is app.board and app.board.focused is app.board.sessions, "the list lost it", 3)
