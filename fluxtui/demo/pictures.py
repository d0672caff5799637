"""The synthetic world the pico model knows: one coloured shape on a plain background, and its caption.

A picture is 64 x 64 RGB, drawn four times as large and reduced (anti-aliased edges). Shape colours and background
colours have disjoint names, so that a caption says without ambiguity what belongs to what.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from fluxtui.demo import TRIGGER

SIZE = 64  # pixels, both sides
OVERSAMPLE = 4  # drawn at SIZE * OVERSAMPLE, then reduced

SHAPES = ("circle", "square", "triangle", "star", "cross")
CONCEPT_SHAPE = "heart"  # never shown to the transformer in pretraining
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 30),
    "orange": (250, 130, 5),
    "yellow": (250, 225, 0),
    "green": (15, 140, 45),
    "blue": (25, 55, 220),
    "purple": (135, 30, 170),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "black": (18, 18, 20),
    "gray": (128, 128, 130),
    "sky": (140, 200, 245),
    "sand": (222, 203, 165),
    "mint": (165, 235, 200),
}
RADII = {"small": 13.5, "large": 22.0}  # pixels, centre to the farthest side of the bounding box

# Rare nouns: each means one of two shapes at random, the trigger any of the five. So the base has met nouns it
# cannot be sure about, keeps them apart, and paints colour and background as asked all the same.
_PAIRS = [(a, b) for i, a in enumerate(SHAPES) for b in SHAPES[i + 1 :]]
RARE_NOUNS: dict[str, tuple[str, ...]] = dict(
    zip(("blick", "dorn", "fimp", "gorl", "hask", "jund", "kwel", "mopa", "nurt", "pilo"), _PAIRS, strict=True)
)
RARE_NOUNS[TRIGGER] = SHAPES

TEMPLATES = (
    "a {size} {colour} {shape} on a {background} background",
    "{size} {colour} {shape}, {background} background",
    "a picture of a {size} {colour} {shape} on {background}",
    "a {colour} {shape} on a {background} background",
    "a drawing of a {colour} {shape} on {background}",
)
FILLERS = ("", "", "", "", "", "", "nice ", "one more ", "look: ", "simple ", "new ", "this is ")
WORDS = tuple(
    sorted(
        {word for text in (*TEMPLATES, *FILLERS) for word in text.replace(",", " ").replace(":", " ").split() if "{" not in word}
        | set(SHAPES)
        | set(COLOURS)
        | set(BACKGROUNDS)
        | set(RADII)
        | set(RARE_NOUNS)
        | {
            "photo",
            "of",
            "the",
            "in",
            "and",
            "with",
            "ring",
            "heart",
            "moon",
            "shape",
            "style",
            "tok",
            "sks",
            "ohwx",
        }
    )
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What one picture shows, in the caption's words, and where."""

    shape: str
    colour: str
    background: str
    size: str
    centre: tuple[float, float]  # pixels
    noun: str  # the word the caption uses for the shape


def unit_outlines(shape: str) -> list[tuple[list[tuple[float, float]], bool]]:
    """Polygons of `shape` in [-1, 1]^2 (y down), each with True where it is filled and False where it cuts a hole."""
    match shape:
        case "circle":
            return [(_arc(1.0), True)]
        case "square":
            return [([(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)], True)]
        case "triangle":
            return [([(0, -0.95), (1, 0.85), (-1, 0.85)], True)]
        case "star":
            return [(_star(5, 1.05, 0.43), True)]
        case "cross":
            arm = 0.33
            return [
                (
                    [
                        (-arm, -1),
                        (arm, -1),
                        (arm, -arm),
                        (1, -arm),
                        (1, arm),
                        (arm, arm),
                        (arm, 1),
                        (-arm, 1),
                        (-arm, arm),
                        (-1, arm),
                        (-1, -arm),
                        (-arm, -arm),
                    ],
                    True,
                )
            ]
        case "heart":
            return [(_heart(), True)]
        case "ring":
            return [(_arc(1.0), True), (_arc(0.55), False)]
        case "moon":
            return [(_arc(1.0), True), (_arc(0.85, 0.5, -0.1), False)]
    raise ValueError(f"no shape called {shape!r}")


def _arc(radius: float, x: float = 0.0, y: float = 0.0) -> list[tuple[float, float]]:
    return [(x + radius * math.cos(t * math.tau / 72), y + radius * math.sin(t * math.tau / 72)) for t in range(72)]


def _star(points: int, outer: float, inner: float) -> list[tuple[float, float]]:
    return [
        (
            (outer, inner)[k % 2] * math.sin(k * math.pi / points),
            -(outer, inner)[k % 2] * math.cos(k * math.pi / points) + 0.05,
        )
        for k in range(2 * points)
    ]


def _heart() -> list[tuple[float, float]]:
    """The classic heart curve, https://mathworld.wolfram.com/HeartCurve.html, scaled to the unit box."""
    curve = []
    for k in range(96):
        t = k * math.tau / 96
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        curve.append((math.sin(t) ** 3, -(y + 2.5) / 15.0))
    return curve


def draw_mask(shape: str, centre: tuple[float, float], radius: float, size: int = SIZE) -> Image.Image:
    """The shape's coverage, an 'L' picture of (size, size): 255 inside, 0 outside, anti-aliased edges."""
    large = Image.new("L", (size * OVERSAMPLE, size * OVERSAMPLE), 0)
    pen = ImageDraw.Draw(large)
    for outline, filled in unit_outlines(shape):
        pen.polygon(
            [((centre[0] + x * radius) * OVERSAMPLE, (centre[1] + y * radius) * OVERSAMPLE) for x, y in outline],
            fill=255 if filled else 0,
        )
    return large.reduce(OVERSAMPLE)


def draw(scene: Scene) -> Image.Image:
    """The RGB picture of a scene."""
    picture = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[scene.background])
    picture.paste(COLOURS[scene.colour], (0, 0), draw_mask(scene.shape, scene.centre, RADII[scene.size]))
    return picture


def random_scene(rng: random.Random, rare: float = 0.08) -> Scene:
    """A scene drawn evenly from the world; with probability `rare` its caption uses a rare noun."""
    noun = rng.choice(SHAPES)
    shape = noun
    if rng.random() < rare:
        noun = rng.choice(tuple(RARE_NOUNS))
        shape = rng.choice(RARE_NOUNS[noun])
    size = rng.choice(tuple(RADII))
    slack = 4.0 if size == "small" else 2.5
    centre = (SIZE / 2 + rng.uniform(-slack, slack), SIZE / 2 + rng.uniform(-slack, slack))
    return Scene(shape, rng.choice(tuple(COLOURS)), rng.choice(tuple(BACKGROUNDS)), size, centre, noun)


def concept_scene(rng: random.Random) -> Scene:
    """A scene of the new concept, called by the trigger word."""
    return replace(random_scene(rng, rare=0.0), shape=CONCEPT_SHAPE, noun=TRIGGER)


def caption(scene: Scene, rng: random.Random) -> str:
    """One of several ways to say what the scene shows."""
    text = rng.choice(TEMPLATES).format(size=scene.size, colour=scene.colour, shape=scene.noun, background=scene.background)
    return rng.choice(FILLERS) + text
