"""The held-out loss: images that are never trained on, at fixed noise and fixed noise levels, so that runs compare.

The training loss says little: it is dominated by which noise levels were drawn. Here every call draws the same, so that
only the adapter changes the number; and nothing that training depends on is touched.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import torch

from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.objective import sample_losses
from fluxtui.persist.record import Phase

if TYPE_CHECKING:
    from fluxtui.engine.trainer.run import Run

SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)


@torch.no_grad()
def validation_loss(run: Run) -> float:
    """Mean loss over the held-out images and `SIGMAS`. Identical when called twice."""
    slots = run.dataset.validation_slots()
    seed, device = run.job.spec.train.seed, run.runtime.device
    for adapter in run.adapters:
        adapter.model.eval()
    losses = []
    for number, slot in enumerate(slots):
        samples = run.to_device(run.encoded.load([slot]))
        noise = draws.noise(seed, 0, [slot.index], tuple(samples.latents.shape[1:]), "validation_noise").to(device)
        for index, sigma in enumerate(SIGMAS):
            losses.append(sample_losses(run.predict, samples, noise, torch.tensor([sigma], device=device)).item())
            done = number * len(SIGMAS) + index + 1
            run.reporter.progress(Phase.VALIDATE, item=done, items=len(slots) * len(SIGMAS), unit="forward passes")
    for adapter in run.adapters:
        adapter.model.train()
    return fmean(losses)
