"""The two other kinds of adapter: DoRA (arXiv:2402.09353) and LoKr (LyCORIS, arXiv:2309.14859), both by peft.

DoRA: W' = m (W + s B A) / |W + s B A|, row by row, m trained. peft finds the norm in the dtype of the input, where bf16
rounds more than a step changes, and by way of an identity matrix of the layer's width; here it is found in float32.
LoKr: W' = W + s (w1 x w2), Kronecker. Its numbers too start from generators keyed by module, and stay float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.settings.layers import LayerSize
from fluxtui.persist.settings.spec import LoraSpec


def needs_plain_weights(kind: str, layers: Iterable[nn.Module]) -> None:
    """Both kinds work with the base's weights themselves. Raises `Refusal` where a layer has only packed ones."""
    for layer in layers:
        weight = getattr(layer, "weight", None)
        if not (isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.dtype in (torch.float32, torch.bfloat16)):
            raise Refusal(
                f"lora.kind = {kind!r} needs the base's weights in bf16 or fp32", "set model.precision=bf16, or lora.kind=lora"
            )


class Magnitudes(nn.Module):
    """What DoRA adds to the output of a layer. Takes the place of peft's, and is called as that is."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        with torch.no_grad():  # the rows' lengths as they are, so that nothing changes before the first step
            self.weight = nn.Parameter(torch.linalg.norm(base_layer.weight.float(), dim=1))

    def forward(
        self, x: torch.Tensor, *, lora_A: nn.Linear, lora_B: nn.Linear, scaling: float, base_layer: nn.Linear,
        base_result: torch.Tensor | None = None, adapter_name: str = "",
    ) -> torch.Tensor:  # fmt: skip
        """`(…, in)` to `(…, out)`. The norm takes no part in the gradient (section 4.3 of the paper)."""
        with torch.no_grad():
            norm = torch.linalg.norm(base_layer.weight.float() + scaling * (lora_B.weight @ lora_A.weight), dim=1)
        ratio = self.weight / norm
        if base_result is None:  # the input went through dropout, so the base's output is another
            product = functional.linear(x, base_layer.weight)
        else:
            product = base_result if base_layer.bias is None else base_result - base_layer.bias
        added: torch.Tensor = (ratio - 1.0).to(x.dtype) * product + (scaling * ratio).to(x.dtype) * lora_B(lora_A(x))
        return added


def add_magnitudes(layers: Iterable[Any], adapter: str) -> None:
    """Our magnitudes in place of peft's, whose first value was of factors that are drawn anew."""
    for layer in layers:
        layer.lora_magnitude_vector[adapter] = Magnitudes(layer.get_base_layer())


def add_lokr(
    model: nn.Module, called: Mapping[str, str], sizes: Mapping[str, LayerSize], spec: LoraSpec, seed: int, adapter: str
) -> None:
    """LoKr on each layer of `called` (module -> its name in files): w1 drawn, w2 (or its second factor) zero."""
    if spec.dropout > 0:
        raise Refusal("lora.kind = 'lokr' has no dropout of its own", "set lora.dropout=0")
    if spec.rslora:
        raise Refusal("lora.rslora is about a rank that lora.kind = 'lokr' does not have", "set lora.rslora=false")
    from peft import LoKrConfig, inject_adapter_in_model

    config = LoKrConfig(
        r=spec.rank, alpha=spec.alpha, target_modules=list(called), init_weights=False, decompose_factor=spec.lokr_factor,
        rank_pattern=pattern_of(sizes, lambda size: size.rank), alpha_pattern=pattern_of(sizes, lambda size: size.alpha),
    )  # fmt: skip
    inject_adapter_in_model(config, model, adapter)
    for name, known in called.items():
        layer: Any = model.get_submodule(name)
        for part in ("lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b"):
            factors = getattr(layer, part)
            if adapter in factors:
                shape, device = tuple(factors[adapter].shape), factors[adapter].device
                is_zero = part in ("lokr_w2", "lokr_w2_b")
                factors[adapter] = nn.Parameter(drawn(shape, f"{known}.{part}", seed, is_zero).to(device))
        layer.module_dropout[adapter] = -1.0  # at 0 peft leaves a layer out where its own draw, of [0, 1), is 0: nobody's seed
        layer.get_delta_weight = _in_dtype_of_base(layer.get_delta_weight, layer.get_base_layer())


def pattern_of(sizes: Mapping[str, LayerSize], value: Callable[[LayerSize], float]) -> dict[str, float]:
    """A pattern of peft's for all layers of one value, instead of one a layer, which it would try one after the other."""
    groups: dict[float, list[str]] = {}
    for name, size in sizes.items():
        groups.setdefault(value(size), []).append(name.replace(".", r"\."))
    return {"|".join(names): wanted for wanted, names in groups.items()}


def _in_dtype_of_base(get_delta_weight: Callable[..., torch.Tensor], base: nn.Linear) -> Callable[..., torch.Tensor]:
    """The product of the float32 factors in the base's dtype: peft multiplies by it in whatever dtype it comes."""

    def delta(adapter_name: str, **how: bool) -> torch.Tensor:
        return get_delta_weight(adapter_name, **how).to(base.weight.dtype)

    return delta


def drawn(shape: Sequence[int], name: str, seed: int, is_zero: bool) -> torch.Tensor:
    """A factor's first numbers, float32 on the CPU: zero, or Kaiming's uniform with bound 1/sqrt(columns), keyed by its name."""
    weight = torch.zeros(*shape, dtype=torch.float32)
    if not is_zero:
        bound = 1.0 / math.sqrt(shape[-1])
        weight.uniform_(-bound, bound, generator=draws.generator(seed, "lora_init", 0, extra=name))
    return weight


def shapes_of(spec: LoraSpec, rank: int, out_features: int, in_features: int) -> dict[str, tuple[int, ...]]:
    """Shape of each trained parameter of a layer."""
    if spec.kind != "lokr":
        factors: dict[str, tuple[int, ...]] = {"lora_A": (rank, in_features), "lora_B": (out_features, rank)}
        return factors | ({"magnitude": (out_features,)} if spec.kind == "dora" else {})
    from peft.tuners.lokr.layer import factorization

    (in_small, in_large), (out_small, out_large) = (factorization(n, spec.lokr_factor) for n in (in_features, out_features))
    small: dict[str, tuple[int, ...]] = {"lokr_w1": (out_small, in_small)}
    if rank < max(out_large, in_large) / 2:
        return small | {"lokr_w2_a": (out_large, rank), "lokr_w2_b": (rank, in_large)}
    return small | {"lokr_w2": (out_large, in_large)}
