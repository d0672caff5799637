"""Makes the README's pictures from the running app: the demo is started, and drawn as the UI shows it.

    python docs/pictures/make.py [--home DIR --name SESSION] [--only VIEW ...] [--columns 120] [--rows 34]

The dashboard is drawn in mid-training, the rest once the demo is completed. With --home an existing home is drawn as it
stands. Needs rsvg-convert (Debian: librsvg2-bin) for the PNG.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cells import svg
from textual.pilot import Pilot

from fluxtui.app import FluxApp
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier

FOLDER = Path(__file__).parent
FLUXTUI = str(Path(sys.executable).with_name("fluxtui"))
BACKGROUND, FOREGROUND = "#121212", "#d0d0d0"
KEYS: dict[str, Sequence[str]] = {
    "dashboard": (),
    "session": ("enter",),
    "metrics": ("enter", "2"),
    "samples": ("enter", "3"),
    "form": ("n",),
}
PATIENCE = 60.0  # seconds for what is read in threads to be seen


async def picture(home: Home, name: str, view: str, columns: int, rows: int) -> str:
    """One view as SVG, once everything in it has been read."""
    app = FluxApp(home, name, TerminalKind(Tier.EMOJI, True))
    async with app.run_test(size=(columns, rows)) as pilot:
        await seen(pilot, lambda: app.board.selected.history.steps and app.board.gauges.gpus and app.board.gauges.gpus.at)
        await seen(pilot, lambda: app.board.log_pane.page.count)
        for key in KEYS[view]:
            await pilot.press(key)
        await pilot.pause(1.5)
        await seen(pilot, lambda: not any(word in drawn(app) for word in ("drawing", "reckoning")))
        return svg(app.screen._compositor.render_strips(), columns, BACKGROUND, FOREGROUND)


def drawn(app: FluxApp) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def seen(pilot: Pilot[int], condition: Callable[[], object]) -> None:
    """Wait until it is so; what never comes is drawn without it."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        await pilot.pause(0.1)


def start_demo(folder: Path) -> Home:
    """A home in which the demo is past its middle."""
    environment = {**os.environ, "FLUXTUI_HOME": str(folder)}
    home = Home.open(folder)
    subprocess.run([FLUXTUI, "new", "demo", "--model", "pico", "--dataset", "demo"], env=environment, check=True)
    subprocess.run([FLUXTUI, "start", "demo"], env=environment, check=True)
    while (now := overview.look(home, "demo")).step < 250:
        if not now.is_active:
            raise SystemExit(f"the demo is {now.state}: {now.reason}")
        time.sleep(0.5)
    return home


def draw(home: Home, name: str, view: str, columns: int, rows: int) -> None:
    """The SVG is an intermediate; the PNG is what the README shows."""
    made = FOLDER / f"{view}.svg"
    made.write_text(asyncio.run(picture(home, name, view, columns, rows)))
    subprocess.run(["rsvg-convert", "--zoom", "1.15", "--output", str(made.with_suffix(".png")), str(made)], check=True)
    made.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--name", default="demo")
    parser.add_argument("--only", nargs="*", choices=list(KEYS), default=list(KEYS))
    parser.add_argument("--columns", type=int, default=120)
    parser.add_argument("--rows", type=int, default=34)
    words = parser.parse_args()
    if words.home:
        for view in words.only:
            draw(Home.open(words.home), words.name, view, words.columns, words.rows)
        return
    with tempfile.TemporaryDirectory() as user:
        os.environ["HOME"] = user  # so that the picture shows the path that a user's own shows
        folder = str(Path(user) / ".local" / "share" / "fluxtui")
        home = start_demo(Path(folder))
        if "dashboard" in words.only:
            draw(home, "demo", "dashboard", words.columns, words.rows)
        subprocess.run([FLUXTUI, "wait", "demo"], env={**os.environ, "FLUXTUI_HOME": folder}, check=True)
        for view in words.only:
            if view != "dashboard":
                draw(home, "demo", view, words.columns, words.rows)


if __name__ == "__main__":
    main()
