"""The UI under Textual's pilot: one fabricated home with every state, gauges that stand still, text snapshots."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual._compositor import visible_screen_stack
from textual.pilot import Pilot

from fluxtui.app import FluxApp
from fluxtui.gpu import Gpus, HostGauges
from fluxtui.persist.home import Home
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier
from fluxtui.screens.session import SessionScreen
from fluxtui.screens.settings import Settings
from fluxtui.screens.watching.watch import GaugesSeen, Watch
from tests.ui.fabricate import Fabricated, every_state, keep_beating

SNAPSHOTS = Path(__file__).parent / "snapshots"
EMOJI = TerminalKind(Tier.EMOJI, True)
GAUGES = HostGauges(
    cpu_percent=37.0,
    cpu_count=2,
    memory_used=12 << 30,
    memory_total=24 << 30,
    disk_free=61 << 30,
    disk_total=100 << 30,
    disk_path="/",
)


@pytest.fixture(autouse=True)
def still_gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, and the same figures always."""

    def stand_still(self: Watch) -> None:
        self._post(GaugesSeen(GAUGES, Gpus((), "no NVIDIA driver here", 1.0)))

    monkeypatch.setattr(Watch, "_watch_machine", stand_still)


@pytest.fixture(autouse=True)
def no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's plan beside a form takes seconds of both cores: a test that wants it says so."""
    monkeypatch.setattr("fluxtui.screens.form.plan.PATIENCE", 3600.0)


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times without a weekday: just after midnight a snapshot would be four cells longer."""
    monkeypatch.setattr(words, "clock", lambda moment: moment.astimezone().strftime("%H:%M") if moment else "")


@pytest.fixture(scope="session")
def states() -> Iterator[Fabricated]:
    """A home with a session of every state; read-only for the tests that share it.

    Its path is as long in every run, which pytest's numbered folders are not: a path that wraps moves what stands below it.
    """
    with tempfile.TemporaryDirectory(prefix="states-", dir="/tmp") as folder:
        made = every_state(Path(folder) / "home")
        is_over = threading.Event()
        beats = threading.Thread(target=keep_beating, args=(made, is_over), daemon=True)
        beats.start()
        yield made
        is_over.set()
        beats.join(10)
        made.close()


@pytest.fixture
def empty_home(home_path: Path) -> Home:
    return Home.open(home_path)


@asynccontextmanager
async def opened(
    home: Home,
    size: tuple[int, int] = (120, 36),
    focus: str | None = None,
    kind: TerminalKind = EMOJI,
    settings: Settings | None = None,
) -> AsyncIterator[tuple[FluxApp, Pilot[int]]]:
    """The app, once it has seen the sessions."""
    app = FluxApp(home, focus, kind, settings)
    async with app.run_test(size=size) as pilot:
        press = pilot.press

        async def press_all(*keys: str) -> None:
            """Until each key has done what it does: one may wait for the one before."""
            await press(*keys)
            while app.has_keys_waiting:
                await pilot.pause(0.005)
            await pilot.pause()

        untyped: Any = pilot
        untyped.press = press_all
        await seen(pilot, lambda: not app.board.sessions.is_loading, "the sessions are not read")
        if focus:
            await seen(pilot, lambda: (one := app.board.sessions.selected) is not None and one.name == focus, f"no {focus}")
        yield app, pilot


async def seen(pilot: Pilot[int], condition: Callable[[], object], what: str = "", seconds: float = 20.0) -> None:
    """Wait until it is so."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.02)
    raise AssertionError(f"{what or condition}\n{text_of(pilot.app)}")


async def turned_to(pilot: Pilot[int], app: FluxApp, key: str) -> SessionScreen:
    """The screen of the selected session, at the page of that key."""
    await pilot.press("enter")
    await seen(pilot, lambda: isinstance(app.screen, SessionScreen), "not opened")
    await pilot.press(key)
    return app.screen


def text_of(app: object) -> str:
    """The screen as text, whatever lies over it included."""
    assert isinstance(app, FluxApp)
    visible_screen_stack.set(app._background_screens)
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


_VARYING = (
    (re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d\d:\d\d|(?<!\d)\d\d:\d\d(?!:?\d)"), "HH:MM"),
    (re.compile(r"kill -CONT \d+"), "kill -CONT PID"),
)


def still(text: str) -> str:
    """The text without what differs from run to run; the home's path is as long as the machine will have it."""
    for pattern, shown in _VARYING:
        text = pattern.sub(shown, text)
    # a longer number leaves fewer blanks up to the next column: the cell stays as wide
    text = re.sub(r"nothing for +\d+ s( *)", lambda found: "nothing for N s".ljust(len(found[0]) - 1), text)
    return re.sub(r"^( fluxtui  .*?sessions?)  +\S+ *$", r"\1  HOME", text, flags=re.MULTILINE)


def same_as_snapshot(name: str, text: str) -> None:
    """Equal to the file of that name; FLUXTUI_SNAPSHOTS=update writes it anew."""
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("FLUXTUI_SNAPSHOTS") == "update":
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(text + "\n")
        return
    assert text + "\n" == path.read_text(), f"differs from {path.name}; look at it, then FLUXTUI_SNAPSHOTS=update\n{text}"
