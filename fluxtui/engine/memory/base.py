"""The frozen base, loaded as a session's spec and this machine's memory have it: in which precision, and where its blocks lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

from fluxtui.engine.memory.precision import CODECS, Codec
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.spec import Spec

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from fluxtui.engine.family.flux1.components import BytesRead, Components

WHOLE_FROM = 40 * 10**9  # bytes of a card from which "auto" keeps the base in bf16; below, int8


def codec_for(precision: str, device: torch.device) -> Codec | None:
    """How the blocks' weights are held on this device; None: as numbers of the runtime's dtype."""
    if precision == "auto":
        is_small = device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < WHOLE_FROM
        return CODECS["int8"] if is_small else None
    return CODECS.get(precision)


def load_base(
    components: Components, spec: Spec, dtype: torch.dtype, device: torch.device, on_bytes: BytesRead, say: Callable[[str], None]
) -> FluxTransformer2DModel:
    """The transformer, frozen, ready for an adapter. What differs from plain bf16 or fp32 is said."""
    codec = codec_for(spec.model.precision, device)
    transformer = components.load_transformer(dtype, device, on_bytes, codec)
    if codec is not None:
        say(f"the base's blocks are held in {codec.name}, products taken in {str(dtype).removeprefix('torch.')}")
    if spec.train.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    return transformer


def check_float32(parameters: Iterable[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """What is trained is float32, and so is the optimizer's state (8 bits where the optimizer is of 8 bits). Raises `Refusal`.

    Most weights of a bf16 LoRA cannot be moved by one step of Adam; nothing would say so.
    """
    found = {parameter.dtype for parameter in parameters}
    for state in optimizer.state.values():
        found |= {value.dtype for value in state.values() if isinstance(value, torch.Tensor) and value.dtype != torch.uint8}
    wrong = [dtype for dtype in found if dtype.is_floating_point and dtype != torch.float32]
    if wrong:
        why = f"the adapter or its optimizer is held in {', '.join(sorted(map(str, wrong)))}, where small steps are lost"
        raise Refusal(why, "this is a fault of FluxTUI or of a library: install the tested versions of constraints.txt")
