"""Pictures for the VAE: the demo's world and much beyond it, so that a concept it never saw is still drawn sharply."""

from __future__ import annotations

import random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fluxtui.demo import pictures


def wide_pictures(count: int, seed: int) -> torch.Tensor:
    """(count, 3, 64, 64) uint8: half of them scenes of the world, half random polygons, gradients and textures."""
    rng = random.Random(seed)
    field = np.random.default_rng(seed)
    out = torch.empty(count, 3, pictures.SIZE, pictures.SIZE, dtype=torch.uint8)
    for index in range(count):
        picture = _any_picture(rng, field) if rng.random() < 0.5 else pictures.draw(pictures.random_scene(rng))
        out[index] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return out


def _any_picture(rng: random.Random, field: np.random.Generator) -> Image.Image:
    side = pictures.SIZE * pictures.OVERSAMPLE
    large = Image.new("RGB", (side, side), _any_colour(rng)) if rng.random() < 0.7 else _gradient(field, side)
    pen = ImageDraw.Draw(large)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        radius = rng.uniform(0.1, 0.45) * side
        x, y = rng.uniform(0.25, 0.75) * side, rng.uniform(0.25, 0.75) * side
        for outline, _ in _any_outlines(rng):
            pen.polygon([(x + u * radius, y + v * radius) for u, v in outline], fill=_any_colour(rng))
    return large.reduce(pictures.OVERSAMPLE)


def _any_outlines(rng: random.Random) -> list[tuple[list[tuple[float, float]], bool]]:
    if rng.random() < 0.6:
        return pictures.unit_outlines(rng.choice((*pictures.SHAPES, "heart", "ring", "moon")))
    return [([(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(rng.randint(3, 7))], True)]


def _any_colour(rng: random.Random) -> tuple[int, int, int]:
    palette = (*pictures.COLOURS.values(), *pictures.BACKGROUNDS.values())
    if rng.random() < 0.5:
        return rng.choice(palette)
    return (rng.randrange(256), rng.randrange(256), rng.randrange(256))


def _gradient(field: np.random.Generator, side: int) -> Image.Image:
    cells = int(field.integers(2, 7))
    coarse: NDArray[np.uint8] = field.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
