"""The adapter: LoRA by peft, its weights float32 whatever the base is, its numbers a function of the seed.

Three things differ from peft's own: the factors start from generators keyed by module (so that the order of modules
does not matter), dropout is keyed by (seed, step, slot), and the factors stay float32 while the products are computed
in the base's dtype (a bf16 LoRA weight cannot be moved by most Adam steps).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fluxtui.engine.family.flux1.lora_file import Factors
from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.spec import LoraSpec

ADAPTER = "default"


@dataclass(slots=True)
class Place:
    """Which samples are being computed: read by every keyed dropout, in the forward pass and when it is recomputed."""

    step: int = 0  # of the optimizer, counted from 0
    slots: list[int] = field(default_factory=list)  # of the global batch, one a sample


class KeyedDropout(nn.Module):
    """Dropout whose mask is a function of (seed, module, step, slot) alone.

    The same sample gets the same mask whatever micro-step or rank it is on, and again under recomputation.
    """

    def __init__(self, probability: float, seed: int, name: str, place: Place) -> None:
        super().__init__()
        self.probability, self.seed, self.name, self.place = probability, seed, name, place

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`(batch, …)` to the same shape; the identity in evaluation mode."""
        if not self.training:
            return inputs
        if len(inputs) != len(self.place.slots):
            raise ValueError(f"{self.name}: {len(inputs)} samples, but {len(self.place.slots)} slots are placed")
        kept = torch.stack([self._kept(slot, inputs) for slot in self.place.slots])
        return inputs * kept.to(inputs.dtype) / (1.0 - self.probability)

    def _kept(self, slot: int, inputs: torch.Tensor) -> torch.Tensor:
        seed = draws.seed_of(self.seed, "lora_dropout", self.place.step, slot, self.name)
        source = torch.Generator(device=inputs.device).manual_seed(seed)
        return torch.rand(inputs.shape[1:], generator=source, device=inputs.device) >= self.probability


class FactorLinear(nn.Linear):
    """A LoRA factor: float32 weight, product in the dtype of its input."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self.weight.to(inputs.dtype))


@dataclass(frozen=True, slots=True)
class Adapter:
    """The trained part of a transformer."""

    transformer: nn.Module
    modules: tuple[str, ...]  # full names of the adapted layers, in the model's order
    scale: float  # of the update: alpha / rank, or what rsLoRA makes of it
    place: Place

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """`("transformer_blocks.0.attn.to_q.lora_A", A (rank, in))`, then B `(out, rank)`, in the model's order."""
        for name in self.modules:
            layer: Any = self.transformer.get_submodule(name)
            yield f"{name}.lora_A", layer.lora_A[ADAPTER].weight
            yield f"{name}.lora_B", layer.lora_B[ADAPTER].weight

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters()]


def scale_of(spec: LoraSpec) -> float:
    """alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732), under which a higher rank is not a weaker update."""
    return spec.alpha / (math.sqrt(spec.rank) if spec.rslora else spec.rank)


def add_lora(transformer: nn.Module, names: Sequence[str], spec: LoraSpec, seed: int) -> Adapter:
    """Puts a LoRA on each named linear layer of a frozen transformer. Nothing else of it can be trained."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(names),
        init_lora_weights=False,
        bias="none",
        use_rslora=spec.rslora,
    )
    inject_adapter_in_model(config, transformer, ADAPTER)
    transformer._hf_peft_config_loaded = True  # type: ignore[assignment]  # what diffusers' add_adapter would note
    place = Place()
    for name in names:
        layer: Any = transformer.get_submodule(name)
        layer.cast_input_dtype_enabled = False
        for letter, factors in (("A", layer.lora_A), ("B", layer.lora_B)):
            factors[ADAPTER] = _factor(factors[ADAPTER], f"{name}.{letter}", seed, is_zero=letter == "B")
        if spec.dropout > 0:
            layer.lora_dropout[ADAPTER] = KeyedDropout(spec.dropout, seed, name, place)
    adapter = Adapter(transformer, tuple(names), scale_of(spec), place)
    assert {id(p) for p in transformer.parameters() if p.requires_grad} == {id(p) for p in adapter.parameters()}
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())
    return adapter


def _factor(made: nn.Linear, name: str, seed: int, is_zero: bool) -> FactorLinear:
    """A starts as peft's and Kaiming's uniform, bound 1/sqrt(in), drawn on the CPU for this module; B starts at zero."""
    out_features, in_features = made.weight.shape
    device = made.weight.device
    factor = FactorLinear(in_features, out_features, bias=False, device="meta")
    weight = torch.zeros(out_features, in_features, dtype=torch.float32)
    if not is_zero:
        bound = 1.0 / math.sqrt(in_features)
        weight.uniform_(-bound, bound, generator=draws.generator(seed, "lora_init", 0, extra=name))
    factor.weight = nn.Parameter(weight.to(device))
    return factor


def begin_with(adapter: Adapter, factors: Factors, name: str) -> None:
    """Starts from a LoRA's factors (scale in B). One of a smaller rank leaves the further rows of A as they were drawn.

    Raises `Refusal` where the file has a larger rank, or modules that are not targets; `name` is the file's.
    """
    beyond = sorted(module for module in factors.keys() - set(adapter.modules) if factors[module][1].any())
    if beyond:
        raise Refusal(
            f"{name} adapts {beyond[0]} and {len(beyond) - 1} more that are no targets", "set lora.targets to cover them"
        )
    parameters = dict(adapter.named_parameters())
    with torch.no_grad():
        for module in adapter.modules:
            if module not in factors:
                continue
            a, b = factors[module]
            own_a, own_b = parameters[f"{module}.lora_A"], parameters[f"{module}.lora_B"]
            rank = a.shape[0]
            if rank > own_a.shape[0]:
                raise Refusal(f"{name} has rank {rank}, this session {own_a.shape[0]}", f"set lora.rank={rank}")
            if (a.shape[1], b.shape[0]) != (own_a.shape[1], own_b.shape[0]):
                raise Refusal(f"{name} is of another model: {module} has other sizes", "give a LoRA of this base")
            own_a[:rank].copy_(a)
            own_b[:, :rank].copy_(b / adapter.scale)
