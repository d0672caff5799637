"""Whether the disk has room for what a session will write, reckoned before it is made or started.

The trainer looks again, with what it then knows, before each checkpoint.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from fluxtui.persist import layers, toml
from fluxtui.persist.errors import FluxTUIError, StorageError
from fluxtui.persist.home import Home
from fluxtui.persist.model_folder import ModelSource
from fluxtui.persist.spec import Spec

OTHER_BYTES = 32 * 2**20                # records, log, metrics, samples
FLUX1_SHAPE = (19, 38, 3072)            # double blocks, single blocks, width of FLUX.1-dev and -schnell
DOUBLE_MLP, DOUBLE_ATTENTION = 20, 16   # LoRA parameters of a double block, in units of rank x width
SINGLE_MLP, SINGLE_ATTENTION = 11, 6    # of a single block
CHECKPOINT_BYTES = 12                   # a parameter: weight and two moments of Adam, fp32
PRODUCT_BYTES = 2                       # a parameter: bf16


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a session will write at the most."""

    checkpoints: int
    product: int
    other: int = OTHER_BYTES

    @property
    def total(self) -> int:
        return self.checkpoints + self.product + self.other


def reckon(spec: Spec, source: ModelSource) -> Need:
    """What the session writes: `keep` checkpoints and the one being written, the product, and the rest.

    For targets given as a pattern the default ones are taken: they are the largest that a preset names.
    """
    double, single, width = _shape(source)
    has_mlp = spec.lora.targets != "attention"
    units = double * (DOUBLE_ATTENTION + DOUBLE_MLP * has_mlp) + single * (SINGLE_ATTENTION + SINGLE_MLP * has_mlp)
    parameters = units * width * layers.largest_rank(spec.lora)
    return Need(parameters * CHECKPOINT_BYTES * (spec.checkpoint.keep + 1), parameters * PRODUCT_BYTES)


def check(home: Home, spec: Spec, source: ModelSource) -> None:
    """Raises `StorageError` with the sum where the disk of the home has less free than the session needs."""
    need = reckon(spec, source)
    try:
        disk = os.statvfs(home.root)
    except OSError as error:
        raise StorageError.of(error, "look at", home.root) from error
    free = disk.f_bavail * disk.f_frsize
    if free < need.total:
        raise StorageError(
            f"{_size(free)} are free at {home.root}, and {spec.name} needs {_size(need.total)}: {spec.checkpoint.keep} + 1 "
            f"checkpoints {_size(need.checkpoints)}, the product {_size(need.product)}, the rest {_size(need.other)}; "
            "make room, lower checkpoint.keep, or point FLUXTUI_HOME at a larger disk."
        )


def _shape(source: ModelSource) -> tuple[int, int, int]:
    """Double blocks, single blocks and width; of a model that is not here yet, those of FLUX.1."""
    if source.path is None:
        return FLUX1_SHAPE
    try:
        config = json.loads(toml.read_bytes(source.path / "transformer" / "config.json", follow_links=True))
        heads, head = int(config.get("num_attention_heads", 24)), int(config.get("attention_head_dim", 128))
        return int(config.get("num_layers", 19)), int(config.get("num_single_layers", 38)), heads * head
    except (FluxTUIError, ValueError, TypeError):
        return FLUX1_SHAPE


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
