"""A run that was killed and resumed ends with the bytes of one that never was, whatever is switched on beside it.

Eight switches. Every pair of settings of two of them comes in CI (six rows do it); `make soak` has all 256.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxtui.persist.commit import committed
from tests.trainer.job import Bench
from tests.trainer.tiny_flux import little_pictures

NewBench = Callable[..., Bench]
KILLED = str(Path(__file__).with_name("killed.py"))
SWITCHES = ("mid_epoch", "mid_accumulation", "dropout", "ema", "workers", "multi_resolution", "caption_dropout", "twice")
# Each column is a word with three ones behind a zero, no two the same: any two of them show 00, 01, 10 and 11 somewhere.
PAIRWISE = ("00000000", "00001111", "01110001", "10110110", "11011010", "11101101")


def rows() -> list[str]:
    if os.environ.get("FLUXTUI_SOAK"):
        return ["".join(row) for row in itertools.product("01", repeat=len(SWITCHES))]
    return list(PAIRWISE)


def test_the_rows_cover_every_pair() -> None:
    for one, other in itertools.combinations(range(len(SWITCHES)), 2):
        assert {(row[one], row[other]) for row in PAIRWISE} == set(itertools.product("01", repeat=2)), (one, other)


def sets_of(on: dict[str, bool], steps: int) -> dict[str, Any]:
    return {
        "train__steps": steps, "train__batch_size": 1, "train__gradient_accumulation": 2, "checkpoint__every_steps": 1,
        "lora__dropout": 0.2 * on["dropout"], "train__ema_decay": 0.9 * on["ema"], "hardware__workers": 2 * on["workers"],
        "dataset__resolution": [48, 64] if on["multi_resolution"] else [64],
        "dataset__caption_dropout": 0.3 * on["caption_dropout"],
    }  # fmt: skip


def last_checkpoint(bench: Bench) -> dict[str, bytes]:
    """Adapter, optimizer and averages of the last step. (The counters name no attempt, the manifest does.)"""
    folder = bench.folder.checkpoints / committed(bench.folder.checkpoints)[-1]
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "MANIFEST"}


@pytest.mark.parametrize("row", rows())
def test_killed_and_resumed_is_never_interrupted(new_bench: NewBench, tmp_path: Path, row: str) -> None:
    on = dict(zip(SWITCHES, (letter == "1" for letter in row), strict=True))
    data = little_pictures(tmp_path / "six", count=6)
    an_epoch = 6 if on["multi_resolution"] else 3
    kills = [an_epoch - (2 if on["mid_epoch"] else 0)]
    kills += [kills[0] + 2] if on["twice"] else []
    sets = sets_of(on, an_epoch + 3)
    whole, killed = new_bench("whole", data=data, **sets), new_bench("killed", data=data, **sets)
    whole.run_here()
    for step in kills:
        ended = killed.train(arguments=(KILLED,), environment={"KILL_AT": f"{step}:{int(on['mid_accumulation'])}"})
        assert ended.code == -signal.SIGKILL, ended.log
        assert committed(killed.folder.checkpoints)[-1] == f"step-{step:09}"
    run = killed.run_here()
    assert run.committer.job.attempt == len(kills) + 1
    assert killed.result().tensors_sha256 == whole.result().tensors_sha256
    assert last_checkpoint(killed) == last_checkpoint(whole)
    assert ("ema.safetensors" in last_checkpoint(whole)) == on["ema"]
