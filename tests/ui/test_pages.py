"""The pages of a session: overview, metrics, samples, checkpoints, settings, captions."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings.recipe import load_spec
from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier
from fluxtui.screens.pages.samples import grid
from tests.ui.conftest import opened, seen, text_of, turned_to
from tests.ui.fabricate import Fabricated, make_metrics, make_record, make_session

DEMO = Path(__file__).parent.parent.parent / "fluxtui" / "demo" / "images"


async def test_overview_tells_attempts_and_reasons(states: Fabricated) -> None:
    async with opened(states.home, (120, 40), "night-run") as (app, pilot):
        await turned_to(pilot, app, "1")
        for text in (
            "killed by the OOM killer at 23.1 GiB",
            "step took longer than 300 s",
            "from step-000000064",
            "r resumes from",
        ):
            await seen(pilot, lambda text=text: text in text_of(app), text)
        await pilot.press("q")
        assert app.screen is app.board


async def test_every_page_opens_at_every_size_and_goes_back(states: Fabricated) -> None:
    async with opened(states.home, (61, 21), "ring-lora") as (app, pilot):
        screen = await turned_to(pilot, app, "1")
        for size in ((61, 21), (80, 24), (200, 60)):
            await pilot.resize_terminal(*size)
            for _ in screen.pages:
                await pilot.press("tab")
                await pilot.pause()
        await pilot.press("shift+tab", "left_square_bracket", "right_square_bracket", "escape")
        assert app.screen is app.board


async def test_metrics_are_read_with_a_cursor_zoomed_and_overlaid(states: Fabricated) -> None:
    async with opened(states.home, (120, 40), "ring-lora") as (app, pilot):
        screen = await turned_to(pilot, app, "2")
        page = screen.pages["metrics"]
        await seen(pilot, lambda: "step 230" in text_of(app) and "steps 0 to 230" in text_of(app), "no curve")
        for name in ("learning rate", "gradient norm", "seconds a step"):
            assert name in text_of(app)
        await pilot.press("h", "h")
        assert "step 226" in text_of(app)
        await pilot.press("l")
        assert "step 228" in text_of(app)
        await pilot.press("plus", "plus")
        first, last = page._span()
        assert first <= page.cursor <= last
        assert last - first < 60
        await pilot.press("underscore", "0", "g")
        assert "log" in text_of(app)
        await pilot.press("m")
        assert text_of(app).splitlines()[3].strip().startswith("learning rate")
        await pilot.press("O")
        await seen(pilot, lambda: "lay over this one" in text_of(app), "nothing to choose from")
        assert "completed  step 400 of 400" in text_of(app)
        await pilot.press(*"vase", "enter")
        await seen(pilot, lambda: [name for name, _ in page.overlay.others] == ["blue-vase"], "no overlay")
        assert "blue-vase ━━" in text_of(app)
        await pilot.press("O")
        await seen(pilot, lambda: "[x] blue-vase" in text_of(app), "it is not marked")
        await pilot.press(*"paused", "tab", "ctrl+u", *"hot", "tab", "enter")
        await seen(pilot, lambda: len(page.overlay.others) == 3, "not several")
        await seen(pilot, lambda: "paused-fox ━━" in text_of(app) and "too-hot ━━" in text_of(app), "no legend")
        await pilot.press("O")
        await seen(pilot, lambda: "3 of at most 4" in text_of(app), "no list")
        await pilot.press(*"hot", "ctrl+g")
        assert len(page.overlay.others) == 3


async def test_no_number_at_the_cursor_is_cut(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "validated")
    make_metrics(folder, 50)
    make_record(folder, status="completed", step=50)
    async with opened(home, (200, 60)) as (app, pilot):
        page = (await turned_to(pilot, app, "2")).pages["metrics"]
        await seen(pilot, lambda: "validation 0.2641" in text_of(app), "no curve")
        whole = dict(zip(*[iter(page.copied()[0].split())] * 2, strict=True))
        assert list(whole) == ["step", "epoch", "loss", "validation", "rate", "norm", "s/step"]
        for curve, label in (("loss", "loss"), ("seconds", "s/step")):
            page.curve = curve
            for room in range(45, 120):
                shown = dict(zip(*[iter(page._readout(49, room).cut(room).text.split())] * 2, strict=True))
                assert shown.items() <= whole.items(), f"{shown} in {room} cells"
                assert {"step", "loss", label} <= shown.keys()


async def test_overlaid_curves_grow_with_their_sessions_while_somebody_looks(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    for seed, name in enumerate(("mine", "other")):
        folder = make_session(home, name)
        make_record(folder, status="stopped", step=120, reason="stopped by the user")
        make_metrics(folder, 120 if name == "mine" else 20, seed=seed)
    async with opened(home, (100, 30), "mine") as (app, pilot):
        page = (await turned_to(pilot, app, "2")).pages["metrics"]
        await pilot.press("O")
        await seen(pilot, lambda: "lay over this one" in text_of(app), "nothing to choose from")
        await pilot.press("enter")
        await seen(pilot, lambda: [len(one.steps) for _, one in page.overlay.others] == [20], "no overlay")
        before = text_of(app)
        make_metrics(home.session("other"), 90, first=21, seed=1)
        await seen(pilot, lambda: [len(one.steps) for _, one in page.overlay.others] == [90], "it does not grow")
        await seen(pilot, lambda: text_of(app) != before, "the longer curve is not drawn")
        home.session("other").metrics_file.unlink()
        await seen(pilot, lambda: [len(one.steps) for _, one in page.overlay.others] == [0], "what is gone is still drawn")
        await pilot.press("q")
        await seen(pilot, lambda: not app.watch_disk._beside, "it is still read though nobody looks")


@pytest.mark.parametrize("kind", [TerminalKind(Tier.PLAIN, False), TerminalKind(Tier.ASCII, True)], ids=["no-colour", "ascii"])
async def test_overlaid_curves_are_told_apart_without_colour(tmp_path: Path, kind: TerminalKind) -> None:
    home = Home.open(tmp_path / "home")
    for seed, name in enumerate(("mine", "first", "second")):
        folder = make_session(home, name)
        make_record(folder, status="stopped", step=120, reason="stopped by the user")
        make_metrics(folder, 120, seed=seed)
    async with opened(home, (80, 24), "mine", kind) as (app, pilot):
        screen = await turned_to(pilot, app, "2")
        await pilot.press("O")
        await seen(pilot, lambda: "lay over this one" in text_of(app), "nothing to choose from")
        await pilot.press(*"first", "tab", "ctrl+u", *"second", "tab", "enter")
        await seen(pilot, lambda: len(screen.pages["metrics"].overlay.others) == 2, "no overlay")
        await pilot.press("m", "m")
        title, *chart = text_of(app).splitlines()[3:22]
        assert "first oo" in title
        assert "second xx" in title
        assert any("o" in line for line in chart)
        assert any("x" in line for line in chart)
        await pilot.press("m", "m")
        assert "validation vv" in text_of(app)
        assert "v" in "".join(line[7:] for line in text_of(app).splitlines()[4:20])


async def test_what_a_later_attempt_took_anew_counts_once(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "again")
    make_metrics(folder, 100)
    make_metrics(folder, 80, attempt=2, first=61)
    make_record(folder, 2, status="stopped", step=80, reason="stopped")
    with folder.metrics_file.open("ab") as file:
        file.write(b'{"attempt":2,"step":81,"ep')
    async with opened(home, (120, 40), "again") as (app, pilot):
        await seen(pilot, lambda: len(app.board.selected.history.steps) == 80, "not 80 steps")
        assert list(app.board.selected.history.steps) == list(range(1, 81))
        assert set(app.board.selected.history.attempts[60:]) == {2}


async def test_samples_are_drawn_by_step_and_by_prompt(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "drawn")
    make_record(folder, status="stopped", step=200, reason="stopped")
    for step in (0, 100, 200):
        (folder.samples / f"step-{step:09d}").mkdir()
        for number, picture in enumerate(sorted(DEMO.glob("*.png"))[:3]):
            shutil.copy(picture, folder.samples / f"step-{step:09d}" / f"{number:02d}.png")
    (folder.samples / "step-000000200" / "02.png").write_bytes(b"not a picture")
    async with opened(home, (120, 40), "drawn") as (app, pilot):
        await turned_to(pilot, app, "3")
        await seen(pilot, lambda: "step 200" in text_of(app) and "▀▀▀" in text_of(app), "no picture")
        await seen(pilot, lambda: "cannot be shown" in text_of(app), "damage is not said")
        await pilot.press("h", "h")
        assert "step 0  1 of 3" in text_of(app)
        await pilot.press("m")
        assert "prompt 1 over 3 steps" in text_of(app)
        await pilot.press("j", "k", "l", "m")
        assert "step 100  2 of 3" in text_of(app)


async def test_pictures_that_have_no_room_are_counted(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "many")
    for step in (0, 100):
        place = folder.samples / f"step-{step:09d}"
        place.mkdir(parents=True)
        for number in range(24):
            shutil.copy(DEMO / "heart-01.png", place / f"{number:02d}.png")
    make_record(folder, status="stopped", step=100, reason="stopped")
    async with opened(home, (80, 24), "many") as (app, pilot):
        page = (await turned_to(pilot, app, "3")).pages["samples"]
        await seen(pilot, lambda: "prompt 1 " in text_of(app), "no pictures")
        first = text_of(app).splitlines()[3]
        count = int(re.search(r"step 100  2 of 2 +1 to (\d+) of 24 prompts", first)[1])
        assert count < 24
        assert re.search(rf"prompt {count}\b", text_of(app))
        assert not re.search(rf"prompt {count + 1}\b", text_of(app))
        await pilot.press(*["j"] * 23)
        await seen(pilot, lambda: "to 24 of 24 prompts" in text_of(app), "not counted on")
        await pilot.press("m")
        await seen(pilot, lambda: "over 2 steps" in text_of(app), "no steps")
        assert " of 2 steps" not in text_of(app)  # all are shown
        assert page.is_across


def test_pictures_are_as_large_as_can_be() -> None:
    for count in range(1, 30):
        for width, height in ((20, 10), (78, 18), (118, 30), (198, 54)):
            columns, rows, cell_width, cell_height = grid(count, width, height)
            assert columns * (cell_width + 2) - 2 <= max(width, cell_width)
            assert rows * cell_height <= max(height, cell_height)


async def test_checkpoints_are_listed_resumed_and_deleted_with_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxtui.persist.checkpoints import commit

    home = Home.open(tmp_path / "home")
    folder = make_session(home, "kept")
    for step in (100, 200, 300):
        commit.commit_checkpoint(folder.checkpoints, commit.step_name(step), {"adapter.safetensors": b"x" * 5000}, {"step": step})
    make_record(folder, status="stopped", step=300, reason="stopped", checkpoint="step-000000300")
    started: list[str] = []
    monkeypatch.setattr("fluxtui.control.start", lambda home, name, resume="", **_: started.append(resume) or 2)
    async with opened(home, (120, 40), "kept") as (app, pilot):
        await turned_to(pilot, app, "4")
        await seen(pilot, lambda: "step-000000100" in text_of(app), "not listed")
        await pilot.press("enter")
        await seen(pilot, lambda: started == ["step-000000300"], "the newest is not resumed from")
        await pilot.press("j", "enter")
        await seen(
            pilot,
            lambda: "newer checkpoints are set aside" in text_of(app).replace("\n", " ") or "newer" in text_of(app),
            "no question",
        )
        await pilot.press("escape")
        assert started == ["step-000000300"]
        await pilot.press("G", "backspace")
        await seen(pilot, lambda: "Delete step-000000100" in text_of(app), "no question")
        await pilot.press("y")
        await seen(pilot, lambda: commit.committed(folder.checkpoints) == ["step-000000200", "step-000000300"], "not deleted")


async def test_the_cursor_stays_with_its_checkpoint_while_others_come_and_go(tmp_path: Path) -> None:
    from fluxtui.persist.checkpoints import commit

    home = Home.open(tmp_path / "home")
    folder = make_session(home, "kept")
    make_record(folder, status="stopped", step=300, reason="stopped", checkpoint="step-000000300")

    def keep(step: int) -> None:
        commit.commit_checkpoint(folder.checkpoints, commit.step_name(step), {"adapter.safetensors": b"x"}, {"step": step})

    for step in (100, 200, 300):
        keep(step)
    async with opened(home, (120, 40), "kept") as (app, pilot):
        page = (await turned_to(pilot, app, "4")).pages["checkpoints"]
        await seen(pilot, lambda: len(page._kept) == 3, "not listed")
        keep(400)
        await seen(pilot, lambda: len(page._kept) == 4, "not listed anew")
        assert page.chosen.step == 400  # the newest one was chosen
        await pilot.press("j", "j")
        assert page.chosen.step == 200
        keep(500)
        await seen(pilot, lambda: len(page._kept) == 5, "not listed anew")
        assert page.chosen.step == 200
        for step in (200, 500):
            shutil.rmtree(folder.checkpoints / commit.step_name(step))
        await seen(pilot, lambda: len(page._kept) == 3, "not listed anew")
        assert page.chosen.step == 100
        shutil.rmtree(folder.checkpoints / commit.step_name(100))
        await seen(pilot, lambda: len(page._kept) == 2, "not listed anew")
        assert page.chosen.step == 300


async def test_settings_show_what_differs_from_defaults_and_from_another_session(states: Fabricated) -> None:
    async with opened(states.home, (140, 60), "too-hot") as (app, pilot):
        await turned_to(pilot, app, "5")
        await seen(pilot, lambda: "compared with the defaults" in text_of(app), "no settings")
        await pilot.press("m")
        assert "changes only" in text_of(app)
        assert "gradient_accumulation" not in text_of(app)
        await pilot.press("O")
        await seen(pilot, lambda: "compared with a-new-one" in text_of(app), "no other session")
        lines = [line for line in text_of(app).splitlines() if "learning_rate" in line]
        assert "1.0" in lines[0]
        assert str(load_spec(states.home.session("a-new-one").spec_file).train.learning_rate) in lines[0]


async def test_the_settings_of_a_session_that_was_started_are_not_edited_and_why_is_said(states: Fabricated) -> None:
    async with opened(states.home, (120, 40), "paused-fox") as (app, pilot):
        await turned_to(pilot, app, "5")
        await pilot.press("E")
        said = app.board_of_notices.notices[-1].text
        assert "paused-fox was started, so its settings stay: N clones it" in said


async def test_a_checkpoint_is_exported_in_the_form_weights_and_numbers_that_were_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxtui.persist.checkpoints import commit

    home = Home.open(tmp_path / "home")
    folder = make_session(home, "kept")
    for step, files in ((100, ("adapter",)), (200, ("adapter", "ema"))):
        written = {f"{name}.safetensors": b"x" * 500 for name in files}
        commit.commit_checkpoint(folder.checkpoints, commit.step_name(step), written, {"step": step})
    make_record(folder, status="stopped", step=200, reason="stopped", checkpoint="step-000000200")
    asked: list[list[str]] = []
    answers = [(0, None, ""), (4, None, "step-000000100 has no averaged weights")]
    monkeypatch.setattr("fluxtui.control.engine.last_object", lambda verb, words: (asked.append(words), answers.pop(0))[1])
    monkeypatch.setenv("HOME", str(tmp_path))
    async with opened(home, (80, 24), "kept") as (app, pilot):
        await turned_to(pilot, app, "4")
        await seen(pilot, lambda: "step-000000200" in text_of(app) and "averaged too" in text_of(app), "not listed")
        await pilot.press("E")
        await seen(pilot, lambda: "averaged (EMA)" in text_of(app), "no question")
        await pilot.press("right", "down", "right", "down", "left")
        assert "kept-step-000000200-ema-kohya.safetensors" in text_of(app)
        await pilot.press("enter")
        await seen(pilot, lambda: asked, "not exported")
        words = " ".join(asked[0])
        assert "--format kohya --dtype fp32" in words
        assert words.endswith("--checkpoint step-000000200 --ema")
        assert f"--output {tmp_path}/kept-step-000000200-ema-kohya.safetensors" in words
        notices = app.board_of_notices
        said = "averaged weights in kohya's form, fp32"
        await seen(pilot, lambda: notices.notices and said in notices.notices[-1].text, "not said")
        await pilot.press("j", "E")
        await seen(pilot, lambda: "export step-000000100" in text_of(app), "no question")
        assert "EMA" not in text_of(app), "what is not there is offered"
        await pilot.press("down", "down", "down", "ctrl+u", *"/tmp/x y.safetensors", "enter")
        await seen(pilot, lambda: len(asked) == 2, "not exported")
        assert asked[1][asked[1].index("--output") + 1] == "/tmp/x y.safetensors"
        assert "--ema" not in asked[1]
        await seen(pilot, lambda: "no averaged weights" in notices.notices[-1].text, "the engine's sentence is not said")
        await pilot.press("E", "escape")
        await pilot.pause()
        assert len(asked) == 2


async def test_the_head_of_a_session_tells_its_phase_before_there_are_steps(home_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "loads")
    make_record(folder, status="running", phase=Phase.LOAD, step=0, steps=0, inner="3 of 9 shards")
    held = Lock.take(folder.lock_file)
    try:
        async with opened(home, (80, 24), "loads") as (app, pilot):
            await turned_to(pilot, app, "1")
            assert "running  load  3 of 9 shards" in text_of(app).splitlines()[0]
    finally:
        held.release()
