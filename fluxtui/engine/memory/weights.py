"""Where the bytes of the frozen base lie: on the device, in slots, in host memory. Counted from shapes, nothing loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from fluxtui.engine.memory.plan_cache import remembered
from fluxtui.engine.memory.precision import CODECS
from fluxtui.engine.memory.streaming import streamed_names


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes, unless said otherwise."""

    parameters: int  # count
    resident: int  # on the device, the slots left out
    slots: int  # on the device: two of the largest streamed block
    hosted: int  # in host memory, streamed
    streamed: int  # count of blocks

    @property
    def on_device(self) -> int:
        return self.resident + self.slots


_Shapes = tuple[tuple[str, tuple[int, ...], bool], ...]


@lru_cache(maxsize=8)
def _shapes(config: str) -> _Shapes:
    """(name, shape, whether it is a linear layer's weight) of every parameter of a transformer of this configuration."""
    return remembered("parameters", config, _Shapes, lambda: _empty_shapes(config))


def _empty_shapes(config: str) -> _Shapes:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config(json.loads(config))
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return tuple((name, tuple(tensor.shape), name in linear) for name, tensor in model.named_parameters())


def count_weights(config: Mapping[str, Any], precision: str, width: int, stream_blocks: int) -> Weights:
    """`precision`: a codec's name, or anything else for plain numbers of `width` bytes."""
    double, single = config.get("num_layers", 19), config.get("num_single_layers", 38)
    names = streamed_names(double, single, stream_blocks) if stream_blocks else []
    moved = dict.fromkeys(names, 0)
    parameters = resident = 0
    for name, shape, is_linear in _shapes(json.dumps(dict(config), sort_keys=True, default=list)):
        number = 1
        for size in shape:
            number *= size
        parameters += number
        block = _block_of(name)
        for size, is_matrix in _held(shape, number, is_linear and block != "", precision, width):
            if block in moved and is_matrix:
                moved[block] += size
            else:
                resident += size
    return Weights(parameters, resident, 2 * max(moved.values(), default=0), sum(moved.values()), len(names))


def _held(shape: tuple[int, ...], number: int, is_coded: bool, precision: str, width: int) -> Iterator[tuple[int, bool]]:
    """(bytes, whether it has two dimensions or more) of what a parameter is held as."""
    if not is_coded or precision not in CODECS:
        yield width * number, len(shape) >= 2
        return
    whole = CODECS[precision].nbytes((shape[0], shape[1]))
    if precision == "nf4":  # scales lie in rows too
        yield whole, True
    else:
        yield number, True
        yield whole - number, False


def _block_of(name: str) -> str:
    """The block that a parameter belongs to; "" for the top level."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in ("transformer_blocks", "single_transformer_blocks") else ""
