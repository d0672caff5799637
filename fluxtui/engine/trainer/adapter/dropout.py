"""Dropout of the adapter, keyed: the same sample loses the same, in whatever micro-step, on whatever rank, and recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from fluxtui.engine.send import send
from fluxtui.engine.trainer import draws


@dataclass(slots=True)
class Place:
    """Which samples are being computed: read by every keyed dropout, in the forward pass and when it is recomputed."""

    step: int = 0  # of the optimizer, counted from 0
    slots: list[int] = field(default_factory=list)  # of the global batch, one a sample
    ranks: list[KeyedRanks] = field(default_factory=list)  # of every layer that leaves ranks out

    def begin(self, step: int, slots: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        """A micro-step begins. What all layers leave out in it is drawn here, and goes to the device in one copy."""
        self.step, self.slots = step, list(slots)
        if self.ranks:
            drawn = torch.cat([layer.draw(step, self.slots) for layer in self.ranks], dim=1).to(dtype)
            for layer, counts in zip(self.ranks, send(drawn, device).split([layer.rank for layer in self.ranks], 1), strict=True):
                layer.counts = counts


class KeyedDropout(nn.Module):
    """Dropout whose mask is a function of (seed, module, step, slot) alone."""

    def __init__(self, probability: float, seed: int, name: str, place: Place) -> None:
        super().__init__()
        self.probability, self.seed, self.name, self.place = probability, seed, name, place

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`(batch, …)` to the same shape; the identity in evaluation mode."""
        if not self.training:
            return inputs
        if len(inputs) != len(self.place.slots):
            raise ValueError(f"{self.name}: {len(inputs)} samples, but {len(self.place.slots)} slots are placed")
        kept = torch.stack([self._kept(slot, inputs) for slot in self.place.slots])
        return inputs * kept.to(inputs.dtype) / (1.0 - self.probability)

    def _kept(self, slot: int, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.is_meta:  # a plan counts what there would be, and draws nothing
            return torch.rand(inputs.shape[1:], device=inputs.device) >= self.probability
        seed = draws.seed_of(self.seed, "lora_dropout", self.place.step, slot, self.name)
        source = torch.Generator(device=inputs.device).manual_seed(seed)
        return torch.rand(inputs.shape[1:], generator=source, device=inputs.device) >= self.probability


class KeyedRanks(nn.Module):
    """Which ranks of a layer, and whether the layer at all, count for a sample: a function of (seed, module, step, slot) alone.

    As sd-scripts' `rank_dropout`, whose kept ranks are scaled up for the lost ones, and `module_dropout`, which scales nothing.
    """

    def __init__(self, rank: int, ranks: float, module: float, seed: int, name: str) -> None:
        super().__init__()
        self.rank, self.ranks, self.module, self.seed, self.name = rank, ranks, module, seed, name
        self.counts: torch.Tensor | None = None  # (samples, rank), of this micro-step: see `Place.begin`

    def forward(self, down: torch.Tensor) -> torch.Tensor:
        """What A made `(batch, …, rank)`, without what is left out; the identity in evaluation mode."""
        if not self.training:
            return down
        if self.counts is None or len(down) != len(self.counts):
            raise ValueError(f"{self.name}: {len(down)} samples, but others are placed")
        return down * self.counts.to(down).view(len(down), *[1] * (down.dim() - 2), -1)

    def draw(self, step: int, slots: Sequence[int]) -> torch.Tensor:
        """What each rank counts, `(slots, rank)` float32 on the CPU."""
        return torch.stack([self._drawn(step, slot) for slot in slots])

    def _drawn(self, step: int, slot: int) -> torch.Tensor:
        if draws.uniform(self.seed, "module_dropout", step, slot, self.name) < self.module:
            return torch.zeros(self.rank)
        source = draws.generator(self.seed, "rank_dropout", step, slot, self.name)
        return (torch.rand(self.rank, generator=source) >= self.ranks) / (1.0 - self.ranks)
