"""Flow matching: what a micro-step computes.

x_t = (1 - s) x0 + s eps, and the transformer learns the velocity eps - x0 (rectified flow, arXiv:2209.03003, as FLUX.1
was trained). The loss of a sample is the mean over its latents of what an error costs: its square, unless asked otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from fluxtui.persist.settings.spec import TrainSpec

# (noisy latents, sigma, prompt_embeds, pooled) -> velocity of the latents' shape, float32
Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

Penalty = Callable[[torch.Tensor], torch.Tensor]  # an error -> what it costs, element by element


@dataclass(frozen=True, slots=True)
class ClassText:
    """The captions of a micro-step with the class word in place of the trigger."""

    prompt_embeds: torch.Tensor  # (batch, tokens, width)
    pooled: torch.Tensor  # (batch, width)
    base_pooled: torch.Tensor  # the same of CLIP without its adapter; `pooled` itself where it has none


@dataclass(frozen=True, slots=True)
class Samples:
    """What a micro-step trains on; all on one device."""

    latents: torch.Tensor  # x0 (batch, channels, height, width), float32, scaled
    prompt_embeds: torch.Tensor  # (batch, tokens, width)
    pooled: torch.Tensor  # (batch, width)
    weights: torch.Tensor | None = None  # (batch, 1, height, width): how much each latent counts; None: all the same
    class_text: ClassText | None = None  # None: nothing is preserved


def penalty_of(train: TrainSpec) -> Penalty:
    """What `train.loss` makes of an error e: e^2; |e|; Huber's e^2 / 2 up to delta and delta (|e| - delta / 2) beyond; or the
    smooth delta^2 (sqrt(1 + (e / delta)^2) - 1)."""
    match train.loss:
        case "mse":
            return torch.square
        case "l1":
            return torch.abs
        case "huber":
            return partial(_huber, delta=train.loss_delta)
        case "pseudo_huber":
            return partial(_pseudo_huber, delta=train.loss_delta)


def _huber(error: torch.Tensor, delta: float) -> torch.Tensor:
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)


def _pseudo_huber(error: torch.Tensor, delta: float) -> torch.Tensor:
    return delta**2 * (torch.sqrt(1.0 + (error / delta).square()) - 1.0)


def weights_of(train: TrainSpec, sigma: torch.Tensor) -> torch.Tensor:
    """`(batch,)`: what a sample's loss counts at its noise level s, by `train.loss_weighting`.

    As diffusers' `compute_loss_weighting_for_sd3` names them (SD3, arXiv:2403.03206): `sigma_sqrt` s^-2, here for s above
    1/1000, its schedulers' least; `cosmap` 2 / (pi (1 - 2 s + 2 s^2)). `bell`: exp(-2 (s - 1/2)^2) - exp(-1/2), of mean 1 over
    all s, ai-toolkit's for its `weighted` timesteps.
    """
    match train.loss_weighting:
        case "none":
            return torch.ones_like(sigma)
        case "sigma_sqrt":
            return sigma.clamp(min=1e-3) ** -2
        case "cosmap":
            return 2.0 / (math.pi * (1.0 - 2.0 * sigma + 2.0 * sigma**2))
        case "bell":
            edge = math.exp(-0.5)
            mean = math.sqrt(math.pi / 2.0) * math.erf(math.sqrt(0.5)) - edge
            return (torch.exp(-2.0 * (sigma - 0.5) ** 2) - edge) / mean


def sample_losses(
    predict: Predict, samples: Samples, noise: torch.Tensor, sigma: torch.Tensor, penalty: Penalty = torch.square
) -> torch.Tensor:
    """`(batch,)` float32: each sample's loss at noise eps (shape of the latents) and noise level sigma `(batch,)`."""
    level = sigma.view(-1, 1, 1, 1)
    noisy = (1.0 - level) * samples.latents + level * noise
    predicted = predict(noisy, sigma, samples.prompt_embeds, samples.pooled)
    costs = penalty(predicted - (noise - samples.latents))
    if samples.weights is None:
        return costs.mean(dim=(1, 2, 3))
    # the weighted mean: a small mask teaches as much as a large one
    return (costs.mean(dim=1, keepdim=True) * samples.weights).sum(dim=(1, 2, 3)) / samples.weights.sum(dim=(1, 2, 3))


def preservation_losses(
    predict: Predict, predict_base: Predict, samples: Samples, noise: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """`(batch,)` float32: how far the adapter moved what the base makes of each sample's class caption.

    Differential output preservation: at the very noisy latents that the trigger is taught at, the class word must go on
    meaning what it meant. `predict_base` is the model with its adapter off.
    """
    text = samples.class_text
    assert text is not None
    level = sigma.view(-1, 1, 1, 1)
    noisy = (1.0 - level) * samples.latents + level * noise
    with torch.no_grad():
        meant = predict_base(noisy, sigma, text.prompt_embeds, text.base_pooled)
    return (predict(noisy, sigma, text.prompt_embeds, text.pooled) - meant).square().mean(dim=(1, 2, 3))
