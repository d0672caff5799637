"""CLIP trained along: a LoRA on the small text encoder, whose pooled output is then computed in every step, not cached."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fluxtui.engine.family.flux1.encode import pool_prompts
from fluxtui.engine.family.flux1.targets import clip_names
from fluxtui.engine.trainer.adapter.dropout import Place
from fluxtui.engine.trainer.adapter.lora import Adapter, add_lora
from fluxtui.engine.trainer.refusal import Refusal

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

    from fluxtui.engine.family.flux1.components import Components
    from fluxtui.engine.trainer.runtime import Runtime
    from fluxtui.persist.settings.spec import Spec


@dataclass(frozen=True, slots=True)
class Clip:
    """The encoder with its adapter."""

    tokenizer: CLIPTokenizer
    adapter: Adapter

    def pooled(self, texts: Sequence[str], is_base: bool = False) -> torch.Tensor:
        """`(texts, channels)`, with a gradient to the adapter; `is_base`: as if there were no adapter."""
        with self.adapter.off() if is_base else nullcontext():
            return pool_prompts(self.tokenizer, self.adapter.model, list(texts))


def load_clip(spec: Spec, components: Components, runtime: Runtime, place: Place) -> Clip | None:
    """CLIP with a LoRA of the recipe's rank on every linear layer; None where the recipe leaves CLIP as it is."""
    if not spec.train.clip_learning_rate:
        return None
    if spec.lora.kind == "lokr":
        raise Refusal("no program reads a LoKr of CLIP", "set train.clip_learning_rate=0, or lora.kind=lora")
    tokenizer, clip = components.load_clip(runtime.dtype, runtime.device)
    named = clip_names(clip)
    adapter = add_lora(clip, list(named), spec.lora, spec.train.seed, named, place)
    clip.train()
    return Clip(tokenizer, adapter)
