"""Bad input gets one sentence that says what to do, before anything is made, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.journeys.terminal import fluxtui, shown


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 40, 90)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}\n")
    return folder


def refused(*words: str, code: int = 2) -> str:
    """The one sentence with which a call was refused; nothing may be left of the session it asked for."""
    home = Path(os.environ["FLUXTUI_HOME"])
    before = sorted((home / "sessions").glob("*/*")) if home.exists() else []
    done = fluxtui(*words)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    sentence = done.stderr.strip()
    assert sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert sorted((home / "sessions").glob("*/*")) == before
    return sentence


def test_a_folder_without_images(home_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no image" in refused("new", "a", "--model", "pico", "--dataset", str(tmp_path / "empty"))


def test_a_folder_that_is_not_there(home_path: Path, tmp_path: Path) -> None:
    assert "nowhere" in refused("new", "a", "--model", "pico", "--dataset", str(tmp_path / "nowhere"), code=3)


def test_a_caption_without_its_image(home_path: Path, pictures: Path) -> None:
    (pictures / "2.png").unlink()
    assert "2.txt" in refused("new", "a", "--model", "pico", "--dataset", str(pictures))


def test_a_picture_that_is_not_read_is_named_and_not_its_caption(home_path: Path, pictures: Path) -> None:
    (pictures / "2.png").rename(pictures / "2.heic")
    sentence = refused("new", "a", "--model", "pico", "--dataset", str(pictures))
    assert "2.heic is not used: .heic is not read; save it as PNG or JPEG" in sentence


def test_a_folder_whose_name_is_not_utf8(home_path: Path, pictures: Path) -> None:
    named = os.fsencode(pictures.parent) + b"/caf\xe9"
    os.rename(pictures, named)
    assert "is not UTF-8" in refused("new", "a", "--model", "pico", "--dataset", os.fsdecode(named))


def test_a_model_folder_that_is_not_a_flux_pipeline(home_path: Path, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert "model_index.json" in refused("new", "a", "--model", str(other), "--dataset", str(pictures))
    (other / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    assert "StableDiffusionPipeline" in refused("new", "a", "--model", str(other), "--dataset", str(pictures))


def test_a_name_that_exists_keeps_the_old_session(home_path: Path, pictures: Path) -> None:
    assert fluxtui("new", "a", "--model", "pico", "--dataset", str(pictures)).returncode == 0
    spec = (home_path / "sessions/a/session.toml").read_bytes()
    assert "exists" in refused("new", "a", "--model", "pico", "--dataset", "demo", code=4)
    assert (home_path / "sessions/a/session.toml").read_bytes() == spec


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", ".", "..", "", "a\nb", "x" * 255, "Ünïcode", "-rf"])
def test_an_unsafe_name(home_path: Path, pictures: Path, name: str) -> None:
    done = fluxtui("new", "--model", "pico", "--dataset", str(pictures), "--", name)
    assert done.returncode == 2
    assert not [path for path in home_path.rglob("session.toml")]


def test_an_unknown_key_names_the_nearest(home_path: Path, pictures: Path) -> None:
    sentence = refused("new", "a", "--model", "pico", "--dataset", str(pictures), "--set", "train.learning_rat=1e-4")
    assert "learning_rat" in sentence
    assert "learning_rate" in sentence


@pytest.mark.parametrize(
    ("pair", "bound"), [("train.batch_size=0", "1024"), ("lora.rank=0", "1024"), ("train.steps=-5", "10000000")]
)
def test_a_value_out_of_range_says_which_and_the_range(home_path: Path, pictures: Path, pair: str, bound: str) -> None:
    sentence = refused("new", "a", "--model", "pico", "--dataset", str(pictures), "--set", pair)
    assert pair.split("=")[0].split(".")[1] in sentence
    assert bound in sentence.replace(",", "").replace("_", "")


def test_a_spec_edited_by_hand_with_an_unknown_key_is_refused_at_start(home_path: Path, pictures: Path) -> None:
    assert fluxtui("new", "a", "--model", "pico", "--dataset", str(pictures)).returncode == 0
    spec = home_path / "sessions/a/session.toml"
    spec.write_text(spec.read_text().replace("[train]", "[train]\nbatchsize = 4", 1))
    done = fluxtui("start", "a")
    assert done.returncode == 2
    assert "batchsize" in done.stderr
    assert not list((home_path / "sessions/a/attempts").glob("*.toml"))


def test_an_image_that_is_no_image_fails_before_training_and_is_named(home_path: Path, pictures: Path) -> None:
    (pictures / "1.png").write_bytes(b"this is no picture")
    assert fluxtui("new", "a", "--model", "pico", "--dataset", str(pictures), "--set", "train.steps=2").returncode == 0
    assert fluxtui("start", "a").returncode == 0
    assert fluxtui("wait", "a", "--timeout", "60").returncode == 1
    seen = shown("a")
    assert seen["state"] == "failed"
    assert "1.png" in seen["reason"]
    assert seen["step"] == 0
    assert seen["exit_code"] == 77
    assert seen["remedy"] == f"fix what fluxtui check {pictures} names, then fluxtui resume a"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.root
def test_a_full_disk_is_said_before_training(
    pictures: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(runtime))
    monkeypatch.setenv("FLUXTUI_HOME", str(small_disk / "home"))
    done = fluxtui("new", "a", "--model", "pico", "--dataset", str(pictures))
    if done.returncode == 0:
        done = fluxtui("start", "a")
    if done.returncode == 0:
        done = fluxtui("wait", "a", "--timeout", "60")
        assert "disk" in shown("a")["reason"]
        assert shown("a")["step"] == 0
    else:
        assert "disk" in done.stderr
    assert done.returncode != 0
    assert shutil.disk_usage(small_disk).total <= 2**20
