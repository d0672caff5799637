"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from fluxtui.persist.spec import TrainSpec


def new_optimizer(parameters: Iterable[torch.nn.Parameter], train: TrainSpec) -> torch.optim.Optimizer:
    """AdamW with decoupled weight decay (arXiv:1711.05101); its state is float32, as the parameters are."""
    return torch.optim.AdamW(list(parameters), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True)


def schedule(train: TrainSpec, steps: int) -> Callable[[int], float]:
    """The learning rate of optimizer step 0 … steps - 1.

    diffusers' schedules are read at the middle of each step, so that neither a warm-up's first nor a decay's last
    step is spent at a rate of zero. `constant_with_decay` is ours: warm-up, constant, and a linear decay over the last
    `decay_share` of the run.
    """
    factor = _constant_with_decay(train, steps) if train.scheduler == "constant_with_decay" else _of_diffusers(train, steps)
    return lambda step: train.learning_rate * factor(step + 0.5)


def _constant_with_decay(train: TrainSpec, steps: int) -> Callable[[float], float]:
    tail = train.decay_share * steps

    def factor(at: float) -> float:
        rising = min(1.0, at / train.warmup_steps) if train.warmup_steps else 1.0
        falling = min(1.0, (steps - at) / tail) if tail else 1.0
        return max(0.0, min(rising, falling))

    return factor


def _of_diffusers(train: TrainSpec, steps: int) -> Callable[[float], float]:
    from diffusers.optimization import get_scheduler

    holder = torch.optim.SGD([torch.zeros(1)], lr=train.learning_rate)
    made = get_scheduler(train.scheduler, holder, num_warmup_steps=train.warmup_steps, num_training_steps=steps)
    factor: Callable[[float], float] = made.lr_lambdas[0]
    return factor
