"""The frozen base in 8 or 4 bits: what a weight is held as, and a linear layer whose input gets its gradient.

A layer keeps codes and scales alone, and autograd keeps the same: torchao's and quanto's weight-only layers save the weight
decoded for the backward pass (2 bytes a weight; docs/memory.md has the measurement), which is what the codes were to spare.
NF4 is bitsandbytes' own (arXiv:2305.14314); int8 and fp8 take one scale a row.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fluxtui.engine import quiet
from fluxtui.engine.trainer.refusal import Refusal

NF4_BLOCK = 64  # weights that share a scale
_AT_ONCE = 2**20  # weights that are encoded at once: their float32 copy is 4 MiB

Parts = tuple[torch.Tensor, torch.Tensor]  # what a weight is held as: codes, scales
Shape = tuple[int, int]  # (out, in)


@dataclass(frozen=True, slots=True)
class Codec:
    """A way to hold a weight `(out, in)`. The parts of int8 and fp8: codes `(out, in)`, scales `(out,)` float32."""

    name: str
    encode: Callable[[torch.Tensor], Parts]
    decode: Callable[[Parts, Shape, torch.dtype], torch.Tensor]  # the weight, (out, in)
    nbytes: Callable[[Shape], int]  # bytes of all parts


def _encode_rows(weight: torch.Tensor, largest: float, to_codes: Callable[[torch.Tensor], torch.Tensor]) -> Parts:
    """Codes and scales, row by row. A scale is rounded up to bf16 before it is used: in bf16 it is then the same number."""
    rows = max(1, _AT_ONCE // weight.shape[1])
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
    for start in range(0, len(weight), rows):
        some = weight[start : start + rows].to(torch.float32)
        scale = _rounded_up(some.abs().amax(dim=1) / largest)
        codes[start : start + rows] = to_codes((some / scale[:, None]).clamp_(-largest, largest)).view(torch.uint8)
        scales[start : start + rows] = scale
    return codes, scales


def _rounded_up(scale: torch.Tensor) -> torch.Tensor:
    """The next bf16 number, in float32; 1 for a row of zeros."""
    scale = torch.where(scale > 0, scale, 1.0)
    near = scale.to(torch.bfloat16)
    above = torch.where(near.to(torch.float32) < scale, near * (1 + 2**-7), near)
    return above.to(torch.float32)


def _by_rows(name: str, largest: float, code_dtype: torch.dtype, to_codes: Callable[[torch.Tensor], torch.Tensor]) -> Codec:
    """int8 and fp8. The weight is scaled, not the product of the codes: that is larger, and would be rounded once more."""

    def decode(parts: Parts, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
        codes, scales = parts[0].view(code_dtype), parts[1].to(dtype)[:, None]
        # integers are promoted by the product that scales them: one pass over the weight
        return codes * scales if code_dtype == torch.int8 else codes.to(dtype).mul_(scales)

    return Codec(
        name=name,
        encode=lambda weight: _encode_rows(weight, largest, to_codes),
        decode=decode,
        nbytes=lambda shape: shape[0] * shape[1] + 4 * shape[0],
    )


def _nf4() -> Codec:
    """bitsandbytes' NF4, two weights a byte, a float32 scale for 64: `(out, in / 2)`, `(out, in / 64)` where that divides."""

    def encode(weight: torch.Tensor) -> Parts:
        blocks, (out, width) = _bitsandbytes(), weight.shape
        if weight.dtype.itemsize == 1:  # an fp8 checkpoint: every one of its numbers is one of bf16, which bitsandbytes reads
            weight = weight.to(torch.bfloat16)
        if width % NF4_BLOCK:  # blocks run on from row to row
            codes, state = blocks.quantize_4bit(weight.contiguous(), blocksize=NF4_BLOCK, quant_type="nf4")
            return codes.view(-1), state.absmax
        codes = torch.empty(out, width // 2, dtype=torch.uint8, device=weight.device)
        scales = torch.empty(out, width // NF4_BLOCK, dtype=torch.float32, device=weight.device)
        rows = max(1, _AT_ONCE // width)  # on the CPU it holds the distance of every weight to every level
        for start in range(0, out, rows):
            some = weight[start : start + rows].contiguous()
            coded, state = blocks.quantize_4bit(some, blocksize=NF4_BLOCK, quant_type="nf4")
            codes[start : start + rows] = coded.view(len(some), -1)
            scales[start : start + rows] = state.absmax.view(len(some), -1)
        return codes, scales

    def decode(parts: Parts, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
        blocks = _bitsandbytes()
        codes, scales = parts
        held = shape
        if shape[1] % NF4_BLOCK:  # its AVX-512 kernel takes every row to begin a block (0.50.2): give it rows that do
            held = (scales.numel(), NF4_BLOCK)
            codes = functional.pad(codes.view(-1), (0, held[0] * NF4_BLOCK // 2 - codes.numel()))
        state = blocks.QuantState(
            absmax=scales.view(-1), shape=torch.Size(held), code=_levels(codes.device), blocksize=NF4_BLOCK,
            quant_type="nf4", dtype=dtype,
        )  # fmt: skip
        weight: torch.Tensor = blocks.dequantize_4bit(codes.view(-1, 1), state)
        return weight.view(-1)[: shape[0] * shape[1]].view(shape)

    return Codec(
        name="nf4",
        encode=encode,
        decode=decode,
        nbytes=lambda shape: -(-shape[0] * shape[1] // 2) + 4 * -(-shape[0] * shape[1] // NF4_BLOCK),
    )


_nf4_levels: dict[torch.device, torch.Tensor] = {}


def _levels(device: torch.device) -> torch.Tensor:
    """NF4's 16 levels, made once a device."""
    if device not in _nf4_levels:
        _nf4_levels[device] = _bitsandbytes().get_4bit_type("nf4", device=device)
    return _nf4_levels[device]


def _bitsandbytes() -> Any:  # noqa: ANN401  (a library without types)
    quiet.let("bitsandbytes")
    try:
        return importlib.import_module("bitsandbytes.functional")
    except ImportError:
        why = "model.precision = 'nf4' needs bitsandbytes, which is not installed"
        raise Refusal(why, "pip install 'fluxtui[bitsandbytes]', or set model.precision = 'int8' with blocks streamed") from None


CODECS: dict[str, Codec] = {
    "int8": _by_rows("int8", 127.0, torch.int8, lambda scaled: scaled.round_().to(torch.int8)),
    "fp8": _by_rows("fp8", 448.0, torch.float8_e4m3fn, lambda scaled: scaled.to(torch.float8_e4m3fn)),
    "nf4": _nf4(),
}


class _Product(torch.autograd.Function):
    """inputs x weight + bias, of which only the codes are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        inputs: torch.Tensor,
        codec: Codec,
        shape: Shape,
        codes: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.codec, ctx.shape = codec, shape
        return functional.linear(inputs, codec.decode((codes, scales), shape, inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *of_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        weight = ctx.codec.decode(ctx.saved_tensors, ctx.shape, of_outputs[0].dtype)
        return of_outputs[0] @ weight, None, None, None, None, None


class QuantizedLinear(nn.Linear):
    """A frozen linear layer: `weight` is its codes (peft asks it for the device), `scales` are beside it.

    Made on the meta device with a weight as it is stored, `(out, in)`; `take` is given the value.
    """

    scales: torch.Tensor

    def __init__(self, like: nn.Linear, codec: Codec) -> None:
        super().__init__(like.in_features, like.out_features, bias=False, device="meta")
        self.bias = like.bias
        self.codec = codec
        self.requires_grad_(False)

    @property
    def shape(self) -> Shape:
        """(out, in)."""
        return self.out_features, self.in_features

    def take(self, weight: torch.Tensor, home: torch.device | None = None) -> None:
        """Encodes `(out, in)` on the device that it lies on; what has two dimensions is kept at `home`, where that is another."""
        codes, scales = (part.to(home) if home and part.ndim >= 2 else part for part in self.codec.encode(weight))
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scales", scales)

    def parts(self) -> Parts:
        """Codes and scales; raises AttributeError before `take`."""
        return self.weight, self.scales

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`(…, in)` to `(…, out)`, in the dtype of the inputs."""
        if not self.weight.numel():
            raise RuntimeError("the weight of this layer is not resident")
        apply: Callable[..., torch.Tensor] = _Product.apply
        return apply(inputs, self.codec, self.shape, *self.parts(), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.codec.name}"


def quantize_layers(blocks: nn.Module, codec: Codec) -> int:
    """Puts a `QuantizedLinear` in place of every linear layer of a module on the meta device; their number."""
    found = list(_linear_layers(blocks))
    for owner, name, layer in found:
        setattr(owner, name, QuantizedLinear(layer, codec))
    return len(found)


def _linear_layers(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for owner in module.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.Linear):
                yield owner, name, child
