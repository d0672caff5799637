"""The adapter: LoRA by peft, its weights float32 whatever the base is, its numbers a function of the seed.

Three things differ from peft's own: the factors start from generators keyed by module (so that the order of modules
does not matter), dropout is keyed by (seed, step, slot), in `dropout.py`, and the factors stay float32 while the products are
computed in the base's dtype (a bf16 LoRA weight cannot be moved by most Adam steps). DoRA and LoKr: `decomposed.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fluxtui.engine.family.flux1.lora_file import Factors
from fluxtui.engine.trainer.adapter.decomposed import add_lokr, add_magnitudes, drawn, needs_plain_weights, pattern_of
from fluxtui.engine.trainer.adapter.dropout import KeyedDropout, KeyedRanks, Place
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.settings.layers import LayerSize, sizes_of
from fluxtui.persist.settings.spec import LoraSpec

ADAPTER = "default"


class FactorLinear(nn.Linear):
    """A LoRA factor: float32 weight, product in the dtype of its input."""

    def __init__(self, in_features: int, out_features: int, device: str = "cpu") -> None:
        super().__init__(in_features, out_features, bias=False, device=device)
        self.ranks: KeyedRanks | None = None  # of A alone: what is left out of what it makes

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        made = functional.linear(inputs, self.weight.to(inputs.dtype))
        return made if self.ranks is None else self.ranks(made)


@dataclass(frozen=True, slots=True)
class Adapter:
    """The trained part of a network: of the transformer, or of CLIP."""

    model: nn.Module
    layers: Mapping[str, Any]  # name in files and checkpoints -> peft's layer, in the model's order
    scales: Mapping[str, float]  # of each layer's update: alpha / rank, or what rsLoRA makes of it
    place: Place

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the adapted layers, in the model's order."""
        return tuple(self.layers)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """`("transformer_blocks.0.attn.to_q.lora_A", A (rank, in))`, then B `(out, rank)`, in the model's order.

        DoRA adds `.magnitude` `(out,)`; LoKr has `.lokr_w1` and `.lokr_w2`, or `.lokr_w2_a` and `.lokr_w2_b`.
        """
        for name, layer in self.layers.items():
            for part, parameter in parts_of(layer):
                yield f"{name}.{part}", parameter

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    @torch.no_grad()
    def shorten(self, longest: float) -> None:
        """Scales A and B of each layer whose update `scale B A` is longer than that (Frobenius' norm), both alike.

        sd-scripts' `scale_weight_norms`, for each module of diffusers by itself. Of a plain LoRA alone.
        """
        for name, layer in self.layers.items():
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            squared = ((b.T @ b) * (a @ a.T)).sum().clamp(min=0.0)  # without the product of the full size
            kept = (longest / (self.scales[name] * squared.sqrt())).clamp(max=1.0).sqrt()  # by 0: infinite, so 1
            a.mul_(kept)
            b.mul_(kept)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The base alone, while inside. (peft's own switch takes away `requires_grad` too, which the optimizer relies on.)"""
        for layer in self.layers.values():
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer._disable_adapters = False


def parts_of(layer: Any) -> Iterator[tuple[str, nn.Parameter]]:  # noqa: ANN401  (one of peft's layers)
    """The trained parameters of a layer with their names, in a fixed order."""
    if hasattr(layer, "lora_A"):
        yield "lora_A", layer.lora_A[ADAPTER].weight
        yield "lora_B", layer.lora_B[ADAPTER].weight
        if ADAPTER in layer.lora_magnitude_vector:
            yield "magnitude", layer.lora_magnitude_vector[ADAPTER].weight
        return
    for part in ("lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b"):
        if ADAPTER in (factors := getattr(layer, part)):
            yield part, factors[ADAPTER]


def add_lora(
    model: nn.Module, names: Sequence[str], spec: LoraSpec, seed: int,
    named: Mapping[str, str] | None = None, place: Place | None = None,
) -> Adapter:  # fmt: skip
    """Puts an adapter on each named linear layer of a frozen network. Nothing else of it can be trained.

    `named`: module -> its name in files, where that is another. `place`: another adapter's, where both see the same samples.
    Raises `Refusal` where the kind does not fit the base.
    """
    called = {name: named[name] if named else name for name in names}
    sizes = {name: size for name, size in zip(names, sizes_of(spec, called.values()).values(), strict=True)}
    if spec.kind != "lora":
        needs_plain_weights(spec.kind, [model.get_submodule(name) for name in names])
    place = place or Place()
    if spec.kind == "lokr":
        add_lokr(model, called, sizes, spec, seed, ADAPTER)
    else:
        _add_factors(model, called, sizes, spec, seed, place)
    if spec.kind == "dora":
        add_magnitudes([model.get_submodule(name) for name in names], ADAPTER)
    model._hf_peft_config_loaded = True  # type: ignore[assignment]  # what diffusers' add_adapter would note
    scales = {called[name]: sizes[name].scale(spec.rslora) for name in names}
    adapter = Adapter(model, {called[name]: model.get_submodule(name) for name in names}, scales, place)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in adapter.parameters()}
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())
    return adapter


def _add_factors(
    model: nn.Module, called: Mapping[str, str], sizes: Mapping[str, LayerSize], spec: LoraSpec, seed: int, place: Place
) -> None:
    from peft import inject_adapter_in_model

    device = next(model.parameters()).device  # of what never moves: a streamed block's weights lie elsewhere
    inject_adapter_in_model(_config(spec, sizes), model, ADAPTER)
    for name, known in called.items():
        layer: Any = model.get_submodule(name)
        layer.cast_input_dtype_enabled = False
        for letter, factors in (("A", layer.lora_A), ("B", layer.lora_B)):
            factors[ADAPTER] = _factor(factors[ADAPTER], f"{known}.{letter}", seed, letter == "B", device)
        if spec.dropout > 0:
            layer.lora_dropout[ADAPTER] = KeyedDropout(spec.dropout, seed, known, place)
        if spec.rank_dropout > 0 or spec.module_dropout > 0:
            ranks = KeyedRanks(sizes[name].rank, spec.rank_dropout, spec.module_dropout, seed, known)
            layer.lora_A[ADAPTER].ranks = ranks
            place.ranks.append(ranks)


def _config(spec: LoraSpec, sizes: Mapping[str, LayerSize]) -> Any:  # noqa: ANN401  (peft ships no types)
    from peft import LoraConfig

    from fluxtui.engine.trainer.adapter.plain import PlainLinear

    made: Any = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(sizes),
        init_lora_weights=False,
        bias="none",
        use_rslora=spec.rslora,
        use_dora=spec.kind == "dora",
        rank_pattern=pattern_of(sizes, lambda size: size.rank),
        alpha_pattern=pattern_of(sizes, lambda size: size.alpha),
    )
    if spec.kind == "lora":
        made._register_custom_module({nn.Linear: PlainLinear})
    return made


def _factor(made: nn.Linear, name: str, seed: int, is_zero: bool, device: torch.device) -> FactorLinear:
    """A starts as peft's and Kaiming's uniform, bound 1/sqrt(in), drawn on the CPU for this module; B starts at zero."""
    out_features, in_features = made.weight.shape
    factor = FactorLinear(in_features, out_features, device="meta")
    factor.weight = nn.Parameter(drawn((out_features, in_features), name, seed, is_zero).to(device))
    return factor


def _without_padding(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors without the ranks that add nothing: a file may be padded to its largest rank, or hold fused layers."""
    counts = a.any(dim=1) & b.any(dim=0)
    return a[counts], b[:, counts]


def begin_with(adapters: Sequence[Adapter], factors: Factors, name: str) -> None:
    """Starts from a LoRA's factors (scale in B). One of a smaller rank leaves the further rows of A as they were drawn.

    Raises `Refusal` where the file has a larger rank, or modules that are not targets; `name` is the file's.
    """
    scales = {module: scale for adapter in adapters for module, scale in adapter.scales.items()}
    beyond = sorted(module for module in factors.keys() - scales.keys() if factors[module][1].any())
    if beyond:
        raise Refusal(
            f"{name} adapts {beyond[0]} and {len(beyond) - 1} more that are no targets", "set lora.targets to cover them"
        )
    parameters = {name: parameter for adapter in adapters for name, parameter in adapter.named_parameters()}
    if any(not full.endswith((".lora_A", ".lora_B")) for full in parameters):
        raise Refusal(f"{name} holds a plain LoRA, and lora.kind is another", "set lora.kind=lora, or lora.weights to nothing")
    with torch.no_grad():
        for module in scales.keys() & factors.keys():
            a, b = _without_padding(*factors[module])
            own_a, own_b = parameters[f"{module}.lora_A"], parameters[f"{module}.lora_B"]
            rank = a.shape[0]
            if rank > own_a.shape[0]:
                raise Refusal(f"{name} has rank {rank}, this session {own_a.shape[0]}", f"set lora.rank={rank}")
            if (a.shape[1], b.shape[0]) != (own_a.shape[1], own_b.shape[0]):
                raise Refusal(f"{name} is of another model: {module} has other sizes", "give a LoRA of this base")
            own_a[:rank].copy_(a)
            own_b[:, :rank].copy_(b / scales[module])
