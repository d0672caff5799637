"""Screens as they are drawn, colours included: SVG made by the same hand as the README's pictures."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier
from tests.ui.conftest import EMOJI, SNAPSHOTS, opened, same_as_snapshot, seen, still, text_of
from tests.ui.fabricate import Fabricated

CELLS = Path(__file__).parent.parent.parent / "docs" / "pictures" / "cells.py"


def svg_of(app, columns: int) -> str:
    spec = importlib.util.spec_from_file_location("cells", CELLS)
    cells = importlib.util.module_from_spec(spec)
    sys.modules["cells"] = cells
    spec.loader.exec_module(cells)
    return cells.svg(app.screen._compositor.render_strips(), columns, "#121212", "#d0d0d0")


@pytest.mark.parametrize(
    ("name", "kind", "keys", "shows"),
    [
        ("help", EMOJI, ("question_mark",), "Make a session"),
        ("help-no-colour", TerminalKind(Tier.PLAIN, False), ("question_mark",), "Make a session"),
        ("help-light", EMOJI, ("question_mark",), "Make a session"),
        ("form", EMOJI, ("n",), "400 steps of 8"),
        ("spec", EMOJI, ("enter", "5", "m"), "compared with the defaults"),
    ],
)
async def test_screens_as_drawn(states: Fabricated, name: str, kind: TerminalKind, keys: tuple[str, ...], shows: str) -> None:
    async with opened(states.home, (80, 24), "paused-fox", kind) as (app, pilot):
        if name.endswith("light"):
            app.theme = "fluxtui-light"
        await pilot.press(*keys)
        await seen(pilot, lambda: shows in text_of(app), f"no {shows!r}")
        await pilot.pause(0.2)
        same_as_snapshot(f"{name}-80x24.svg", svg_of(app, 80))
        colours = {piece[:7] for piece in (SNAPSHOTS / f"{name}-80x24.svg.txt").read_text().split('fill="')[3:]}
        assert (len(colours) > 2) == kind.has_colour, colours


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
@pytest.mark.parametrize(
    ("name", "keys", "shows"),
    [
        ("overview", ("enter",), "resumes from"),
        ("log", ("l",), "TRAINING STOPPED BY USER"),
    ],
)
async def test_session_screens_at_every_size(states: Fabricated, size, name: str, keys: tuple[str, ...], shows: str) -> None:
    async with opened(states.home, size, "paused-fox") as (app, pilot):
        await seen(pilot, lambda: app.board.selected.history.steps, "no metrics")
        await pilot.press(*keys)
        await seen(pilot, lambda: shows in text_of(app), f"no {shows!r}")
        await pilot.pause(0.3)
        text = re.sub(r"threads of \S+", "threads of HOST", still(text_of(app)))
        text = re.sub(r"(folder +)\S+(\n {15}\S+)*", r"\1FOLDER", text)
        same_as_snapshot(f"{name}-{size[0]}x{size[1]}", text)
