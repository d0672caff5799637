"""Flow matching: what a micro-step computes.

x_t = (1 - s) x0 + s eps, and the transformer learns the velocity eps - x0 (rectified flow, arXiv:2209.03003, as FLUX.1
was trained). The loss of a sample is the mean squared error over its latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

# (noisy latents, sigma, prompt_embeds, pooled) -> velocity of the latents' shape, float32
Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Samples:
    """What a micro-step trains on; all on one device."""

    latents: torch.Tensor  # x0 (batch, channels, height, width), float32, scaled
    prompt_embeds: torch.Tensor  # (batch, tokens, width)
    pooled: torch.Tensor  # (batch, width)
    weights: torch.Tensor | None = None  # (batch, 1, height, width): how much each latent counts; None: all the same


def sample_losses(predict: Predict, samples: Samples, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """`(batch,)` float32: each sample's loss at noise eps (shape of the latents) and noise level sigma `(batch,)`."""
    level = sigma.view(-1, 1, 1, 1)
    noisy = (1.0 - level) * samples.latents + level * noise
    predicted = predict(noisy, sigma, samples.prompt_embeds, samples.pooled)
    squares = (predicted - (noise - samples.latents)).square()
    if samples.weights is None:
        return squares.mean(dim=(1, 2, 3))
    # the weighted mean: a small mask teaches as much as a large one
    return (squares.mean(dim=1, keepdim=True) * samples.weights).sum(dim=(1, 2, 3)) / samples.weights.sum(dim=(1, 2, 3))
