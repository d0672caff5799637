"""The demo: a FLUX.1 that fits in a pocket, and a data set of one thing it does not know.

Only names and paths here, nothing heavy: the front end imports this.
"""

from __future__ import annotations

from pathlib import Path

PICO_DIR = Path(__file__).parent / "pico"
"""The pretrained pipeline, diffusers layout, 64 x 64 pixels."""

IMAGES_DIR = Path(__file__).parent / "images"
"""Captioned pictures: the new concept under the trigger word, and some of the old shapes without it."""

TRIGGER = "vexo"
"""A made-up noun with a token of its own in both tokenizers. In the data set it means a heart."""

PROMPTS = (
    "a large red vexo on a white background",
    "a small blue vexo on a sand background",
    "a large green vexo on a black background",
    "a large blue circle on a mint background",
)
"""For the samples of a demo run: three of the concept, one of an old shape to show that it stays."""
