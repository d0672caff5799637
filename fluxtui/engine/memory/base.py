"""The frozen base, loaded as a session's spec and this machine's memory have it: in which precision, and where its blocks lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from fluxtui.engine.cards import is_without_bf16
from fluxtui.engine.family.flux1.transformer import attend_in_float32
from fluxtui.engine.memory.checksum import WeightsSum
from fluxtui.engine.memory.copy_stream import copy_stream_to
from fluxtui.engine.memory.precision import CODECS
from fluxtui.engine.memory.presets import Held, held_on
from fluxtui.engine.memory.streaming import BlockStreamer, stream_blocks, streamed_names
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.settings.spec import Spec

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from fluxtui.engine.family.flux1.components import BytesRead, Components
    from fluxtui.engine.trainer.runtime import Runtime

_GRAPHS = 64  # that a block may be compiled to: training and drawing, with and without gradients, one picture and several


def load_base(
    components: Components, spec: Spec, here: Runtime, on_bytes: BytesRead, say: Callable[[str], None]
) -> tuple[FluxTransformer2DModel, str]:
    """The transformer, frozen, ready for an adapter; and a digest of its weights' bytes, all of them, as they are stored.

    What differs from plain bf16 or fp32 is said.
    """
    held = held_on(spec, here.card)
    codec = CODECS.get(held.precision)
    if held.preset:
        say(f"memory preset {held.preset}: the base in {held.precision}, {held.stream_blocks or 'no'} blocks streamed")
    checksum, hosted = WeightsSum(), _streamed(components, held)
    transformer = components.load_transformer(here.dtype, here.device, on_bytes, codec, hosted, checksum.take)
    if codec is not None:
        say(f"the base's blocks are held in {codec.name}, products taken in {str(here.dtype).removeprefix('torch.')}")
    return transformer, checksum.hexdigest()


def ready_blocks(
    transformer: FluxTransformer2DModel, components: Components, spec: Spec, here: Runtime, say: Callable[[str], None]
) -> BlockStreamer | None:
    """Checkpointing, streaming and compiling of the blocks, once the adapter is in them. What swaps is said."""
    if here.device.type == "cuda" and here.dtype == torch.bfloat16 and is_without_bf16(here.device.index):
        attend_in_float32(transformer, here.dtype)
        say("this GPU is older than Ampere: attention computes in float32, and a step takes many times as long")
    if spec.train.gradient_checkpointing:
        transformer.enable_gradient_checkpointing(recomputed)
    if spec.hardware.compile:
        # Buckets, partial batches, samples and held-out losses all run one code: shapes are left open from the start, or what a
        # process compiled would follow from what it happened to run first; what is beyond dynamo's limit would run uncompiled.
        torch._dynamo.config.recompile_limit = _GRAPHS
        transformer.compile_repeated_blocks(dynamic=True)
        say("the blocks are compiled: the first steps take minutes")
    names = _streamed(components, held_on(spec, here.card))
    if not names:
        return None
    copy_stream = copy_stream_to(here.device)
    streamer = stream_blocks(transformer, names, copy_stream, spec.guard.block_swap)
    hosted = sum(len(block.host) for block in streamer.blocks)
    say(
        f"{len(names)} blocks are streamed, {names[0]} to {names[-1]}: {hosted / 2**30:.2f} GiB in host memory, "
        f"{sum(map(len, streamer.slots)) / 2**30:.2f} GiB of slots on {here.device}"
    )
    if copy_stream.unlocked:
        say(
            f"{copy_stream.unlocked / 2**30:.2f} GiB of it could not be page-locked, and come in more slowly: "
            "raise `ulimit -l` (docker run --ulimit memlock=-1)"
        )
    return streamer


def recomputed(block: torch.nn.Module, *inputs: Any) -> Any:  # noqa: ANN401  (as diffusers calls it)
    """Gradient checkpointing of a block that draws nothing from torch's global generators: their state is not carried along.

    All dropout is keyed (`adapter/dropout.py`), and what peft's LoKr draws decides nothing.
    """
    return checkpoint(block.__call__, *inputs, use_reentrant=False, preserve_rng_state=False)


def _streamed(components: Components, held: Held) -> list[str]:
    config = components.transformer_config
    if not held.stream_blocks:
        return []
    return streamed_names(config["num_layers"], config["num_single_layers"], held.stream_blocks)


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
