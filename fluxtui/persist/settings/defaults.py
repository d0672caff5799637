"""The defaults of each kind of model, and a complete spec from them. Reasons and sources: docs/recipes.md."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Literal, get_args

from fluxtui.demo import PROMPTS, TRIGGER
from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.errors import UsageError
from fluxtui.persist.settings import optimizers, recipe
from fluxtui.persist.settings.spec import DatasetSpec, MemoryPreset, ModelSpec, Spec

Kind = Literal["pico", "flux1"]

# What differs from the defaults of the schema.
_PICO: dict[str, object] = {
    "dataset.resolution": [64],
    "lora.rank": 16,
    "lora.alpha": 16.0,
    "train.steps": 400,
    "train.batch_size": 8,
    "train.learning_rate": 3e-3,
    "train.warmup_steps": 20,
    "train.timestep_sampling": "logit_normal",
    "train.timestep_mean": 1.0,         # what is drawn is decided at high noise
    "train.gradient_checkpointing": False,
    "checkpoint.every_epochs": 0,
    "checkpoint.every_steps": 100,
    "sample.every_epochs": 40,
    "sample.at_start": True,
    "sample.steps": 16,
    "sample.width": 64,
    "sample.height": 64,
}
_FLUX1: dict[str, object] = {
    "dataset.caption_dropout": 0.05,
    "lora.rank": 16,
    "lora.alpha": 16.0,
    "train.batch_size": 1,
    "train.learning_rate": 1e-4,
    "train.warmup_steps": 50,
    "train.timestep_sampling": "flux_shift",
    "sample.every_epochs": 4,
    "sample.steps": 20,
    "sample.width": 1024,
    "sample.height": 1024,
}


def of_kind(kind: Kind) -> Mapping[str, object]:
    """What differs from the defaults of the schema, by full key; the steps of a FLUX.1 LoRA go by its pictures besides."""
    return _PICO if kind == "pico" else _FLUX1


def new_spec(
    name: str,
    source: str,
    dataset: str,
    kind: Kind,
    images: int,
    trigger: str,
    sets: Mapping[str, object],
) -> Spec:
    """A complete spec: the kind's defaults, fitted to the number of images, then what the user set.

    `source` and `dataset` as a spec writes them; `sets` as `recipe.parse_sets` gives them. Raises `UsageError`.
    """
    is_demo = dataset == dataset_folder.DEMO
    trigger = str(sets.get("dataset.trigger", trigger or (TRIGGER if is_demo else "")))
    values: dict[str, object] = {"dataset.trigger": trigger, **of_kind(kind)}
    if kind == "flux1":
        values["train.steps"] = steps_for(images, *STEPS["subject"])
    if "train.epochs" in sets and "train.steps" not in sets:
        values["train.steps"] = 0  # who asks for epochs gets them: steps would win
    if sets.get("train.scheduler") == "cosine_with_restarts":
        values["train.scheduler_cycles"] = 3  # one, the schema's, is no restart
    if is_demo:
        values["dataset.regularisation"] = "old-*"  # the old shapes, lest they are forgotten
    values["sample.prompts"] = list(PROMPTS) if is_demo else default_prompts(trigger)
    spec = Spec(
        name=name,
        id=uuid.uuid4().hex,
        kind=kind,
        model=ModelSpec(source=source),
        dataset=DatasetSpec(path=dataset),
    )
    return recipe.apply(spec, {**values, **optimizers.defaults_of(sets.get("train.optimizer", "adamw"), values), **sets})


def for_optimizer(spec: Spec, sets: Mapping[str, object]) -> dict[str, object]:
    """What goes with another optimizer than the spec has, where `sets` ask for one; nothing where they do not."""
    optimizer = sets.get("train.optimizer", spec.train.optimizer)
    if optimizer == spec.train.optimizer:
        return {}
    return optimizers.defaults_of(optimizer, of_kind(spec.kind))


# Named recipes, on top of the defaults; reasons and sources in docs/recipes.md.
RECIPES: dict[str, dict[str, object]] = {
    "subject": {"lora.targets": "attention+mlp", "train.timestep_sampling": "flux_shift", "dataset.caption_dropout": 0.05},
    # a style has to show in captions that do not name it, and in composition: more empty captions, more noise
    "style": {"train.timestep_sampling": "flux_shift", "dataset.caption_dropout": 0.1},
    # the mean mu of flux_shift is 0 then: likeness over composition; and a face is not symmetric
    "face": {"train.timestep_sampling": "sigmoid", "dataset.flip": False},
    "fast": {"train.learning_rate": 4e-4, "train.warmup_steps": 20, "dataset.resolution": [512]},
    "fluxgym": {
        "lora.rank": 4,
        "lora.alpha": 1.0,
        "lora.targets": "all",
        "dataset.repeats": 10,
        "dataset.resolution": [512],
        "dataset.caption_dropout": 0.0,
        "train.steps": 0,
        "train.epochs": 16,
        "train.learning_rate": 8e-4,
        "train.warmup_steps": 0,
        "train.scheduler": "constant",
        "train.timestep_sampling": "shift",
        "train.timestep_shift": 3.1582,
        "checkpoint.every_epochs": 4,
    },
}
# Optimizer steps of a recipe: an image, at the least, at the most.
STEPS = {"subject": (100, 1200, 2500), "style": (80, 2000, 3000), "face": (100, 1200, 2500), "fast": (50, 500, 1000)}


def with_recipe(name: str, images: int, chosen: Mapping[str, object]) -> dict[str, object]:
    """What a named recipe sets for so many images, and over it what was chosen. Raises `UsageError` with the names there are.

    `images` 0: not known, and the steps stay as they are. No name: what was chosen, alone.
    """
    if not name:
        return dict(chosen)
    if name not in RECIPES:
        card = f" A card's preset is given by --set hardware.preset={name}." if name in get_args(MemoryPreset) else ""
        raise UsageError(f"There is no recipe {name[:40]!a}; there are {', '.join(RECIPES)}.{card}")
    values = dict(RECIPES[name])
    values |= optimizers.defaults_of(chosen.get("train.optimizer", "adamw"), values)
    if images and name in STEPS and "train.epochs" not in chosen:  # who asks for epochs gets them: steps would win
        values["train.steps"] = steps_for(images, *STEPS[name])
    return {**values, **chosen}


def over(spec: Spec, name: str, chosen: Mapping[str, object]) -> dict[str, object]:
    """What a named recipe and another optimizer bring to a spec that there is, without what was chosen itself.

    A recipe's rate is AdamW's: with another optimizer, chosen or the spec's own, that one's stands for it.
    """
    optimizer = chosen.get("train.optimizer", spec.train.optimizer)
    brought = {**for_optimizer(spec, chosen), **with_recipe(name, 0, {"train.optimizer": optimizer} if name else {})}
    return {key: value for key, value in brought.items() if key not in chosen}


def steps_for(images: int, each: int, least: int, most: int) -> int:
    """Optimizer steps: so many an image, within limits."""
    return min(most, max(least, each * images))


def default_prompts(trigger: str) -> list[str]:
    """Two prompts with the trigger, and one without as a leak check; none without a trigger word to put into them."""
    if not trigger:
        return []
    return ["a photo of [trigger]", "[trigger] in a garden on a sunny day", "a photo of a street with a few people"]
