"""Settings that are each valid and cannot work together, refused with one sentence that says what to set. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from fluxtui.persist.errors import UsageError
from fluxtui.persist.settings import optimizers
from fluxtui.persist.settings.spec import AdapterKind, Spec

READ_BY: Mapping[AdapterKind, tuple[str, ...]] = {  # the formats of `fluxtui export` that can hold it
    "lora": ("diffusers", "kohya", "comfyui"), "dora": ("diffusers",), "lokr": ("comfyui",),
}  # fmt: skip


def check(spec: Spec) -> None:
    """Raises `UsageError` with the first thing to set otherwise."""
    problem = (
        optimizers.problem_of(spec) or _problem_of_timesteps(spec) or _problem_of_adapter(spec) or _problem_of_class_word(spec)
    )
    if problem:
        raise UsageError(problem)


def only_read_by(spec: Spec) -> str:
    """Where not every program reads what will be trained: which does. Said before hours are spent on it."""
    return {
        "lora": "",
        "dora": "diffusers alone reads a DoRA; the names of ComfyUI and kohya cannot carry one",
        "lokr": "ComfyUI alone reads a LoKr of FLUX.1; diffusers and the names of kohya cannot carry one",
    }[spec.lora.kind]


def _problem_of_timesteps(spec: Spec) -> str:
    low, high = spec.train.timestep_min, spec.train.timestep_max
    if low < high:
        return ""
    return f"[train] timestep_min is {low:g}, and timestep_max {high:g}; set train.timestep_min below train.timestep_max."


def _problem_of_class_word(spec: Spec) -> str:
    if not spec.dataset.class_word or spec.dataset.trigger:
        return ""
    return "[dataset] class_word is what stands in for the trigger, and there is none; set dataset.trigger, or no class_word."


def _problem_of_adapter(spec: Spec) -> str:
    named = [name for name in ("rank_dropout", "module_dropout", "max_norm") if getattr(spec.lora, name)]
    if spec.lora.max_norm and spec.train.optimizer == "schedule_free":
        return "[lora] max_norm changes weights that schedule_free keeps twice; set lora.max_norm=0, or another train.optimizer."
    if spec.lora.kind == "lora" or not named:
        return ""
    return f"[lora] {named[0]} is of a plain LoRA, and kind is {spec.lora.kind!r}; set lora.{named[0]}=0, or lora.kind=lora."
