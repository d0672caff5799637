"""Averaged weights: an exponential moving average of the adapter beside the raw weights, never instead of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass(slots=True)
class Ema:
    """`shadow <- d * shadow + (1 - d) * weight` after optimizer step n (from 1), with d = min(decay, (1 + n) / (10 + n)).

    Until n decides no more the average forgets the start sooner, as OneTrainer's and diffusers' do: at a fixed 0.999 the
    half of what is there after 700 steps would be the untrained adapter. Nothing at all where decay is 0. What is averaged
    are the weights that would be looked at: `optim.evaluated`, which for most optimizers are those that train.
    """

    decay: float
    parameters: Mapping[str, nn.Parameter]
    evaluated: Callable[[], AbstractContextManager[None]] = nullcontext
    shadow: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """From the weights as they are."""
        if self.decay:
            with self.evaluated():
                self.shadow = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimizer step `step`, counted from 1 over all attempts."""
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            with self.evaluated():
                torch._foreach_lerp_(list(self.shadow.values()), list(self.parameters.values()), 1.0 - decay)
