"""The optimizer, and the learning rate as a pure function of the step."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from fluxtui.engine import quiet
from fluxtui.engine.trainer.lion import Lion
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.settings.spec import TrainSpec

LIBRARY_OF = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt", "schedule_free": "schedulefree"}


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters of one learning rate."""

    share: float  # of the run's learning rate
    named: dict[str, torch.nn.Parameter]
    decays: bool = True  # towards zero, by train.weight_decay


def groups_of(
    train: TrainSpec, own: Mapping[str, torch.nn.Parameter], of_clip: Mapping[str, torch.nn.Parameter] | None = None
) -> list[Group]:
    """The transformer's parameters, then CLIP's; with `train.lora_plus` each as A and B, and B faster (arXiv:2402.12354).

    DoRA's magnitudes are the lengths of the base's own rows, not an update: they do not decay, or all of the base would shrink.
    """
    found = []
    for named, share in ((own, 1.0), (of_clip or {}, train.clip_learning_rate / train.learning_rate)):
        lengths = {name: p for name, p in named.items() if name.endswith(".magnitude")}
        fast = {name: p for name, p in named.items() if name.endswith(".lora_B")} if train.lora_plus != 1.0 else {}
        slow = {name: p for name, p in named.items() if name not in fast and name not in lengths}
        found += [Group(share, slow), Group(share * train.lora_plus, fast), Group(share, lengths, decays=False)]
    return [group for group in found if group.named]


def new_optimizer(groups: Sequence[Group], train: TrainSpec) -> torch.optim.Optimizer:
    """The optimizer of the recipe. Raises `Refusal` naming what to install where its library is not there.

    adamw: decoupled weight decay (arXiv:1711.05101), state in float32. adafactor: transformers' (arXiv:1804.04235) as the
    field trains LoRAs with it, by the rate alone; scaled by the size of a parameter, B, which begins at zero, would not move.
    lion (arXiv:2302.06675): ours. The others are their authors' own libraries: prodigy (arXiv:2306.06101), schedule_free
    (arXiv:2405.15682), adamw8bit of bitsandbytes.
    """
    own: list[Any] = [
        {"params": list(group.named.values())} | ({} if group.decays else {"weight_decay": 0.0}) for group in groups
    ]
    common: dict[str, Any] = {"lr": train.learning_rate, "weight_decay": train.weight_decay}
    more: dict[str, Any] = ({"betas": tuple(train.betas)} if train.betas else {}) | ({"eps": train.eps} if train.eps else {})
    match train.optimizer:
        case "adamw":
            return torch.optim.AdamW(own, **common, **more, fused=True)
        case "adafactor":
            return _adafactor(own, common, train.eps)
        case "adamw8bit":
            return _of_library("bitsandbytes.optim", "AdamW8bit", "bitsandbytes", train)(own, **common, **more)
        case "lion":
            return Lion(own, **common, **more)
        case "prodigy":
            # the warm-up must not weigh in its estimate of the rate
            more |= {"safeguard_warmup": True, "d_coef": train.d_coef}
            return _of_library("prodigyopt", "Prodigy", "optimizers", train)(own, **common, **more)
        case "schedule_free":
            more["warmup_steps"] = train.warmup_steps  # its own, which the average knows of
            made: Any = _of_library("schedulefree", "AdamWScheduleFree", "optimizers", train)(own, **common, **more)
            made.train()
            free: torch.optim.Optimizer = made
            return free


def _adafactor(groups: list[Any], common: dict[str, Any], eps: float) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    made: torch.optim.Optimizer = Adafactor(
        groups, **common, eps=(eps or 1e-30, 1e-3), scale_parameter=False, relative_step=False, warmup_init=False
    )
    return made


def _of_library(module: str, name: str, extra: str, train: TrainSpec) -> Callable[..., torch.optim.Optimizer]:
    quiet.let(module.partition(".")[0])
    try:
        found: Callable[..., torch.optim.Optimizer] = getattr(importlib.import_module(module), name)
    except ImportError:
        why = f"train.optimizer = {train.optimizer!r} needs {module.partition('.')[0]}, which is not installed"
        raise Refusal(why, f"pip install 'fluxtui[{extra}]'") from None
    return found


@contextmanager
def evaluated(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> Iterator[None]:
    """The weights to be looked at, while inside: schedule-free optimizers train others than they are evaluated at.

    Its own way back rounds; so the training weights are kept, and come back bit for bit.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    kept = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
        for group in optimizer.param_groups:
            group["train_mode"] = True


def step_if_finite(optimizer: torch.optim.Optimizer, measured: torch.Tensor) -> list[float]:
    """A step of the optimizer, unless one of `measured` `(n,)` is not finite: then nothing of it changes. Returns `measured`.

    Reading them waits for the GPU. The fused AdamW can be told on the GPU to leave a step out (what torch's gradient scaler uses)
    and is given its step before that; all others have to wait for the answer.
    """
    how: Any = optimizer
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        numbers: list[float] = measured.tolist()
        if all(map(math.isfinite, numbers)):
            optimizer.step()
        return numbers
    how.found_inf = measured.isfinite().all().logical_not().to(torch.float32)
    optimizer.step()
    del how.found_inf
    return list(measured.tolist())


def applied_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """What the next step makes of the schedule's rate: Prodigy multiplies it by what it has found, schedule-free warms it up."""
    group = optimizer.param_groups[0]
    if "d_coef" in group:
        return rate * float(group["d"])
    if "scheduled_lr" in group and group["warmup_steps"]:
        return rate * min(1.0, float((group["k"] + 1) / group["warmup_steps"]))
    return rate


def schedule(train: TrainSpec, steps: int) -> Callable[[int], float]:
    """The learning rate of optimizer step 0 … steps - 1.

    diffusers' schedules are read at the middle of each step, so that neither a warm-up's first nor a decay's last
    step is spent at a rate of zero. `constant_with_decay` is ours: warm-up, constant, and a linear decay over the last
    `decay_share` of the run.
    """
    factor = _constant_with_decay(train, steps) if train.scheduler == "constant_with_decay" else _of_diffusers(train, steps)
    return lambda step: train.learning_rate * factor(step + 0.5)


def too_long_a_warmup(train: TrainSpec, steps: int) -> str:
    """The sentence about a warm-up that the run ends in; empty where it ends behind it."""
    has_one = train.scheduler != "constant" or train.optimizer == "schedule_free"
    if not has_one or train.warmup_steps < steps:
        return ""
    what = f"all {steps} steps are warm-up (train.warmup_steps is {train.warmup_steps})"
    return f"{what}, so the rate stays below {train.learning_rate:g}; set train.warmup_steps lower"


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
    made = get_scheduler(
        train.scheduler, holder, num_warmup_steps=train.warmup_steps, num_training_steps=steps, num_cycles=train.scheduler_cycles
    )
    factor: Callable[[float], float] = made.lr_lambdas[0]
    return factor
