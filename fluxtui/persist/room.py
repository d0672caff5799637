"""How many bytes a session writes: the one sum behind `new`, `start`, the form, the plan and the trainer's preflight. No torch.

Checkpoints x keep, and the one being written; the product; the caches; the rest. The trainer looks again before each checkpoint.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fluxtui.persist.datasets.parts import parts_of
from fluxtui.persist.settings import layers
from fluxtui.persist.settings.spec import DatasetSpec, Spec

STATE_BYTES = 12  # of a checkpoint for each LoRA weight: itself and Adam's two moments, float32
PRODUCT_BYTES = 2  # of the product: bfloat16
OTHER_BYTES = 64 << 20  # at most: records, log, metrics, samples, and the file system's own
LATENT_BYTES = 1  # a pixel: 16 float32 for 8 x 8 of them


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that decide how much is written. The defaults are FLUX.1-dev's."""

    double_blocks: int = 19
    single_blocks: int = 38
    width: int = 3072
    text_tokens: int = 512
    text_width: int = 4096


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes still to be written, by what for."""

    checkpoints: int
    product: int
    other: int
    caches: int = 0
    model: int = 0

    @property
    def total(self) -> int:
        return self.checkpoints + self.product + self.other + self.caches + self.model

    def parts(self, keep: int) -> str:
        """The sum shown: "4 + 1 checkpoints 3.7 GiB, the product 0.1 GiB, caches 0.5 GiB, the rest 64 MiB"."""
        named = [
            (f"{keep} + 1 checkpoints", self.checkpoints), ("the product", self.product), ("caches", self.caches),
            ("the model", self.model), ("the rest", self.other),
        ]  # fmt: skip
        return ", ".join(f"{what} {words(size)}" for what, size in named if size)


def lora_weights(shape: Shape, rank: int, has_mlp: bool = True) -> int:
    """Weights of a LoRA of every linear layer of attention and MLPs: 36 and 17 x width x rank for a double and a single block.

    (A layer from n to m has (n + m) x rank. Double: 8 of n = m = width, 2 up and 2 down by 4. Single: 3, 1 up by 4, 1 from 5.)
    """
    double, single = (36, 17) if has_mlp else (16, 6)
    return (double * shape.double_blocks + single * shape.single_blocks) * shape.width * rank


def estimate(spec: Spec, shape: Shape, held: int = 0, caches: int = 0, model: int = 0) -> Need:
    """What the session still writes at the most.

    `held` bytes of checkpoints are there already and are replaced in time; one always has to fit beside them. For targets
    given as a pattern the default ones are taken: they are the largest that a preset names.
    """
    weights = lora_weights(shape, layers.largest_rank(spec.lora), spec.lora.targets != "attention")
    one = weights * STATE_BYTES
    checkpoints = max(one, one * (spec.checkpoint.keep + 1) - held)
    return Need(checkpoints, weights * PRODUCT_BYTES, min(OTHER_BYTES, one), caches, model)


def caches_at_most(data: DatasetSpec, images: int, shape: Shape, bytes_of_base: int) -> int:
    """Bytes of the caches of so many images, each used at every resolution and with a caption of its own."""
    turns = 2 if any(part.flip for part in parts_of(data)) else 1
    pixels = turns * images * sum(side * side for side in data.resolution)
    return pixels * LATENT_BYTES + images * shape.text_tokens * shape.text_width * bytes_of_base


def is_apart(checkpoints: Path, folder: Path) -> bool:
    """Whether the checkpoints lie on a disk of their own, mounted there: then their share of the sum is that disk's to hold."""
    try:
        return os.stat(checkpoints).st_dev != os.stat(folder).st_dev
    except OSError:
        return False


def words(size: int) -> str:
    """A number of bytes for people: "3.2 GiB"."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
