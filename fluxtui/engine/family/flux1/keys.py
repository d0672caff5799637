"""The names of LoRA tensors in files: diffusers', kohya's and ComfyUI's own.

A LoRA of a module is its factors A `(rank, in)` and B `(out, rank)` with the scale folded into B; a file says which
module by its key.
"""

from __future__ import annotations

PREFIX = "transformer."


def diffusers_keys(module: str) -> tuple[str, str]:
    """The keys of a module's A and B in diffusers' (PEFT) naming."""
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def module_of(key: str) -> str | None:
    """The module that a diffusers key belongs to, or None for any other key."""
    for ending in (".lora_A.weight", ".lora_B.weight"):
        if key.startswith(PREFIX) and key.endswith(ending):
            return key[len(PREFIX) : -len(ending)]
    return None
