"""Block streaming: bit-equal gradients, two blocks resident, nothing computed with what is not there, and an end to waiting."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from fluxtui.engine.family.flux1.targets import target_names
from fluxtui.engine.memory import base, streaming
from fluxtui.engine.memory.copy_stream import Arrival, CudaCopyStream, PlainCopyStream
from fluxtui.engine.memory.precision import CODECS, QuantizedLinear, quantize_layers
from fluxtui.engine.memory.streaming import BlockStreamer, BlockSwapError, stream_blocks, streamed_names
from fluxtui.engine.prove import prove
from fluxtui.engine.trainer.adapter.lora import Adapter, add_lora
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.settings.spec import LoraSpec
from tests.trainer.job import Bench
from tests.trainer.tiny_flux import new_transformer

NewBench = Callable[..., Bench]
DOUBLE, SINGLE = 3, 5


@dataclass
class Copying:
    """A copy that arrives only when it is looked for the second time."""

    host: torch.Tensor
    slot: torch.Tensor
    is_lost: bool
    looks: int = 0

    def has_begun(self) -> bool:
        return True

    def is_here(self) -> bool:
        self.looks += 1
        return self.looks > 1 and not self.is_lost

    def admit(self) -> None:
        self.slot.copy_(self.host)


@dataclass
class EmulatedCopyStream(PlainCopyStream):
    """A device apart: its slots are poisoned from the moment a copy begins until it is admitted, and host memory is never read
    by what computes."""

    lost: int = -1  # the copy of this number never arrives
    slots: list[torch.Tensor] = field(default_factory=list)
    copies: int = 0

    def slot(self, size: int) -> torch.Tensor:
        self.slots.append(torch.full((size,), 0xFF, dtype=torch.uint8))  # NaN in every float dtype, -1 in int8
        return self.slots[-1]

    def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
        slot.fill_(0xFF)
        self.copies += 1
        return Copying(host, slot, is_lost=self.copies == self.lost)


def new_model(precision: str | None = None, targets: str = "attention+mlp") -> tuple[nn.Module, Adapter]:
    """The same weights at every call; B of the adapter is not zero, so that every factor has a gradient."""
    torch.manual_seed(0)
    model = new_transformer(num_layers=DOUBLE, num_single_layers=SINGLE, num_attention_heads=4)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if precision:
        for blocks in (model.transformer_blocks, model.single_transformer_blocks):
            quantize_layers(blocks, CODECS[precision])
            for name, layer in blocks.named_modules():
                if isinstance(layer, QuantizedLinear):
                    prefix = "transformer_blocks." if blocks is model.transformer_blocks else "single_transformer_blocks."
                    layer.take(weights[f"{prefix}{name}.weight"])
    model.requires_grad_(False)
    adapter = add_lora(model, target_names(model, targets), LoraSpec(rank=2, alpha=2.0, targets=targets), seed=1)
    with torch.no_grad():
        for number, parameter in enumerate(adapter.parameters()):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    model.enable_gradient_checkpointing()
    return model.train(), adapter


def inputs(batch: int = 2, seed: int = 0) -> dict[str, Any]:
    source = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, 16, 64, generator=source),
        "encoder_hidden_states": torch.randn(batch, 6, 32, generator=source),
        "pooled_projections": torch.randn(batch, 24, generator=source),
        "timestep": torch.rand(batch, generator=source),
        "guidance": torch.ones(batch),
        "img_ids": torch.stack([torch.tensor([0.0, row, column]) for row in range(4) for column in range(4)]),
        "txt_ids": torch.zeros(6, 3),
        "return_dict": False,
    }


def gradients(model: nn.Module, adapter: Adapter, steps: int = 2) -> list[torch.Tensor]:
    """Of several micro-steps in a row, each with other inputs."""
    for step in range(steps):
        model(**inputs(seed=step))[0].square().mean().backward()
    return [parameter.grad for parameter in adapter.parameters() if parameter.grad is not None]


def streamed(model: nn.Module, blocks: int, copy_stream: EmulatedCopyStream | None = None, limit: float = 30.0) -> BlockStreamer:
    return stream_blocks(model, streamed_names(DOUBLE, SINGLE, blocks), copy_stream or EmulatedCopyStream(), limit)


@pytest.mark.parametrize("precision", [None, "int8", "fp8", "nf4"])
@pytest.mark.parametrize("blocks", [1, 2, 4, DOUBLE + SINGLE])
def test_gradients_are_bit_equal_to_those_without_streaming(precision: str | None, blocks: int) -> None:
    expected = gradients(*new_model(precision))
    model, adapter = new_model(precision)
    streamed(model, blocks)
    found = gradients(model, adapter)
    assert len(found) == len(expected) == len(adapter.parameters())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(gradient.any() for gradient in found)


def test_at_most_two_blocks_are_resident_and_all_others_are_nowhere() -> None:
    model, adapter = new_model("int8")
    streamer = streamed(model, DOUBLE + SINGLE)
    most: list[int] = []
    for block in (*model.transformer_blocks, *model.single_transformer_blocks):
        block.register_forward_pre_hook(lambda *_: most.append(_resident(streamer)))
    gradients(model, adapter)
    assert len(most) == 2 * 2 * (DOUBLE + SINGLE)  # two micro-steps, forward and again in the backward pass
    assert max(most) == 2
    assert len(streamer.slots) == 2
    assert max(map(len, streamer.slots)) == max(len(block.host) for block in streamer.blocks)


def _resident(streamer: BlockStreamer) -> int:
    """Blocks that have a weight anywhere, or a copy under way."""
    here = {block.name for block in streamer.blocks if any(held.numel() for held in _held(block))}
    return len(here | {streamer.blocks[number].name for number in streamer.resident})


def _held(block: Any) -> list[torch.Tensor]:
    return [getattr(piece.owner, piece.key) for piece in block.pieces]


def test_what_moves_is_frozen_and_has_two_dimensions() -> None:
    model, adapter = new_model("int8")
    streamer = streamed(model, 3)
    moved = {id(tensor) for block in streamer.blocks for tensor in _held(block)}
    trained = {id(parameter) for parameter in adapter.parameters()}
    inside = [model.get_submodule(block.name) for block in streamer.blocks]
    every = [tensor for module in inside for tensor in (*module.parameters(), *module.buffers())]
    assert moved == {id(tensor) for tensor in every if tensor.ndim >= 2 and id(tensor) not in trained}
    assert not any(parameter.is_meta for parameter in adapter.parameters())


@pytest.mark.parametrize("precision", [None, "int8", "nf4"])
def test_computing_with_a_block_that_is_not_there_is_an_error(precision: str | None) -> None:
    model, _ = new_model(precision)
    streamer = streamed(model, 4)
    streamer.enter = lambda number: None  # type: ignore[method-assign]  # nobody sends for anything
    with pytest.raises(RuntimeError, match=r"not resident|shapes cannot be multiplied"):
        model(**inputs())


def test_poison_would_be_seen() -> None:
    """The measure itself: a copy stream that never copies changes the gradients, or the tests above could not fail."""

    class Forgetful(EmulatedCopyStream):
        def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
            slot.fill_(0xFF)
            return Copying(slot, slot, is_lost=False)

    expected = gradients(*new_model("int8"))
    model, adapter = new_model("int8")
    streamed(model, 4, Forgetful())
    assert not any(torch.equal(a, b) for a, b in zip(gradients(model, adapter), expected, strict=True))


def test_the_next_block_is_sent_for_while_one_computes() -> None:
    model, adapter = new_model()
    copy_stream = EmulatedCopyStream()
    streamer = streamed(model, 6, copy_stream)
    under_way: list[bool] = []
    for block in model.single_transformer_blocks[:-1]:
        block.register_forward_pre_hook(lambda *_: under_way.append(bool(streamer._under_way)))
    model(**inputs())
    assert under_way == [True] * (SINGLE - 1)
    gradients(model, adapter, steps=1)
    assert copy_stream.copies <= 3 * 6  # no block came in for nothing


@pytest.mark.parametrize("is_grad", [True, False])
def test_samples_and_steps_may_take_turns(is_grad: bool) -> None:
    model, _ = new_model("nf4")
    plain, _ = new_model("nf4")
    streamed(model, 5)
    with torch.set_grad_enabled(is_grad):
        for seed in range(3):
            assert torch.equal(model(**inputs(seed=seed))[0], plain(**inputs(seed=seed))[0])


@pytest.mark.parametrize("lost", [3, 11])
def test_a_swap_that_does_not_arrive_raises_with_the_blocks_name(lost: int) -> None:
    model, adapter = new_model()
    streamed(model, 6, EmulatedCopyStream(lost=lost), limit=0.2)
    with pytest.raises(BlockSwapError, match=r"transformer_blocks\.\d did not arrive .* within 0.2 s"):
        gradients(model, adapter)


@dataclass
class Clock:
    """Time that only passes where someone sleeps."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += 0.01


@dataclass
class Waiting(Copying):
    """A copy whose turn comes after a second of work that the device was given before it."""

    clock: Clock = field(default_factory=Clock)
    asked: float | None = None

    def has_begun(self) -> bool:
        self.asked = self.clock.now if self.asked is None else self.asked
        return self.clock.now - self.asked > 1.0

    def is_here(self) -> bool:
        return not self.is_lost and self.has_begun()


@pytest.mark.parametrize("is_lost", [False, True])
def test_work_that_is_queued_ahead_of_a_copy_is_not_counted_as_its_time(is_lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(streaming, "time", clock)

    class Busy(EmulatedCopyStream):
        def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
            slot.fill_(0xFF)
            return Waiting(host, slot, is_lost, clock=clock)

    model, _ = new_model()
    streamed(model, 3, Busy(), limit=0.2)
    if not is_lost:
        assert torch.isfinite(model(**inputs())[0]).all()
        assert clock.now > 3.0
        return
    with pytest.raises(BlockSwapError, match=r"within 0.2 s"):
        model(**inputs())
    assert 1.2 < clock.now < 1.3


class Driver:
    """CUDA's runtime where a container may lock no memory: an error is kept for the next kernel's launch."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.error = 0

    def cudaHostRegister(self, _address: int, size: int, _flags: int) -> int:
        self.asked.append(size)
        self.error = 2
        return 2

    def launch(self, *_: Any, **__: Any) -> torch.Tensor:
        error, self.error = self.error, 0
        if error:
            raise RuntimeError("CUDA error: out of memory")
        return torch.empty(1)


def test_memory_that_cannot_be_locked_blames_no_kernel_and_is_told(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, said = Driver(), list[str]()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: None)
    copy_stream = CudaCopyStream(torch.device("cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "zeros", driver.launch)
        buffers = [copy_stream.host_buffer(size) for size in (512, 256, 256)]
        assert driver.launch().numel() == 1
    assert driver.asked == [512], "what was refused once is not asked for again"
    assert copy_stream.unlocked == sum(map(len, buffers))
    bench = new_bench(hardware__stream_blocks=2, train__gradient_checkpointing=True)
    monkeypatch.setattr(base, "copy_stream_to", lambda _device: _Unlocked())
    monkeypatch.setattr(Reporter, "say", lambda _self, line: said.append(line))
    bench.prepare_here()
    assert any("could not be page-locked" in line and "ulimit -l" in line for line in said), said


class _Unlocked(PlainCopyStream):
    unlocked = 3 << 30


def test_the_last_blocks_are_streamed_single_ones_first() -> None:
    assert streamed_names(2, 3, 2) == ["single_transformer_blocks.1", "single_transformer_blocks.2"]
    assert streamed_names(2, 3, 4)[0] == "transformer_blocks.1"
    assert len(streamed_names(2, 3, 99)) == 5


STUCK = """
import torch
from fluxtui.engine.memory import base
from fluxtui.engine.memory.copy_stream import PlainCopyStream
class Stuck(PlainCopyStream):
    def start(self, host, slot):
        class Never:
            def has_begun(self): return True
            def is_here(self): return False
            def admit(self): raise AssertionError
        return Never()
base.copy_stream_to = lambda device: Stuck()
import atexit, threading
threading.Thread(target=threading.Event().wait).start()     # a driver's thread that never ends
from fluxtui.engine.__main__ import main
import sys
sys.exit(main(["train"]))
"""


def test_a_trainer_whose_swap_hangs_ends_with_the_blocks_name(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = new_bench(hardware__stream_blocks=2, train__gradient_checkpointing=True, guard__block_swap=0.5)
    running = bench.start(arguments=("-c", STUCK))
    ended = running.wait(60)
    assert ended.code == 83, ended.log
    assert "single_transformer_blocks.0 did not arrive from host memory within 0.5 s" in ended.error
    assert "2 blocks are streamed, single_transformer_blocks.0 to single_transformer_blocks.1" in ended.log


SOAK = os.environ.get("FLUXTUI_SOAK")
PAIRS = [(precision, blocks) for precision in ("auto", "bf16", "int8", "fp8", "nf4") for blocks in (0, 1, 2, 4)]


@pytest.mark.parametrize(("precision", "blocks"), PAIRS if SOAK else [("fp8", 2)])
def test_runs_through_precisions_and_streaming_depths_are_proven_and_streaming_changes_no_byte(
    new_bench: NewBench, precision: Any, blocks: int
) -> None:
    common = {"model__precision": precision, "train__steps": 3, "train__gradient_checkpointing": True}
    bench = new_bench("streamed", hardware__stream_blocks=blocks, **common)
    ended = bench.train()
    assert ended.code == 0, ended.log
    assert ("blocks are streamed" in ended.log) == (blocks > 0)
    bench.write_record()
    proof = prove(bench.root, bench.spec.name, 0, lambda **_: None)
    assert proof.ok, proof
    plain = new_bench("plain", **common)
    plain.run_here()
    assert plain.result().tensors_sha256 == bench.result().tensors_sha256
