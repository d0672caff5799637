"""Real photographs, of many sizes, to a proven file."""

from __future__ import annotations

import shutil
from pathlib import Path

import skimage

from tests.journeys.terminal import fluxtui, shown

PHOTOGRAPHS = {
    "astronaut.png": "a woman in an orange space suit before a flag",
    "chelsea.png": "a tabby cat that looks to the side",
    "coffee.png": "a cup of coffee on a wooden table",
    "rocket.jpg": "a rocket at the launch pad at night",
    "hubble_deep_field.jpg": "galaxies in a black sky",
    "motorcycle_left.png": "a motorcycle in a workshop",
}


def test_photographs_train_to_a_proven_file(home_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name, caption in PHOTOGRAPHS.items():
        shutil.copy(Path(skimage.__file__).parent / "data" / name, folder / name)
        (folder / name).with_suffix(".txt").write_text(caption + "\n")
    sets = ["--set", "train.steps=12", "--set", "train.batch_size=2", "--set", "dataset.resolution=[64, 96]"]
    made = fluxtui("new", "photographs", "--model", "pico", "--dataset", str(folder), *sets)
    assert made.returncode == 0, made.stderr
    assert fluxtui("start", "photographs").returncode == 0
    done = fluxtui("wait", "photographs", "--timeout", "240")
    seen = shown("photographs")
    assert done.returncode == 0, (done.stderr, seen)
    assert seen["state"] == "completed"
    assert seen["step"] == 12
    assert fluxtui("verify", "photographs").returncode == 0
