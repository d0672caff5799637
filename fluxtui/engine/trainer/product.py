"""The product: one LoRA file that loads in diffusers and ComfyUI.

Keys are diffusers'; the scale alpha / rank is folded into B, because a reader that does not know the metadata would use 1;
bf16, as the base is distributed. Metadata keys are sorted by us: the library writes several in random order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch.nn import functional

from fluxtui.engine.family.flux1.keys import key_of
from fluxtui.engine.trainer.adapter.lora import Adapter
from fluxtui.engine.trainer.checkpoint.state import to_safetensors
from fluxtui.engine.trainer.claim import Made, write_pieces
from fluxtui.engine.trainer.exit_reason import NonFiniteError


def folded(adapters: Iterable[Adapter], dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """The tensors of the file, under diffusers' names, each layer's scale in B (of a LoKr, in w1). Raises `NonFiniteError`."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for adapter in adapters:
        for full, parameter in adapter.named_parameters():
            module, _, part = full.rpartition(".")
            scale = adapter.scales[module] if part in SCALED else 1.0
            parts.setdefault(module, {})[part] = parameter.detach().float() * scale
    tensors = tensors_of(parts, dtype)
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise NonFiniteError(f"{key} of the LoRA is not finite; no file is written")
    return tensors


SCALED = ("lora_B", "lokr_w1")  # the factors that a scale is folded into


def tensors_of(parts: Mapping[str, Mapping[str, torch.Tensor]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Module -> parameter -> tensor, as the file has them.

    All ranks are padded with zeros to the largest: older diffusers give a file of several ranks the scale of one. The lengths of
    DoRA's rows stay float32: rounded to bf16 they would move by more than training moves them.
    """
    ranks = [of["lora_A"].shape[0] for of in parts.values() if "lora_A" in of]
    tensors = {}
    for module, of in parts.items():
        for part, tensor in of.items():
            missing = max(ranks) - of["lora_A"].shape[0] if part in ("lora_A", "lora_B") else 0
            padded = functional.pad(tensor, (0, 0, 0, missing) if part == "lora_A" else (0, missing)) if missing else tensor
            tensors[key_of(module, part)] = padded.to(torch.float32 if part == "magnitude" else dtype)
    return tensors


def write_product(path: Path, tensors: Mapping[str, torch.Tensor], described: Mapping[str, str]) -> Made:
    """Writes the file durably."""
    return write_pieces(path, to_safetensors(tensors, described))
