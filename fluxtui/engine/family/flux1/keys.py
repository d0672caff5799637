"""The names of LoRA tensors in files: diffusers', kohya's and ComfyUI's own.

A LoRA of a module is its factors A `(rank, in)` and B `(out, rank)` with the scale folded into B; a file says which
module by its key. A module of the transformer goes by its own name, one of CLIP by `text_encoder.text_model.…`.
"""

from __future__ import annotations

PREFIX = "transformer."
CLIP = "text_encoder."
ENDINGS = {  # a trained parameter -> how its key ends
    "lora_A": ".lora_A.weight", "lora_B": ".lora_B.weight", "magnitude": ".lora_magnitude_vector.weight",
    "lokr_w1": ".lokr_w1", "lokr_w2": ".lokr_w2", "lokr_w2_a": ".lokr_w2_a", "lokr_w2_b": ".lokr_w2_b",
}  # fmt: skip


def key_of(module: str, part: str) -> str:
    """The key of a module's parameter in diffusers' (PEFT) naming."""
    return f"{module if module.startswith(CLIP) else PREFIX + module}{ENDINGS[part]}"


def diffusers_keys(module: str) -> tuple[str, str]:
    """The keys of a module's A and B in diffusers' (PEFT) naming."""
    return key_of(module, "lora_A"), key_of(module, "lora_B")


def taken_apart(key: str) -> tuple[str, str] | None:
    """(module, parameter) of a diffusers key, or None for any other key."""
    for part, ending in ENDINGS.items():
        if key.endswith(ending) and key.startswith((PREFIX, CLIP)):
            return key.removeprefix(PREFIX).removesuffix(ending), part
    return None
