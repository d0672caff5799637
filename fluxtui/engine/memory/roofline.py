"""Seconds a step, before one was taken: the work of the model's shape against what a known card sustains. No torch.

Sustained rates are estimates from the field's own figures (docs/memory.md): nothing here was run on a GPU by this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as its name has it."""

    name: str  # part of NVML's name, lower case
    sustained: float  # FLOP/s in bf16 that training sustains
    memory: float  # bytes/s of its memory
    link: float  # bytes/s from host memory


_T, _G = 1e12, 1e9
CARDS = (
    Card("h200", 445 * _T, 4800 * _G, 50 * _G),
    Card("h100", 445 * _T, 3350 * _G, 50 * _G),
    Card("a100", 204 * _T, 1555 * _G, 24 * _G),
    Card("l40s", 150 * _T, 864 * _G, 24 * _G),
    Card("rtx 5090", 160 * _T, 1792 * _G, 50 * _G),
    Card("rtx 4090", 122 * _T, 1008 * _G, 24 * _G),
    Card("rtx 4080", 70 * _T, 717 * _G, 24 * _G),
    Card("rtx 4070", 42 * _T, 504 * _G, 24 * _G),
    Card("rtx 4060", 22 * _T, 272 * _G, 12 * _G),
    Card("a6000", 75 * _T, 768 * _G, 24 * _G),
    Card("a5000", 55 * _T, 768 * _G, 24 * _G),
    Card("a10", 45 * _T, 600 * _G, 24 * _G),
    Card("rtx 3090", 54 * _T, 936 * _G, 24 * _G),
    Card("rtx 3080", 45 * _T, 760 * _G, 24 * _G),
    Card("rtx 3060", 20 * _T, 360 * _G, 24 * _G),
)


def card_named(name: str) -> Card | None:
    """The known card that NVML's name means ("NVIDIA GeForce RTX 4090"), or None."""
    low = name.lower()
    return next((card for card in CARDS if card.name in low), None)


def step_flops(config: Mapping[str, Any], tokens: int, text_tokens: int, batch: int, is_checkpointed: bool) -> float:
    """Floating-point operations of a micro-step: 2 a weight and token that it meets, 4 a pair of tokens and channel.

    A double block has weights of its own for text and for picture: a token meets half. Modulation is once a picture. The
    frozen weights get no gradient: forward, backward to the input, and forward again where checkpointed.
    """
    width = config.get("attention_head_dim", 128) * config.get("num_attention_heads", 24)
    double, single = config.get("num_layers", 19), config.get("num_single_layers", 38)
    length = tokens + text_tokens
    linear = 2.0 * 12 * width**2 * (double + single) * length
    attention = 4.0 * length**2 * width * (double + single)
    passes = 1 if is_checkpointed else 0
    flops: float = batch * (linear * (2 + passes) + attention * (3.5 + passes))
    return flops


def step_seconds(card: Card, flops: float, coded: int, hosted: int, streamed_share: float, is_checkpointed: bool) -> float:
    """Of one micro-step. `coded`: weights (count) held as codes, decoded in each pass; `hosted`: bytes that come in, forward and
    backward, hidden behind the streamed blocks' own computing as far as that lasts."""
    passes = 3 if is_checkpointed else 2
    decoding = passes * 5.0 * coded / card.memory  # a byte read, two written, two read again
    computing = flops / card.sustained + decoding
    return computing + max(0.0, 2.0 * hosted / card.link - streamed_share * computing)
