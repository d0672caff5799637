"""Every random number of a run, as a function of (session seed, purpose, optimizer step, slot).

Nothing here has state: no generator is saved, and the number of data workers, the split of a global batch over
micro-steps and ranks, and a resume cannot change a number. A scalar comes straight from a BLAKE2b digest, so that the
order of the data can be planned without torch; a tensor comes from a generator on the CPU seeded with such a digest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from fluxtui.persist.settings.spec import TrainSpec

if TYPE_CHECKING:
    import torch

Purpose = Literal[
    "noise", "sigma", "caption", "caption_dropout", "epoch_order", "batch_order", "flip", "lora_dropout",
    "rank_dropout", "module_dropout", "caption_shuffle", "caption_order", "tag_dropout", "validation_noise", "lora_init",
]

_STANDARD_NORMAL = NormalDist()
_TOKENS_LOW, _MU_LOW = 256, 0.5        # 256 packed tokens: 256 x 256 pixels
_TOKENS_HIGH, _MU_HIGH = 4096, 1.15    # 4096: 1024 x 1024 pixels


def seed_of(session_seed: int, purpose: Purpose, step: int, slot: int = 0, extra: str = "") -> int:
    """A 64-bit seed: BLAKE2b of everything that the number may depend on. `extra` tells modules or variants apart."""
    text = f"{session_seed}\0{purpose}\0{step}\0{slot}\0{extra}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def uniform(session_seed: int, purpose: Purpose, step: int, slot: int = 0, extra: str = "") -> float:
    """A float in the open interval (0, 1) with 52 random bits: neither end is ever drawn."""
    return ((seed_of(session_seed, purpose, step, slot, extra) >> 12) + 0.5) / (1 << 52)


def permutation(session_seed: int, purpose: Purpose, step: int, length: int, extra: str = "") -> list[int]:
    """A random order of `range(length)`: sorted by a digest each, so that Python's own shuffle is not relied upon."""
    return sorted(range(length), key=lambda place: (seed_of(session_seed, purpose, step, place, extra), place))


def choice(session_seed: int, purpose: Purpose, step: int, slot: int, count: int) -> int:
    """An index below `count`, each as likely (to 2^-64 * count)."""
    return seed_of(session_seed, purpose, step, slot) * count >> 64


def happens(session_seed: int, purpose: Purpose, step: int, slot: int, probability: float) -> bool:
    """True with this probability; never at 0, always at 1."""
    return uniform(session_seed, purpose, step, slot) < probability


def generator(session_seed: int, purpose: Purpose, step: int, slot: int = 0, extra: str = "") -> torch.Generator:
    """A generator on the CPU for a tensor of this purpose, step and slot."""
    import torch  # the planner of data uses this module and must not wait for torch

    return torch.Generator(device="cpu").manual_seed(seed_of(session_seed, purpose, step, slot, extra))


def noise(
    session_seed: int, step: int, slots: Sequence[int], shape: tuple[int, ...], purpose: Purpose = "noise"
) -> torch.Tensor:
    """Standard normal noise `(len(slots), *shape)`, float32, on the CPU; each slot by itself, `shape` without the batch."""
    import torch

    rows = [torch.randn(shape, generator=generator(session_seed, purpose, step, slot), dtype=torch.float32) for slot in slots]
    return torch.stack(rows)


def flux_mu(packed_tokens: int) -> float:
    """FLUX.1's shift parameter: linear in the packed image tokens, 0.5 at 256 and 1.15 at 4096 (BFL's `get_lin_function`)."""
    slope = (_MU_HIGH - _MU_LOW) / (_TOKENS_HIGH - _TOKENS_LOW)
    return _MU_LOW + slope * (packed_tokens - _TOKENS_LOW)


def sigma(session_seed: int, step: int, slot: int, train: TrainSpec, packed_tokens: int) -> float:
    """The noise level of a sample, in the open interval (0, 1); 1 is noise alone.

    `uniform`: flat. `sigmoid`, `logit_normal`, `shift` and `flux_shift` are one family, the sigmoid of a normal number with
    mean m and deviation d: `sigmoid` m=0, d=1; `logit_normal` as given; `shift` by S and `flux_shift` by e^mu have m = ln S,
    m = mu and d=1 (shifting sigma to S*sigma / (1 + (S - 1)*sigma) adds ln S to its logit). `uniform_shift` and
    `uniform_flux_shift` shift a flat draw so: the sigmas of diffusers' schedulers, as sd-scripts' `sigma` and ai-toolkit's
    `flux_shift` draw them. Between `timestep_min` and `timestep_max` each keeps its form: what lies outside is never drawn.
    """
    how = _sampling(train, packed_tokens)
    low, high = how.below(train.timestep_min), how.below(train.timestep_max)
    drawn = how.at(low + (high - low) * uniform(session_seed, "sigma", step, slot))
    return _inside(min(max(drawn, train.timestep_min), train.timestep_max))


@dataclass(frozen=True, slots=True)
class _Sampling:
    """A distribution of sigma: flat and shifted by S, or the sigmoid of a normal number."""

    shift: float | None  # S of a flat one; None: normal
    mean: float = 0.0
    deviation: float = 1.0

    def at(self, share: float) -> float:
        """The level that this share of all draws lies below."""
        if self.shift is not None:
            return self.shift * share / (1.0 + (self.shift - 1.0) * share)
        return _sigmoid(self.mean + self.deviation * _STANDARD_NORMAL.inv_cdf(min(max(share, 1e-300), 1.0 - 2.0**-53)))

    def below(self, level: float) -> float:
        """The share of draws below a level: the inverse of `at`."""
        if level <= 0.0 or level >= 1.0:
            return 0.0 if level <= 0.0 else 1.0
        if self.shift is not None:
            return level / (self.shift - (self.shift - 1.0) * level)
        return _STANDARD_NORMAL.cdf((math.log(level / (1.0 - level)) - self.mean) / self.deviation)


def _sampling(train: TrainSpec, packed_tokens: int) -> _Sampling:
    match train.timestep_sampling:
        case "uniform":
            return _Sampling(1.0)
        case "uniform_shift":
            return _Sampling(train.timestep_shift)
        case "uniform_flux_shift":
            return _Sampling(math.exp(flux_mu(packed_tokens)))
        case "sigmoid":
            return _Sampling(None)
        case "flux_shift":
            return _Sampling(None, flux_mu(packed_tokens))
        case "shift":
            return _Sampling(None, math.log(train.timestep_shift))
        case "logit_normal":
            return _Sampling(None, train.timestep_mean, train.timestep_std)


def sigmas(session_seed: int, step: int, slots: Sequence[int], train: TrainSpec, packed_tokens: int) -> torch.Tensor:
    """`(len(slots),)` float32 noise levels, one a slot; see `sigma`."""
    import torch

    return torch.tensor([sigma(session_seed, step, slot, train, packed_tokens) for slot in slots], dtype=torch.float32)


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    return math.exp(value) / (1.0 + math.exp(value))


def _inside(value: float) -> float:
    """Away from 0 and 1 by more than float32 can round: an extreme mean must not give a sample without noise or picture."""
    return min(max(value, 1e-6), 1.0 - 1e-6)
