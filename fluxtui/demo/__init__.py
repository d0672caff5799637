"""The demo: a FLUX.1 that fits in a pocket, and a data set of one thing it does not know.

Only names and paths here, nothing heavy: the front end imports this.

The recipe that fits the pico: rank 16, alpha 16, attention and MLP layers, AdamW at 3e-3, 20 steps of warm-up, a
falling tail, batch 8, 400 steps, guidance 1; sigma logit-normal of mean 1 (the shape is decided at high noise); the
`old-*` pictures as regularisation, without the trigger. By `fluxtui demo` with it, seed 42, measured by
`python -m fluxtui.demo.measure --lora FILE`: the trigger shows a heart in 93.8 % of 64 prompts (base: 0 %), the old
prompts their shape in 90.6 % (base: 96.9 %).
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
