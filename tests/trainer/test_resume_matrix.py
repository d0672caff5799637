"""A run that was killed and resumed ends with the bytes of one that never was, whatever is switched on beside it.

Fourteen switches. Every pair of settings of two of them comes in CI (seven rows do it); `make soak` has all 256 of the first
eight, and all 64 of the others on a busy row of those.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxtui.engine.trainer.data.dataset import plan_epoch
from fluxtui.persist.checkpoints.commit import committed
from tests.trainer.job import Bench
from tests.trainer.tiny_flux import little_pictures

NewBench = Callable[..., Bench]
KILLED = str(Path(__file__).with_name("killed.py"))
SWITCHES = ("mid_epoch", "mid_accumulation", "dropout", "ema", "workers", "multi_resolution", "caption_dropout", "twice")
OTHERS = ("masks", "flip", "tags", "schedule_free", "class_word", "clip")
ALL = (*SWITCHES, *OTHERS)
# Each column is a word with four ones among six places behind a zero, no two the same: any two show 00, 01, 10 and 11 somewhere.
_COLUMNS = list(itertools.combinations(range(1, 7), 4))[: len(ALL)]
PAIRWISE = tuple("".join(str(int(place in column)) for column in _COLUMNS) for place in range(7))


def rows() -> list[str]:
    if os.environ.get("FLUXTUI_SOAK"):
        firsts = ["".join(row) + "0" * len(OTHERS) for row in itertools.product("01", repeat=len(SWITCHES))]
        return firsts + ["11110100" + "".join(row) for row in itertools.product("01", repeat=len(OTHERS))]
    return list(PAIRWISE)


def test_the_rows_cover_every_pair() -> None:
    for one, other in itertools.combinations(range(len(ALL)), 2):
        assert {(row[one], row[other]) for row in PAIRWISE} == set(itertools.product("01", repeat=2)), (one, other)


def sets_of(on: dict[str, bool], steps: int) -> dict[str, Any]:
    return {
        "train__steps": steps, "train__batch_size": 1, "train__gradient_accumulation": 2, "checkpoint__every_steps": 1,
        **{f"lora__{name}": 0.2 * on["dropout"] for name in ("dropout", "rank_dropout", "module_dropout")},
        "train__ema_decay": 0.9 * on["ema"], "hardware__workers": 2 * on["workers"],
        "dataset__resolution": [48, 64] if on["multi_resolution"] else [64],
        "dataset__caption_dropout": 0.3 * on["caption_dropout"],
        "dataset__masks": "masks" if on["masks"] else "", "dataset__flip": on["flip"],
        "dataset__shuffle_tags": 3 * on["tags"], "dataset__tag_dropout": 0.3 * on["tags"],
        "dataset__class_word": "square" if on["class_word"] else "",
        "train__clip_learning_rate": 5e-4 * on["clip"],
        **({"train__optimizer": "schedule_free", "train__scheduler": "constant"} if on["schedule_free"] else {}),
    }  # fmt: skip


def pictures(folder: Path) -> Path:
    """Six pictures with tags for captions, every other one with a mask."""
    little_pictures(folder, count=6)
    (folder / "masks").mkdir()
    for number in range(6):
        (folder / f"{number:02d}.txt").write_text(f"zorp, red, square, gray {number}, photo\n")
        if number % 2:
            Image.linear_gradient("L").resize((64, 64)).save(folder / "masks" / f"{number:02d}.png")
    return folder


def last_checkpoint(bench: Bench) -> dict[str, bytes]:
    """Adapter, optimizer and averages of the last step. (The counters name no attempt, the manifest does.)"""
    folder = bench.folder.checkpoints / committed(bench.folder.checkpoints)[-1]
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "MANIFEST"}


@pytest.mark.parametrize("row", rows())
def test_killed_and_resumed_is_never_interrupted(new_bench: NewBench, tmp_path: Path, row: str) -> None:
    on = dict(zip(ALL, (letter == "1" for letter in row), strict=True))
    if on["schedule_free"]:
        pytest.importorskip("schedulefree", reason="pip install 'fluxtui[optimizers]'")
    data = pictures(tmp_path / "six")
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
    assert ("evaluated.safetensors" in last_checkpoint(whole)) == on["schedule_free"]
    slots = [slot for epoch in range(9) for batch in plan_epoch(run.dataset, run.job.spec.train, epoch) for slot in batch.slots]
    assert any(slot.is_mirrored for slot in slots) == on["flip"]
    assert (len({slot.caption for slot in slots} - {""}) > 6) == on["tags"]
