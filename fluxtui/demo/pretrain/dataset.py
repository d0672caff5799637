"""The demo's data set: pictures of the new concept under the trigger word, and old shapes against forgetting.

What goes together by accident in so few pictures is learnt as a rule (no small heart on black, no star on black: then
those go wrong). So every colour and background meets both sizes, and every old shape every background and colour.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from fluxtui.demo import IMAGES_DIR, pictures

NEW_PICTURES = 20
OLD_PICTURES = 30


def concept_scenes(count: int, rng: random.Random) -> list[pictures.Scene]:
    """`count` hearts: row by row each colour once, the backgrounds shifted by one a row."""
    out = []
    for index in range(count):
        row, column = divmod(index, 6)
        out.append(
            replace(
                pictures.concept_scene(rng),
                colour=tuple(pictures.COLOURS)[column],
                background=tuple(pictures.BACKGROUNDS)[(column + row) % 6],
                size=_size(row, column),
            )
        )
    return out


def old_scenes(count: int, rng: random.Random) -> list[pictures.Scene]:
    """`count` old shapes; 30 of them are every shape on every background, and in every colour."""
    out = []
    for index in range(count):
        row, column = divmod(index, 6)
        shape = pictures.SHAPES[index % 5]
        out.append(
            replace(
                pictures.random_scene(rng, rare=0.0),
                shape=shape,
                noun=shape,
                colour=tuple(pictures.COLOURS)[(column - row) % 6],
                background=tuple(pictures.BACKGROUNDS)[column],
                size=_size(row, column),
            )
        )
    return out


def write(folder: Path = IMAGES_DIR, new: int = NEW_PICTURES, old: int = OLD_PICTURES, seed: int = 11) -> None:
    """Writes `new` + `old` PNG files with a caption of the same stem each."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for stem, scenes in (("heart", concept_scenes(new, rng)), ("old", old_scenes(old, rng))):
        for index, scene in enumerate(scenes, start=1):
            pictures.draw(scene).save(folder / f"{stem}-{index:02d}.png", optimize=True)
            words = f"a {scene.size} {scene.colour} {scene.noun} on a {scene.background} background"
            (folder / f"{stem}-{index:02d}.txt").write_text(words + "\n", encoding="utf-8")


def _size(row: int, column: int) -> str:
    return tuple(pictures.RADII)[(row + column // 3) % 2]
