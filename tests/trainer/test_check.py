"""The doctor finds what is wrong, names the file, and agrees with the trainer about what can be trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from fluxtui.engine.trainer.check.doctor import check
from fluxtui.engine.trainer.check.findings import Report
from fluxtui.engine.trainer.check.likeness import alike, look_of
from fluxtui.engine.trainer.check.tokens import token_counter
from fluxtui.engine.trainer.data.dataset import read_dataset, steps_per_epoch
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.settings.spec import DatasetSpec, TrainSpec
from tests.trainer.hostile import colour_16, encoded, grey_16, hostile_images, quarters, turned


def photo(number: int, width: int = 320, height: int = 240) -> Image.Image:
    """Pictures that nobody would take for one another."""
    picture = Image.new("RGB", (width, height), (40 * number % 256, 90, 200 - 30 * number % 200))
    draw = ImageDraw.Draw(picture)
    for step in range(6):
        left, top = (number * 53 + step * 97) % (width - 60), (number * 31 + step * 61) % (height - 60)
        draw.ellipse((left, top, left + 60, top + 60), fill=(255 - 40 * step, 20 * number % 256, 40 * step))
    return picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        photo(number).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"a photo of thing {number}")
    return tmp_path


def report_on(
    folder: Path, quick: bool = False, model: Path | None = None, train: TrainSpec | None = None, **spec: Any
) -> Report:
    spec = {"resolution": [128]} | spec
    return check(DatasetSpec(path=str(folder), **spec), train or TrainSpec(), model, headers_only=quick, processes=2)


def kinds(report: Report, level: str) -> set[tuple[str, str]]:
    return {(found.kind, found.file) for found in report.findings if found.level == level}


def starts(folder: Path, **spec: Any) -> bool:
    """Whether the trainer would take it."""
    try:
        read_dataset(DatasetSpec(path=str(folder), **({"resolution": [128]} | spec)))
    except FluxTUIError:
        return False
    return True


def test_a_sound_folder_has_no_findings_and_a_right_plan(folder: Path) -> None:
    report = report_on(folder, train=TrainSpec(batch_size=3), resolution=[64, 128], repeats=2)
    assert report.ok
    assert report.findings == []
    assert (report.images, report.captions, report.plan.uses) == (4, 4, 16)
    dataset = read_dataset(DatasetSpec(path=str(folder), resolution=[64, 128], repeats=2))
    assert report.plan.steps == steps_per_epoch(dataset, TrainSpec(batch_size=3)) == 6
    assert report.plan.short_steps == 2
    assert [(row.width, row.height, row.uses) for row in report.plan.buckets] == [(64, 48, 8), (144, 112, 8)]


def test_every_hostile_image_is_an_error_with_its_name(folder: Path) -> None:
    expected = {(kind, name) for name, kind in hostile_images(folder).items()}
    for _, name in expected:
        (folder / name).with_suffix(".txt").write_text("a thing")
    os.mkfifo(folder / "pipe.png")
    report = report_on(folder)
    assert not report.ok
    assert kinds(report, "error") == expected | {("irregular", "pipe.png")}
    assert all(found.file in found.sentence for found in report.findings)


def test_headers_alone_find_what_headers_show(folder: Path) -> None:
    hostile_images(folder)
    found = {name: kind for kind, name in kinds(report_on(folder, quick=True, trigger="zorp"), "error")}
    assert {found[name] for name in ("empty.png", "text.jpg", "bomb.png", "moving.webp", "tiny.png")} == {
        "empty", "not-an-image", "bomb", "animated", "too-small",
    }  # fmt: skip


@pytest.mark.parametrize(("data", "kind"), [
    (b"caf\xe9", "caption-encoding"), (b"a\0b", "caption-nul"), (b"word " * 20_000, "caption-huge"),
    (b"w" * 1_100_000, "too-large"), (b" \n\t", "caption-blank"), (b"a [trigger]", "caption-placeholder"),
    (None, "caption-missing"),
])  # fmt: skip
def test_every_hostile_caption_is_an_error_and_a_start_would_refuse_it_too(folder: Path, data: bytes | None, kind: str) -> None:
    (folder / "2.txt").unlink() if data is None else (folder / "2.txt").write_bytes(data)
    report = report_on(folder)
    assert kinds(report, "error") == {(kind, "2.png" if data is None else "2.txt")}
    assert not starts(folder)


def test_what_a_trigger_word_mends_is_a_warning(folder: Path) -> None:
    (folder / "0.txt").unlink()
    (folder / "1.txt").write_text("")
    (folder / "2.txt").write_text("a photo of a Zorp")
    report = report_on(folder, trigger="zorp")
    assert report.ok
    assert starts(folder, trigger="zorp")
    assert kinds(report, "warning") == {
        ("caption-missing", "0.png"), ("caption-blank", "1.txt"), ("caption-without-trigger", "3.txt"),
    }  # fmt: skip
    assert not kinds(report_on(folder, trigger="zorp", regularisation="3*"), "warning") & {("caption-without-trigger", "3.txt")}


def test_an_orphaned_caption_is_an_error(folder: Path) -> None:
    (folder / "1.png").unlink()
    assert kinds(report_on(folder), "error") == {("caption-orphan", "1.txt")}
    assert not starts(folder)


def test_a_picture_of_a_kind_that_is_not_read_is_no_missing_one(folder: Path) -> None:
    (folder / "1.png").rename(folder / "1.HEIC")
    report = report_on(folder)
    assert kinds(report, "error") == {("not-read", "1.HEIC")}
    assert not starts(folder)
    (folder / "1.txt").unlink()
    assert kinds(report_on(folder), "warning") == {("not-read", "1.HEIC")}
    assert starts(folder)
    photo(7).save(folder / "1.png")
    (folder / "1.txt").write_text("converted, and the phone's own file left beside it")
    assert report_on(folder).findings == []


def test_the_report_is_written_where_the_locale_has_no_utf8(folder: Path) -> None:
    named = folder.parent / "café"
    folder.rename(named)
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "fluxtui.engine", "check", named]
    done = subprocess.run(words, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 images, 4 captions in" in done.stdout
    assert "caf??" in done.stdout


def test_captions_that_could_be_of_either_picture_are_told(folder: Path) -> None:
    photo(7).save(folder / "1.jpg")
    assert kinds(report_on(folder), "warning") == {("caption-shared", "1.png")}
    (folder / "2.TXT").write_text("a photo of something else")
    assert kinds(report_on(folder), "error") == {("caption-rival", "2.txt")}
    assert not starts(folder)


def test_copies_are_found_exact_and_nearly(folder: Path) -> None:
    (folder / "9-copy.png").write_bytes((folder / "2.png").read_bytes())
    photo(1).resize((640, 480), Image.Resampling.BICUBIC).save(folder / "8-larger.jpg", quality=60)
    for name in ("9-copy", "8-larger"):
        (folder / f"{name}.txt").write_text("a thing")
    report = report_on(folder)
    assert kinds(report, "warning") == {("duplicate", "9-copy.png"), ("near-duplicate", "8-larger.jpg")}
    assert any("1.png" in found.sentence and "8-larger.jpg" in found.sentence for found in report.findings)


def test_looks_survive_recompression_and_tell_colours_and_forms_apart() -> None:
    looks = {f"{number}": look_of(photo(number)) for number in range(30)}
    assert alike(looks) == []
    looks["5b"] = look_of(photo(5).resize((111, 83)))
    looks["7b"] = look_of(photo(7).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert alike(looks) == [("5", "5b")]
    flat = {"red": look_of(Image.new("RGB", (64, 64), "red")), "blue": look_of(Image.new("RGB", (64, 64), "blue"))}
    assert alike(flat) == []


def test_how_a_picture_is_read_is_told(folder: Path) -> None:
    stored, exif = turned(photo(5), 6)
    files = {
        "turned.jpg": encoded(stored, "JPEG", exif=exif), "ink.jpg": encoded(photo(6).convert("CMYK"), "JPEG"),
        "clear.png": encoded(photo(7).convert("RGBA")), "deep.png": grey_16(3000), "colour.png": colour_16(),
        "strip.png": encoded(photo(8, 1200, 200)),
        "small.png": encoded(quarters(64, 48)), "not.gif": encoded(photo(9), "GIF"),
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
        if name != "not.gif":
            (folder / name).with_suffix(".txt").write_text("a thing")
    (folder / "more").mkdir()
    report = report_on(folder)
    assert report.ok
    assert kinds(report, "note") == {("rotated", "turned.jpg"), ("16-bit", "deep.png"), ("16-bit", "colour.png")}
    assert kinds(report, "warning") >= {
        ("cmyk", "ink.jpg"), ("alpha", "clear.png"), ("strip", "strip.png"), ("small", "small.png"), ("not-read", "not.gif"),
        ("folder", ""),
    }  # fmt: skip


def test_tokens_are_counted_by_the_models_tokenizer(folder: Path, tiny_dev: Path) -> None:
    (folder / "1.txt").write_text("a photo of a red square on a gray circle in the green square of the blue circle")
    report = report_on(folder, model=tiny_dev)
    assert report.tokens_exact
    assert ("caption-too-long", "1.txt") in kinds(report, "warning")
    from transformers import T5Tokenizer

    tokenizer = T5Tokenizer.from_pretrained(tiny_dev / "tokenizer_2")
    counter = token_counter(tiny_dev)
    for text in ("", "a red square", "wörds, unknown 日本", "a photo of the zorp " * 9):
        assert counter.count(text) == len(tokenizer(text).input_ids)
    assert counter.limit == 16


def test_tokens_are_about_right_without_a_model() -> None:
    counter = token_counter(None)
    assert not counter.is_exact
    assert counter.limit == 512
    prose = "A weathered fisherman mends his nets on the quay, while gulls circle above the harbour at dawn."
    assert 20 <= counter.count(prose) <= 30         # T5's own tokenizer gives 27


def test_many_short_batches_are_said(tmp_path: Path) -> None:
    for number in range(8):
        photo(number, 200 + 40 * number, 200).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a thing")
    report = report_on(tmp_path, train=TrainSpec(batch_size=4))
    assert ("short-batches", "") in kinds(report, "warning")


def test_names_with_escapes_reach_nobodys_terminal(folder: Path) -> None:
    os.rename(folder / "1.png", folder / "\x1b]52;c;AAAA\x07.png")
    done = run(str(folder), "--resolution", "128")
    assert b"\x1b" not in done.stdout
    assert b"\x1b" not in run(str(folder), "--resolution", "128", "--json").stdout


def run(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "fluxtui.engine", "check", *words], capture_output=True, timeout=120)


def test_the_command_prints_one_json_object_and_its_exit_code_is_the_verdict(folder: Path) -> None:
    done = run(str(folder), "--json", "--resolution", "64,128", "--set", "train.batch_size=2")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert (report["ok"], report["plan"]["uses"], report["plan"]["global_batch"]) == (True, 8, 2)
    (folder / "1.png").write_bytes(b"")
    done = run(str(folder), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["file"] == "1.png"


def test_the_command_for_people_and_for_fronts(folder: Path) -> None:
    text = run(str(folder), "--resolution", "128").stdout.decode()
    assert "144 x 112" in text
    assert "a training can start from this" in text
    lines = [json.loads(line) for line in run(str(folder), "--lines", "--resolution", "128").stdout.splitlines()]
    assert lines[-1]["report"]["ok"]
    assert lines[-2] == {"item": 4, "items": 4}


def test_the_command_answers_one_sentence_where_there_is_nothing_to_examine(tmp_path: Path) -> None:
    for words, code in (([str(tmp_path / "none")], 3), ([str(tmp_path), "--set", "dataset.resolutio=5"], 2)):
        done = run(*words)
        assert done.returncode == code
        assert done.stdout == b""
        assert done.stderr.count(b"\n") == 1
        assert b"Traceback" not in done.stderr


def test_ten_thousand_headers_are_read_in_seconds(tmp_path: Path) -> None:
    data = [encoded(photo(number, 640, 480), "JPEG" if number % 2 else "PNG") for number in range(6)]
    for number in range(10_000):
        (tmp_path / f"{number:05}.{'jpg' if number % 2 else 'png'}").write_bytes(data[number % 6])
    report = report_on(tmp_path, quick=True, trigger="zorp")
    assert report.images == 10_000
    cpu = time.process_time()
    report = report_on(tmp_path, quick=True, trigger="zorp")
    assert time.process_time() - cpu < 10
    assert report.seconds < 60      # 10 on a machine that does nothing else; the bench has the figure


def test_a_file_that_crashes_the_decoder_is_named_and_the_rest_examined(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder is made to crash on one file by a sitecustomize of its own: a real process dies of a real signal."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, signal\n"
        "import PIL.Image as Image\n"
        "whole = Image.open\n"
        "def open(file, *rest, **more):\n"
        "    data = file.read(64); file.seek(0)\n"
        "    if b'crash' in data: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return whole(file, *rest, **more)\n"
        "Image.open = open\n"
    )
    (folder / "2.png").write_bytes(b"crash this decoder")
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "fluxtui.engine", "check", str(folder), "--json", "--resolution", "128"],
        capture_output=True, env=environment, timeout=120,
    )  # fmt: skip
    findings = json.loads(done.stdout)["findings"]
    assert [(found["kind"], found["file"]) for found in findings if found["level"] == "error"] == [("crash", "2.png")]
    assert json.loads(done.stdout)["plan"]["uses"] == 3


def said_of(*words: str) -> str:
    command = [sys.executable, "-m", "fluxtui.engine", "check", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_the_demos_own_data_is_checked_as_the_demo_trains_on_it() -> None:
    said = said_of("demo")
    assert "7 steps of up to 8" in said
    assert "0 errors, 0 warnings" in said


def test_one_warning_about_every_picture_hides_no_other(tmp_path: Path) -> None:
    for number in range(12):
        Image.new("RGB", (64, 64), (20 * number, 90, 200 - 15 * number)).save(tmp_path / f"{number:02d}.png")
        (tmp_path / f"{number:02d}.txt").write_text(f"a zorp, number {number}")
    said = said_of(str(tmp_path), "--trigger", "zorp")
    assert said.count("smaller than the smallest resolution") == 5
    assert "… and 7 more: " in said
