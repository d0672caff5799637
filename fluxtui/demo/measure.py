"""`python -m fluxtui.demo.measure [--lora FILE] [--json]`: how often the pico draws what the prompt asks for.

64 prompts, each with a seed of its own; the judge looks at colour and shape. With a LoRA: also 64 prompts with the
trigger word, and the old prompts once more.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fluxtui.demo import PICO_DIR, TRIGGER, pictures
from fluxtui.demo.judge import judge
from fluxtui.demo.pictures import Scene

if TYPE_CHECKING:
    from diffusers import FluxPipeline
    from PIL import Image

PROMPTS = 64
STEPS = 16
GUIDANCE = 3.5
FIRST_SEED = 1000
TEMPLATE = "a {size} {colour} {noun} on a {background} background"


@dataclass(frozen=True, slots=True)
class Share:
    """Shares of the prompts, 0 to 1, whose picture shows what they ask for."""

    shape: float
    colour: float
    background: float
    all_three: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What one measurement found. `concept` is the share of trigger prompts that show the new concept."""

    prompts: int
    old: Share  # prompts that name the old shapes
    concept: float
    concept_colour: float
    concept_background: float


def scenes(count: int = PROMPTS, seed: int = 7) -> list[Scene]:
    """What the prompts ask for: every shape, colour, background and size about equally often."""
    rng = random.Random(seed)
    columns = [
        [values[k % len(values)] for k in range(count)]
        for values in (
            pictures.SHAPES,
            tuple(pictures.COLOURS),
            tuple(pictures.BACKGROUNDS),
            tuple(pictures.RADII),
        )
    ]
    for column in columns:
        rng.shuffle(column)
    middle = (pictures.SIZE / 2, pictures.SIZE / 2)
    return [
        Scene(shape, colour, background, size, middle, shape) for shape, colour, background, size in zip(*columns, strict=True)
    ]


def prompt(scene: Scene) -> str:
    """The words that ask for the scene."""
    return TEMPLATE.format(**{name: getattr(scene, name) for name in ("size", "colour", "noun", "background")})


def load(folder: Path = PICO_DIR, lora: Path | None = None) -> FluxPipeline:
    """The pipeline in float32, with the LoRA file on it if one is given."""
    import torch
    from diffusers import FluxPipeline

    pipeline: FluxPipeline = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
    return pipeline


def draw(pipeline: FluxPipeline, prompts: list[str], steps: int = STEPS, guidance: float = GUIDANCE) -> list[Image.Image]:
    """One picture a prompt, in one batch; picture k has seed FIRST_SEED + k."""
    import torch

    generators = [torch.Generator().manual_seed(FIRST_SEED + k) for k in range(len(prompts))]
    drawn: list[Image.Image] = pipeline(
        prompt=prompts,
        height=pictures.SIZE,
        width=pictures.SIZE,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        max_sequence_length=min(512, pipeline.tokenizer_2.model_max_length),
    ).images
    return drawn


def share(wanted: list[Scene], drawn: list[Image.Image]) -> Share:
    """How often the judge finds in each picture what its scene asks for."""
    hits = []
    for scene, picture in zip(wanted, drawn, strict=True):
        seen = judge(picture)
        hit = (seen.shape == scene.shape, seen.colour == scene.colour, seen.background == scene.background)
        hits.append((*hit, all(hit)))
    return Share(*(sum(column) / len(hits) for column in zip(*hits, strict=True)))


def concept_scenes(wanted: list[Scene]) -> list[Scene]:
    """The same scenes, but of the new concept under the trigger word."""
    return [replace(scene, shape=pictures.CONCEPT_SHAPE, noun=TRIGGER) for scene in wanted]


def measure(pipeline: FluxPipeline, count: int = PROMPTS) -> Figures:
    """Draws `count` prompts of the old shapes and `count` with the trigger, and judges them."""
    old = scenes(count)
    new = concept_scenes(old)
    old_share = share(old, draw(pipeline, [prompt(scene) for scene in old]))
    new_share = share(new, draw(pipeline, [prompt(scene) for scene in new]))
    return Figures(count, old_share, new_share.shape, new_share.colour, new_share.background)


def sheet(drawn: list[Image.Image], columns: int = 8, zoom: int = 2) -> Image.Image:
    """All pictures on one, for a person to look at."""
    from PIL import Image

    rows = -(-len(drawn) // columns)
    side = pictures.SIZE
    page = Image.new("RGB", (columns * (side + 2), rows * (side + 2)), (60, 60, 60))
    for k, picture in enumerate(drawn):
        page.paste(picture, (k % columns * (side + 2) + 1, k // columns * (side + 2) + 1))
    return page.resize((page.width * zoom, page.height * zoom), Image.Resampling.NEAREST)


def main() -> None:
    """Prints the figures; `--sheets DIR` also writes the pictures."""
    parser = argparse.ArgumentParser(prog="python -m fluxtui.demo.measure", description=__doc__)
    parser.add_argument("--pico", type=Path, default=PICO_DIR, help="pipeline folder")
    parser.add_argument("--lora", type=Path, help="a LoRA file to put on it")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--sheets", type=Path, help="folder for two sheets of the pictures")
    args = parser.parse_args()
    pipeline = load(args.pico, args.lora)
    figures = measure(pipeline)
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        sheet(draw(pipeline, [prompt(s) for s in scenes()])).save(args.sheets / "old.png")
        sheet(draw(pipeline, [prompt(s) for s in concept_scenes(scenes())])).save(args.sheets / "concept.png")
    if args.json:
        print(json.dumps(asdict(figures)))
        return
    old = figures.old
    print(
        f"{figures.prompts} prompts, old shapes: shape {old.shape:.1%}, colour {old.colour:.1%}, "
        f"background {old.background:.1%}, all three {old.all_three:.1%}"
    )
    print(
        f"{figures.prompts} prompts with the trigger: concept {figures.concept:.1%}, "
        f"colour {figures.concept_colour:.1%}, background {figures.concept_background:.1%}"
    )


if __name__ == "__main__":
    main()
