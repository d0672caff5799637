"""What a rank sets before anything is computed: kernels that are the same everywhere, and what accelerate wants to be told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from fluxtui.engine import life
from fluxtui.engine.memory import probe
from fluxtui.engine.trainer import runtime
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.train import let_segments_grow, run_job
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.sessions.record import Phase
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
_NVIDIA_SMI = """#!/bin/sh
case "$*" in *driver_version*) echo {driver}; echo {driver};; *) echo "2, {card}"; echo "2, {card}";; esac
"""


@pytest.mark.parametrize(
    ("card", "driver", "is_limited"),
    [
        ("NVIDIA GeForce RTX 4090", "535.183.01", True),
        ("NVIDIA GeForce RTX 4090", "560.35.03", False),
        ("NVIDIA H100", "535.0", False),
    ],
)
def test_cards_that_cannot_speak_to_each_other_are_told_so_before_accelerate_refuses(
    card: str, driver: str, is_limited: bool, new_bench: NewBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(_NVIDIA_SMI.format(card=card, driver=driver))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    for name in ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(runtime, "misfit", lambda _index: None)
    runtime.begin(new_bench().new_job(devices=["GPU-a", "GPU-b"]))
    assert (os.environ.get("NCCL_P2P_DISABLE"), os.environ.get("NCCL_IB_DISABLE")) == (("1", "1") if is_limited else (None, None))


def test_float32_is_float32_on_every_card(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    runtime.begin(new_bench().new_job())
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_step_is_taken_by_deterministic_kernels_alone_or_the_log_says_that_it_cannot() -> None:
    """As on a GPU: where torch only warns, attention's backward pass is not the same each time."""
    told, strict = list[str](), list[bool]()

    def first(error: str) -> Callable[[], None]:
        def step() -> None:
            strict.append(not torch.is_deterministic_algorithms_warn_only_enabled())
            if error and strict[-1]:
                raise RuntimeError(error)

        return step

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        runtime.exactly(first(""), told.append)
        assert (strict, told) == ([True], [])
        assert not torch.is_deterministic_algorithms_warn_only_enabled(), "and so are all steps after it"
        with runtime.loosely():
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        runtime.exactly(first("cumsum_cuda_kernel does not have a deterministic implementation"), told.append)
        assert (strict, torch.is_deterministic_algorithms_warn_only_enabled()) == ([True, True, False], True)
        assert "a resume is not exact: cumsum_cuda_kernel" in told[0]
        with pytest.raises(RuntimeError, match="illegal"):
            runtime.exactly(first("CUDA error: an illegal memory access"), told.append)
    finally:
        torch.use_deterministic_algorithms(True)


class Telling(Reporter):
    def __init__(self) -> None:
        super().__init__(None)
        self.told: list[dict[str, Any]] = []

    def progress(self, phase: Phase | None = None, **what: Any) -> None:
        self.told.append(what)


@pytest.mark.parametrize("is_deterministic", [True, False])
def test_deterministic_kernels_can_be_let_go_and_every_checkpoint_then_says_so(
    is_deterministic: bool, new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: a meter in place of one has the first step taken there."""
    strict, told = list[tuple[bool, bool]](), Telling()

    def probed(_run: object, _meter: object) -> None:
        strict.append((torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()))
        with runtime.loosely():
            assert torch.are_deterministic_algorithms_enabled()

    monkeypatch.setattr(probe, "meter_of", lambda _device: object())
    monkeypatch.setattr(probe, "probe_and_tell", probed)
    monkeypatch.setattr(life, "has_its_parent", lambda: True)
    bench = new_bench(hardware__deterministic=is_deterministic, train__steps=2)
    try:
        assert run_job(bench.new_job(), told, life.StopFlag()) == TrainerExit.DONE
        assert strict == [(is_deterministic, False)]
        assert torch.are_deterministic_algorithms_enabled() == is_deterministic, "drawing and drawing again does not change it"
    finally:
        torch.use_deterministic_algorithms(True)
    since = None if is_deterministic else 0
    assert [line["inexact_since"] for line in told.told if "inexact_since" in line] == ([] if is_deterministic else [0])
    counters = json.loads((bench.folder.checkpoints / bench.checkpoints()[0] / "counters.json").read_bytes())
    assert counters["inexact_since"] == since
    assert any("not exact by bytes" in line.get("note", "") for line in told.told) != is_deterministic


L40S = (48_305_799_168, 47_677_177_856)  # bytes by the driver, and by torch, which leaves out what the driver reserves


def test_the_base_is_held_as_it_was_planned_by_the_drivers_own_count(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(total_memory=L40S[1]))
    job = new_bench().new_job(devices=["GPU-a"], card_memory=L40S[0])
    assert runtime.own_card(job, torch.device("cuda")) == L40S[0]
    assert runtime.own_card(new_bench().new_job(devices=["GPU-a"]), torch.device("cuda")) == L40S[1]
    assert runtime.own_card(job, torch.device("cpu")) is None


UNLIKE = """
import os, sys
from fluxtui.engine.trainer import prepare, runtime
from fluxtui.engine.memory import base
rank = int(os.environ["RANK"])
runtime.own_card = lambda job, device: (85_520_809_984, 25_757_220_864)[rank]
prepare.note_first_step = lambda *_: None
held_on = base.held_on
def told(spec, card):
    held = held_on(spec, card)
    print(f"rank {rank} holds {held.precision} for {card}", flush=True)
    return held
base.held_on = told
from fluxtui.engine.__main__ import main
sys.exit(main(["train"]))
"""


def test_ranks_on_unlike_cards_hold_the_same_base_that_the_smallest_has_room_for(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=1)
    bench.spec = msgspec.structs.replace(bench.spec, kind="flux1")
    ended = bench.train(ranks=2, arguments=("-c", UNLIKE))
    assert ended.code == 0, ended.log
    for rank in (0, 1):
        assert f"rank {rank} holds int8 for 25757220864" in ended.log


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_allocators_segments_grow_unless_the_user_set_it_otherwise(name: str) -> None:
    plain, own = {"HOME": "/"}, {name: "max_split_size_mb:256"}
    let_segments_grow(plain)
    let_segments_grow(own)
    assert plain[name] == "expandable_segments:True"
    assert own == {name: "max_split_size_mb:256"}
