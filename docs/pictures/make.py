"""Makes the README's picture from the running app: the demo is started, and drawn as the UI shows it in mid-training.

    python docs/pictures/make.py [--home DIR --name SESSION] [--columns 120] [--rows 34]

With --home an existing home is drawn as it stands. Needs rsvg-convert (Debian: librsvg2-bin) for the PNG.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cells import svg

from fluxtui.app import FluxApp
from fluxtui.persist import overview
from fluxtui.persist.home import Home

FOLDER = Path(__file__).parent
FLUXTUI = str(Path(sys.executable).with_name("fluxtui"))
BACKGROUND, FOREGROUND = "#121212", "#e0e0e0"


async def picture(home: Home, name: str, columns: int, rows: int) -> str:
    """The dashboard as SVG, once it has read everything."""
    app = FluxApp(home, name)
    async with app.run_test(size=(columns, rows)) as pilot:
        await pilot.pause(4.0)  # the gauges and the log have come in by then
        strips = app.screen._compositor.render_strips()
    return svg(strips, columns, BACKGROUND, FOREGROUND)


def start_demo(folder: Path) -> Home:
    """A home in which the demo is past its middle."""
    environment = {**os.environ, "FLUXTUI_HOME": str(folder)}
    home = Home.open(folder)
    subprocess.run([FLUXTUI, "new", "demo", "--model", "pico", "--dataset", "demo"], env=environment, check=True)
    subprocess.run([FLUXTUI, "start", "demo"], env=environment, check=True)
    while (seen := overview.look(home, "demo")).step < 250:
        if not seen.is_active:
            raise SystemExit(f"the demo is {seen.state}: {seen.reason}")
        time.sleep(0.5)
    return home


def draw(home: Home, name: str, columns: int, rows: int) -> None:
    """dashboard.svg is an intermediate; dashboard.png is what the README shows."""
    drawn = FOLDER / "dashboard.svg"
    drawn.write_text(asyncio.run(picture(home, name, columns, rows)))
    subprocess.run(["rsvg-convert", "--zoom", "1.25", "--output", str(FOLDER / "dashboard.png"), str(drawn)], check=True)
    drawn.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--name", default="demo")
    parser.add_argument("--columns", type=int, default=120)
    parser.add_argument("--rows", type=int, default=34)
    arguments = parser.parse_args()
    if arguments.home:
        draw(Home.open(arguments.home), arguments.name, arguments.columns, arguments.rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(start_demo(Path(folder)), "demo", arguments.columns, arguments.rows)
        subprocess.run([FLUXTUI, "kill", "demo"], env={**os.environ, "FLUXTUI_HOME": folder}, check=True)


if __name__ == "__main__":
    main()
