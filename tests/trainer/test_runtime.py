"""What a rank sets before anything is computed: kernels that are the same everywhere, and what accelerate wants to be told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fluxtui.engine.trainer import runtime
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
