"""What each optimizer wants: the rate and schedule it starts with, and what cannot work with it. No torch.

The rates stand in docs/recipes.md too, with their sources; tests/trainer/test_rates.py trains a small LoRA at each of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from fluxtui.persist.settings.spec import Spec, TrainSpec

# Of AdamW's rate. Lion's steps all have the length of the rate, its authors say 3 to 10 times less (arXiv:2302.06675);
# what schedule-free is evaluated at is an average that lags behind, its authors say 1 to 10 times more (arXiv:2405.15682).
RATE_SHARE = {"lion": 0.3, "schedule_free": 3.0}
PRODIGY_RATE = 1.0  # a factor on the rate that it finds itself (arXiv:2306.06101)


def rate_of(optimizer: str, adamw_rate: float) -> float:
    """The learning rate of an optimizer where AdamW would have this one."""
    return PRODIGY_RATE if optimizer == "prodigy" else float(f"{RATE_SHARE.get(optimizer, 1.0) * adamw_rate:.3g}")


def defaults_of(optimizer: object, values: Mapping[str, object]) -> dict[str, object]:
    """What an optimizer begins with where the user set nothing else. `values`: the keys as they would be with AdamW."""
    found: dict[str, object] = {}
    if isinstance(rate := values.get("train.learning_rate"), int | float):
        found["train.learning_rate"] = rate_of(str(optimizer), float(rate))
    if optimizer == "schedule_free":
        found["train.scheduler"] = "constant"
    return found


def problem_of(spec: Spec) -> str:
    """The sentence about optimizer and settings that cannot work together; empty where they can."""
    return _problem(spec.train) or _problem_of_settings(spec)


_POLYNOMIAL_END = 1e-7  # the rate that diffusers' `polynomial` falls to


def _problem(train: TrainSpec) -> str:
    if train.scheduler == "polynomial" and train.learning_rate <= _POLYNOMIAL_END:
        return (
            f"[train] learning_rate is {train.learning_rate:g}, and the polynomial schedule falls to {_POLYNOMIAL_END:g}; "
            "set train.learning_rate above that, or train.scheduler=linear."
        )
    if train.optimizer == "schedule_free" and train.scheduler != "constant":
        return (
            f"[train] scheduler is {train.scheduler!r}, and schedule_free takes no schedule but its warm-up; "
            "set train.scheduler=constant."
        )
    if train.optimizer != "prodigy":
        return ""
    if train.learning_rate < 0.1:
        return (
            f"[train] learning_rate is {train.learning_rate:g}, and prodigy finds the rate itself and is only scaled by it; "
            "set train.learning_rate=1."
        )
    if train.clip_learning_rate not in (0.0, train.learning_rate):
        return (
            f"[train] clip_learning_rate is {train.clip_learning_rate:g}, and prodigy has one rate for all; "
            f"set train.clip_learning_rate={train.learning_rate:g}, or 0 to leave CLIP as it is."
        )
    if train.lora_plus != 1.0:
        return f"[train] lora_plus is {train.lora_plus:g}, and prodigy has one rate for all; set train.lora_plus=1."
    return ""


def _problem_of_settings(spec: Spec) -> str:
    train = spec.train
    if train.betas and train.optimizer == "adafactor":
        return "[train] betas is set, and adafactor has none; set train.betas=[]."
    if train.eps and train.optimizer == "lion":
        return "[train] eps is set, and lion divides by nothing; set train.eps=0."
    if train.lora_plus != 1.0 and spec.lora.kind == "lokr":
        return "[train] lora_plus is set, and a LoKr has no B to go faster; set train.lora_plus=1."
    return ""
