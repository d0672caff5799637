"""The demo's data set: pictures of the new concept under the trigger word, and old shapes against forgetting."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from fluxtui.demo import IMAGES_DIR, pictures

NEW_PICTURES = 20
OLD_PICTURES = 30


def write(folder: Path = IMAGES_DIR, new: int = NEW_PICTURES, old: int = OLD_PICTURES, seed: int = 11) -> None:
    """Writes `new` + `old` PNG files with a caption of the same stem each; colours and backgrounds go round."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for stem, make, count in (("heart", pictures.concept_scene, new), ("old", _old_scene, old)):
        for index in range(count):
            row, column = divmod(index, 6)
            scene = replace(        # every colour and every background meets both sizes
                make(rng),
                colour=tuple(pictures.COLOURS)[column],
                background=tuple(pictures.BACKGROUNDS)[(column + row) % 6],
                size=tuple(pictures.RADII)[(row + column // 3) % 2])
            if stem == "old":
                shape = pictures.SHAPES[index % len(pictures.SHAPES)]
                scene = replace(scene, shape=shape, noun=shape)
            name = f"{stem}-{index + 1:02d}"
            pictures.draw(scene).save(folder / f"{name}.png", optimize=True)
            (folder / f"{name}.txt").write_text(_words(scene) + "\n", encoding="utf-8")


def _old_scene(rng: random.Random) -> pictures.Scene:
    return pictures.random_scene(rng, rare=0.0)


def _words(scene: pictures.Scene) -> str:
    return f"a {scene.size} {scene.colour} {scene.noun} on a {scene.background} background"
