"""Block streaming: the last blocks' frozen weights lie in host memory and come in ahead of use, forward and backward.

Two slots on the device hold one block each: the one that computes, and the one that is next. Only frozen weights of two or
more dimensions move; the adapter, norms and biases stay. The backward pass computes every block again (gradient
checkpointing, its early stop off), so that a block's weights are needed only while it is at work. Weights that are not
resident are empty: computing with them is an error. (Tensors of the meta device would not do: a product with one on the CPU
is garbage, without an error.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from fluxtui.engine.memory.copy_stream import Arrival, CopyStream
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.wire import TrainerExit

_ALIGNED = 256  # bytes: where a tensor may begin inside a slot
_LOOK_SECONDS = 5e-5  # between two looks for a block that is awaited


class BlockSwapError(Refusal):
    """A block's weights did not arrive on the device in time."""

    exit = TrainerExit.HUNG


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of a block, and where it lies in the block's bytes."""

    owner: nn.Module
    key: str
    is_parameter: bool
    dtype: torch.dtype
    shape: torch.Size
    start: int  # bytes
    size: int  # bytes

    def put(self, value: torch.Tensor) -> None:
        if self.is_parameter:
            self.owner._parameters[self.key] = nn.Parameter(value, requires_grad=False)
        else:
            self.owner._buffers[self.key] = value


@dataclass(slots=True)
class Block:
    """A streamed block: its bytes in host memory, and its pieces."""

    name: str
    pieces: tuple[Piece, ...]
    host: torch.Tensor  # (bytes,) uint8

    def settle(self, slot: torch.Tensor) -> None:
        """Its weights are now views of the slot."""
        for piece in self.pieces:
            flat = slot[piece.start : piece.start + piece.size]
            piece.put(flat.view(piece.dtype).view(piece.shape))

    def leave(self, device: torch.device) -> None:
        """Its weights are nowhere."""
        for piece in self.pieces:
            piece.put(torch.empty((0,) * len(piece.shape), dtype=piece.dtype, device=device))


@dataclass
class BlockStreamer:
    """Made by `stream_blocks`. Blocks are numbered in the order in which a forward pass uses them."""

    blocks: Sequence[Block]
    copy_stream: CopyStream
    limit: float  # seconds for a block to arrive; 0: for ever
    slots: tuple[torch.Tensor, torch.Tensor]
    _in_slot: list[int | None] = field(default_factory=lambda: [None, None])
    _under_way: dict[int, Arrival] = field(default_factory=dict)
    _is_backward: bool = False

    @property
    def resident(self) -> list[int]:
        """Blocks that are in a slot or on their way into one: two at most."""
        return [number for number in self._in_slot if number is not None]

    def enter(self, number: int) -> None:
        """Called before a block computes: waits until it is here, and sends for the next one. Raises `BlockSwapError`."""
        if number not in self._in_slot:
            self._send_for(number, keep=None)
        self._await(number)
        following = self._following(number)
        if following is not None and following not in self._in_slot:
            self._send_for(following, keep=number)

    def checkpointed(self, block: nn.Module, *inputs: Any) -> Any:  # noqa: ANN401  (as diffusers calls it)
        """Gradient checkpointing that says which way the blocks are being run through."""
        with set_checkpoint_early_stop(False):  # torch 2.8 has no such argument of `checkpoint`
            return checkpoint(block.__call__, *inputs, use_reentrant=False, context_fn=self._contexts, preserve_rng_state=False)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._backward()

    @contextmanager
    def _backward(self) -> Iterator[None]:
        self._is_backward = True
        try:
            yield
        finally:
            self._is_backward = False

    def _following(self, number: int) -> int | None:
        """The block that will be used after this one: in a backward pass the one before; after the last of a pass without
        gradients (samples, validation) the first, of one with gradients nothing new."""
        if self._is_backward:
            return number - 1 if number > 0 else None
        if number + 1 < len(self.blocks):
            return number + 1
        return None if torch.is_grad_enabled() else 0

    def _send_for(self, number: int, keep: int | None) -> None:
        """Into a slot that does not hold `keep`. What was there is done: blocks compute one after the other, and autograd
        runs all of a later block's backward pass before it asks for an earlier one (nodes made last run first)."""
        place = next((at for at, held in enumerate(self._in_slot) if held is None), None)
        if place is None:
            place = next(at for at, held in enumerate(self._in_slot) if held != keep)
        if (before := self._in_slot[place]) is not None:
            self._under_way.pop(before, None)
            self.blocks[before].leave(self.slots[place].device)
        self._in_slot[place] = number
        block = self.blocks[number]
        self._under_way[number] = self.copy_stream.start(block.host, self.slots[place][: len(block.host)])

    def _await(self, number: int) -> None:
        arrival = self._under_way.get(number)
        if arrival is None:
            return
        block, begun = self.blocks[number], None
        while not arrival.is_here():
            if begun is None and arrival.has_begun():
                begun = time.monotonic()
            if self.limit and begun is not None and time.monotonic() - begun > self.limit:
                raise BlockSwapError(
                    f"{block.name} did not arrive from host memory within {self.limit:g} s",
                    "fluxtui resume {name}; where it happens again, look at the GPU with nvidia-smi, "
                    "or set hardware.stream_blocks=0",
                )
            time.sleep(_LOOK_SECONDS)
        arrival.admit()
        del self._under_way[number]
        block.settle(self.slots[self._in_slot.index(number)][: len(block.host)])


def streamed_names(double: int, single: int, streamed: int) -> list[str]:
    """Module names of the last `streamed` blocks of a transformer, in the order of use: single blocks come last."""
    names = [f"transformer_blocks.{number}" for number in range(double)]
    names += [f"single_transformer_blocks.{number}" for number in range(single)]
    return names[len(names) - min(streamed, len(names)) :]


def stream_blocks(transformer: nn.Module, names: Sequence[str], copy_stream: CopyStream, limit: float) -> BlockStreamer:
    """Takes the frozen weights of the named blocks into host memory, and lets them come in when they are used.

    After the adapter was added. `transformer` is one of diffusers', whose blocks will be checkpointed.
    """
    found = [_take(transformer.get_submodule(name), name, copy_stream) for name in names]
    size = max(len(block.host) for block in found)
    streamer = BlockStreamer(found, copy_stream, limit, (copy_stream.slot(size), copy_stream.slot(size)))
    for number, name in enumerate(names):
        transformer.get_submodule(name).register_forward_pre_hook(_enters(streamer, number))
    enable: Callable[..., None] = transformer.enable_gradient_checkpointing  # type: ignore[assignment]
    enable(streamer.checkpointed)
    return streamer


def _enters(streamer: BlockStreamer, number: int) -> Callable[[nn.Module, Any], None]:
    return lambda _block, _inputs: streamer.enter(number)


def _take(block: nn.Module, name: str, copy_stream: CopyStream) -> Block:
    """One block's weights into one buffer of host memory; what they were before is freed."""
    pieces, start = [], 0
    values = []
    for owner in block.modules():
        for key, value, is_parameter in [
            *((key, value, True) for key, value in owner._parameters.items()),
            *((key, value, False) for key, value in owner._buffers.items()),
        ]:
            if value is None or value.requires_grad or value.ndim < 2:
                continue
            pieces.append(Piece(owner, key, is_parameter, value.dtype, value.shape, start, value.nbytes))
            values.append(value.detach())
            start += -(-value.nbytes // _ALIGNED) * _ALIGNED
    host = copy_stream.host_buffer(start)
    for piece, value in zip(pieces, values, strict=True):
        host[piece.start : piece.start + piece.size].copy_(value.contiguous().view(-1).view(torch.uint8))
    taken = Block(name, tuple(pieces), host)
    taken.leave(host.device)
    return taken
