"""The judge says of true pictures what they show, and of other pictures that they show nothing of it."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fluxtui.demo import pictures
from fluxtui.demo.judge import JUDGED_SHAPES, judge


def seen(picture):
    verdict = judge(picture)
    return verdict.shape, verdict.colour, verdict.background


@pytest.mark.parametrize("shape", JUDGED_SHAPES)
def test_every_true_picture_is_judged_as_drawn(shape):
    rng = random.Random(shape)
    for _ in range(60):
        scene = replace(pictures.random_scene(rng), shape=shape)
        assert seen(pictures.draw(scene)) == (shape, scene.colour, scene.background)


@pytest.mark.parametrize("shape", [*pictures.SHAPES, pictures.CONCEPT_SHAPE])
def test_noise_of_a_tenth_changes_few_verdicts(shape):
    rng, noise = random.Random(shape), np.random.default_rng(0)
    right = 0
    for _ in range(60):
        scene = replace(pictures.random_scene(rng), shape=shape)
        pixels = np.asarray(pictures.draw(scene), dtype=np.float64) + noise.normal(0, 12, (64, 64, 3))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        right += seen(picture) == (shape, scene.colour, scene.background)
    assert right >= 54


def test_an_empty_picture_has_a_background_and_no_shape():
    assert seen(Image.new("RGB", (64, 64), pictures.BACKGROUNDS["mint"])) == (None, None, "mint")


def test_noise_shows_no_shape_of_a_colour_on_a_background():
    rng = np.random.default_rng(1)
    for _ in range(20):
        verdict = seen(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
        assert None in verdict


def test_a_colour_beyond_the_palette_has_no_name():
    picture = Image.new("RGB", (64, 64), pictures.BACKGROUNDS["white"])
    picture.paste((0, 255, 255), (20, 20, 44, 44))
    assert seen(picture) == ("square", None, "white")
