"""Which linear layers of a FLUX.1 transformer get a LoRA.

Names are matched whole and only inside the blocks: the suffix `proj_out` alone would take the top-level output layer too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fluxtui.engine.family.flux1.keys import CLIP
from fluxtui.persist.errors import UsageError

if TYPE_CHECKING:
    import torch

_DOUBLE = r"transformer_blocks\.\d+\."
_SINGLE = r"single_transformer_blocks\.\d+\."
_DOUBLE_ATTENTION = _DOUBLE + r"attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_DOUBLE_MLP = _DOUBLE + r"(ff|ff_context)\.net\.(0\.proj|2)"
_SINGLE_ATTENTION = _SINGLE + r"attn\.(to_q|to_k|to_v)"
# proj_out of a single block reads attention and MLP side by side: no attention-only preset can leave it out, nor take half
_SINGLE_MLP = _SINGLE + r"(proj_mlp|proj_out)"
_MODULATION = rf"{_DOUBLE}(norm1|norm1_context)\.linear|{_SINGLE}norm\.linear"

PRESETS: dict[str, str] = {
    "attention+mlp": "|".join((_DOUBLE_ATTENTION, _DOUBLE_MLP, _SINGLE_ATTENTION, _SINGLE_MLP)),
    "attention": f"{_DOUBLE_ATTENTION}|{_SINGLE_ATTENTION}",
    "all": "|".join((_DOUBLE_ATTENTION, _DOUBLE_MLP, _SINGLE_ATTENTION, _SINGLE_MLP, _MODULATION)),
    "single": f"{_SINGLE_ATTENTION}|{_SINGLE_MLP}",
}


def target_names(transformer: torch.nn.Module, targets: str) -> tuple[str, ...]:
    """Full names of the linear layers that `lora.targets` means, in the model's order.

    `targets` is a preset or a regular expression that must match a whole name. Raises `UsageError` where it is no
    expression or matches nothing.
    """
    import torch

    try:
        pattern = re.compile(PRESETS.get(targets, targets))
    except re.error as error:
        raise UsageError(
            f"lora.targets {targets!r} is neither one of {', '.join(PRESETS)} nor a regular expression: {error}."
        ) from None
    linear = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    found = tuple(name for name in linear if pattern.fullmatch(name))
    if not found:
        raise UsageError(f"lora.targets {targets!r} matches no linear layer; names look like {linear[len(linear) // 2]!r}.")
    return found


_CLIP_LAYER = re.compile(r"(text_model\.)?(encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12]))")


def clip_names(clip: torch.nn.Module) -> dict[str, str]:
    """Each linear layer of CLIP's text encoder -> its name in files, which keep the `text_model` that transformers 5 dropped."""
    matches = (_CLIP_LAYER.fullmatch(name) for name, _ in clip.named_modules())
    return {match[0]: f"{CLIP}text_model.{match[2]}" for match in matches if match}
