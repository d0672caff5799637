"""Averaged weights: an exponential moving average of the adapter beside the raw weights, never instead of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass(slots=True)
class Ema:
    """`shadow <- decay * shadow + (1 - decay) * weight` after each optimizer step; nothing at all where decay is 0."""

    decay: float
    parameters: Mapping[str, nn.Parameter]
    shadow: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """From the weights as they are."""
        if self.decay:
            self.shadow = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        if self.decay:
            torch._foreach_lerp_(list(self.shadow.values()), list(self.parameters.values()), 1.0 - self.decay)
