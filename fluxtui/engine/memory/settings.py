"""Settings of memory that do not go together: refused before anything is loaded. No torch."""

from __future__ import annotations

import os
import shutil

from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.settings.spec import Spec


def check_settings(spec: Spec) -> None:
    """Raises `Refusal` with what to change."""
    if spec.hardware.stream_blocks > 0 and not spec.train.gradient_checkpointing:
        raise Refusal(
            "hardware.stream_blocks needs gradient checkpointing: a block is gone by the time of the backward pass",
            "set train.gradient_checkpointing=true",
        )
    if spec.hardware.stream_blocks > 0 and spec.hardware.compile:
        raise Refusal(
            "hardware.compile and hardware.stream_blocks do not go together: compiled blocks want their weights to stay",
            "set hardware.compile=false, or hardware.stream_blocks=0 with a lower model.precision",
        )
    if spec.hardware.compile and not _has_compiler():
        raise Refusal(
            "hardware.compile needs a C compiler, and this machine has none",
            "install one (apt install build-essential), or set hardware.compile=false",
        )
    if spec.hardware.stream_blocks > 0 and spec.lora.kind != "lora":
        raise Refusal(
            f"lora.kind = {spec.lora.kind!r} reads the base's weights, which hardware.stream_blocks takes away",
            "set hardware.stream_blocks=0, or lora.kind=lora",
        )


def _has_compiler() -> bool:
    """One that Triton (for a GPU) or torch's compiler (for the CPU) would take."""
    return any(os.environ.get(name) for name in ("CC", "CXX")) or any(map(shutil.which, ("gcc", "g++", "clang")))
