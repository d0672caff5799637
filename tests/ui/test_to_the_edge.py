"""What is said is said to its end, and what the room allows is shown: no sentence is cut at an edge, no picture left out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fluxtui.actions import BY_NAME
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.home import Home
from fluxtui.screens.dialogs.export_box import _keys as export_keys
from fluxtui.screens.dialogs.palette import Palette
from fluxtui.screens.form.answering import BUTTONS
from fluxtui.screens.form_screen import FormScreen
from fluxtui.screens.pages.samples import grid
from fluxtui.screens.session import PAGES
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import Fabricated, make_metrics, make_record, make_session

DEMO = Path(__file__).parent.parent.parent / "fluxtui" / "demo" / "images"
REMEDY = "use a smaller train.batch_size or close what else uses memory"


def said(text: str) -> str:
    """The text of a screen as one line, so that a sentence over two lines is found."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
async def test_the_remedy_of_a_failure_is_read_to_its_end(states: Fabricated, size: tuple[int, int]) -> None:
    async with opened(states.home, size, "night-run") as (app, pilot):
        await seen(pilot, lambda: "killed by the OOM" in text_of(app), "no reason")
        facts = "\n".join(line.text for line in app.board.selected.body(size[0] - 4, app.board.selected.inner[1]))
        assert REMEDY in said("\n".join(line[:58] if size[0] > 80 else line for line in facts.splitlines())), text_of(app)
        await pilot.press("enter")
        await seen(pilot, lambda: "attempts" in text_of(app), "no overview")
        assert REMEDY in said(text_of(app)), text_of(app)


async def test_a_new_session_says_what_it_will_train(states: Fabricated) -> None:
    async with opened(states.home, (80, 24), "a-new-one") as (app, pilot):
        await seen(pilot, lambda: "pico on demo, 400 steps, rank 16, rate 0.003, batch 8" in text_of(app), "no recipe")


@pytest.mark.parametrize(("count", "width", "height", "fits"), [(5, 78, 20, 5), (5, 118, 31, 5), (4, 78, 20, 4), (12, 78, 20, 6)])
def test_of_pictures_as_large_as_many_as_can_be_are_shown(count: int, width: int, height: int, fits: int) -> None:
    columns, rows, _, _ = grid(count, width, height)
    assert columns * rows >= fits


async def test_the_chosen_picture_is_marked_and_its_path_copied(home_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "fox")
    make_record(folder, status="stopped", step=100, reason="stopped by the user")
    step = folder.samples / "step-000000100"
    step.mkdir(parents=True)
    for number in range(3):
        shutil.copy(DEMO / "heart-01.png", step / f"{number:02d}.png")
    async with opened(home, (80, 24), "fox") as (app, pilot):
        await pilot.press("enter", "3")
        await seen(pilot, lambda: "▌prompt 1" in text_of(app), "nothing is marked")
        await pilot.press("j", "j")
        await seen(pilot, lambda: "▌prompt 3" in text_of(app), "the mark does not move")
        assert app.screen.page.copied()[0] == str(step / "02.png")


async def test_checkpoints_stand_beside_what_was_measured_at_them(home_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "fox")
    make_record(folder, status="stopped", step=192, reason="stopped by the user")
    make_metrics(folder, 192)
    for step in (100, 192):
        commit.commit_checkpoint(folder.checkpoints, commit.step_name(step), {"adapter.safetensors": b"x"}, {"step": step})
    async with opened(home, (120, 36), "fox") as (app, pilot):
        await seen(pilot, lambda: app.board.selected.history.steps, "no metrics")
        until = app.board.selected.history.until
        assert until(101) != until(100)
        assert until(193) is None
        await pilot.press("enter", "4")
        for step in (100, 192):
            epoch, loss, held_out = until(step)
            row = f"{step} {loss:.4f} {held_out:.4f} {epoch}"
            await seen(pilot, lambda row=row: row in said(text_of(app)), row)


@pytest.mark.parametrize(
    ("name", "keys", "sentence"),
    [
        ("a-new-one", ("4",), "they are written while it trains"),
        ("night-run", ("4",), "There is no checkpoint: a resume begins at the first step."),
        ("stuck-batch", ("4",), "c writes one now, while it trains."),
        ("night-run", ("3",), "only while it trains; night-run has failed."),
    ],
)
async def test_an_empty_page_says_what_would_fill_it(states: Fabricated, name: str, keys: tuple[str, ...], sentence: str) -> None:
    async with opened(states.home, (80, 24), name) as (app, pilot):
        await pilot.press("enter", *keys)
        await seen(pilot, lambda: sentence in said(text_of(app)), sentence)


@pytest.mark.parametrize("keys", [(":",), ("enter", "2", "O")])
async def test_what_is_typed_stays_in_its_box_however_the_terminal_is_resized(states: Fabricated, keys: tuple[str, ...]) -> None:
    async with opened(states.home, (120, 36), "ring-lora") as (app, pilot):
        await pilot.press(*keys)
        await seen(pilot, lambda: "─ " in text_of(app) and "  >" in text_of(app), "no box")
        await pilot.press("r", "i")
        for size in ((120, 36), (61, 21), (60, 15), (75, 30), (100, 31), (200, 60)):
            await pilot.resize_terminal(*size)
            await seen(pilot, lambda size=size: app.screen.size == size, "not resized")
            await seen(pilot, lambda: "> ri" in text_of(app), f"what is typed is not seen at {size}")
            lines = text_of(app).splitlines()
            typed = next(at for at, line in enumerate(lines) if "> ri" in line)
            left, right = lines[typed].split("> ri")
            assert left.rstrip().endswith("│"), f"{lines[typed]} at {size}"
            assert right.split("│")[0].strip() == "", f"{lines[typed]} at {size}"
            assert "│" in right, f"{lines[typed]} at {size}"
            assert any(title in lines[typed - 1] for title in ("commands", "lay over")), f"{lines[typed - 1]} at {size}"
            assert any("╰" in line for line in lines), f"cut at {size}"


async def test_the_palette_says_the_whole_sentence_of_the_chosen_command(states: Fabricated) -> None:
    async with opened(states.home, (80, 24), "night-run") as (app, pilot):
        await pilot.press("colon", *"edit")
        assert isinstance(app.screen, Palette)
        choices = app.screen._choices

        def told() -> str:
            return said("\n".join(line.text for line in choices.body(*choices.inner)))

        await seen(pilot, lambda: BY_NAME["edit"].help in told(), "cut")
        await pilot.press(*("backspace",) * 4, *"verify")
        await seen(pilot, lambda: "night-run has failed; only a completed one can be proven" in told(), "cut")


async def test_every_setting_is_shown_without_losing_the_question(states: Fabricated) -> None:
    async with opened(states.home, (80, 24), "a-new-one") as (app, pilot):
        await pilot.press("n")
        await seen(pilot, lambda: isinstance(app.screen, FormScreen), "no form")
        form = app.screen.form.answering
        form.go_to("train.learning_rate")
        few = len(form.fields)
        await pilot.press("f3")
        assert len(form.fields) > few
        assert form.question is not None
        assert form.question.name == "train.learning_rate"
        form.go_to("guard.step")
        await pilot.press("f3")  # that one is not asked any more
        assert form.question is not None
        form.go(len(form.fields) + 2)
        assert BUTTONS[form.at - len(form.fields)][0] == "all"
        await pilot.press("enter")
        assert BUTTONS[form.at - len(form.fields)][0] == "all"


@pytest.mark.parametrize("size", [(120, 36), (200, 60)])
async def test_what_is_too_long_for_a_line_of_settings_shows_that_it_goes_on(states: Fabricated, size: tuple[int, int]) -> None:
    async with opened(states.home, size, "blue-vase") as (app, pilot):
        await pilot.press("enter", "5")
        await seen(pilot, lambda: "[dataset]" in text_of(app), "no settings")
        lines = app.screen.page.text(size[0] - 2)
        assert all(line.width <= size[0] - 2 for line in lines)
        assert size[0] > 120 or any(line.text.endswith("…") for line in lines)
        assert re.search(r"trigger +\"vexo\" +default \"\"\n?", text_of(app))


@pytest.mark.parametrize("width", [57, 72])
def test_the_export_box_says_every_key(width: int) -> None:
    lines = export_keys(width)
    assert all(line.width <= width for line in lines)
    assert said(" ".join(line.text for line in lines)).endswith("enter writes it esc or ^g leaves it")
    assert len(lines) <= 2


@pytest.mark.parametrize("size", [(61, 21), (80, 24)])
async def test_every_page_has_its_number_and_name_at_the_top(states: Fabricated, size: tuple[int, int]) -> None:
    async with opened(states.home, size, "blue-vase") as (app, pilot):
        await pilot.press("enter")
        await seen(pilot, lambda: "1 over" in text_of(app), "not opened")
        top = text_of(app).splitlines()[1]
        assert all(f"{number} {name[:3]}" in top for number, name in enumerate(PAGES, 1)), top
        assert (top.strip().endswith("7 captions")) == (size[0] == 80), top
        await pilot.click(offset=(top.index("7 capt") + 1, 1))
        await seen(pilot, lambda: app.screen.page is app.screen.pages["captions"], "a click opens another page")
