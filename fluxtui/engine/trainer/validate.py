"""The held-out loss: images that are never trained on, at fixed noise and fixed noise levels, so that runs compare.

The training loss says little: it is dominated by which noise levels were drawn. Here every call draws the same, so that
only the adapter changes the number; and nothing that training depends on is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

import torch
from torch import nn

from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.objective import Predict, Samples, sample_losses
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.sessions.record import Phase

SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)


@torch.no_grad()
def validation_loss(
    predict: Predict,
    models: Sequence[nn.Module],
    held_out: Iterable[tuple[int, Samples]],
    images: int,
    seed: int,
    reporter: Reporter,
) -> float:
    """Mean loss over the held-out images and `SIGMAS`. Identical when called twice.

    `models`: those that train, which are put into evaluation and back. `held_out`: index, which the noise is drawn by, and
    samples of one image, for each of `images`.
    """
    for model in models:
        model.eval()
    losses: list[float] = []
    for index, samples in held_out:
        latents = samples.latents
        noise = draws.noise(seed, 0, [index], tuple(latents.shape[1:]), "validation_noise").to(latents.device)
        for sigma in SIGMAS:
            losses.append(sample_losses(predict, samples, noise, torch.tensor([sigma], device=latents.device)).item())
            reporter.progress(Phase.VALIDATE, item=len(losses), items=images * len(SIGMAS), unit="forward passes")
    for model in models:
        model.train()
    return fmean(losses)
