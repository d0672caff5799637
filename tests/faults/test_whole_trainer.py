"""A sample of the sweeps over the whole trainer (faults 1 and 3): torch, the pico model, real pictures. make soak strikes all.

The points are those of the calls that change something; of writes and opens, of which there are thousands, a drawn sample.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.demo import PICO_DIR
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.checkpoints import commit
from tests.faults import whole
from tests.trainer.job import Bench, small_spec
from tests.trainer.tiny_flux import little_pictures

pytestmark = [pytest.mark.root, pytest.mark.timeout(7200)]
SOAK = bool(os.environ.get("FLUXTUI_SOAK"))
SETS = {"train__steps": 12, "checkpoint__every_steps": 4, "checkpoint__keep": 2, "lora__rank": 2}
IN_CI = [("fsync", "SIGKILL", 3), ("rename", "EIO", 1), ("fsync", "ENOSPC", 2)]


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: Callable[[str], str]) -> Callable[[str], Bench]:
    """`new("name")`: another session of one home, which shares the caches of the others."""
    needs("strace")
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))
    pictures = little_pictures(tmp_path / "pictures", count=3)
    return lambda name: Bench(tmp_path / "home", small_spec(Path(PICO_DIR), pictures, name, **SETS))


def test_a_fault_at_a_call_of_the_whole_trainer_tears_nothing_and_a_resume_is_exact(
    new: Callable[[str], Bench], record_property: Callable[[str, object], None]
) -> None:
    reference = new("reference")  # fills the caches too
    points = whole.survey(reference)
    wanted = reference.result().tensors_sha256
    chosen, count = _all(points) if SOAK else IN_CI, 0
    for index, (call, fault, number) in enumerate(chosen):
        bench = new(f"s{index}")
        struck = whole.strike(bench, call, fault, number)
        where = f"{fault} at {call} {number} of {points[call]}"
        if not struck.has(call, fault):
            assert SOAK, f"{where} did not happen: {struck.code}"  # of a thread that is sometimes not begun
            continue
        count += 1
        for name in bench.checkpoints():
            commit.verify_checkpoint(bench.folder.checkpoints / name)
        if fault == "SIGKILL":
            assert struck.code == -9, where
        elif call not in ("write", "openat"):  # those also go to the log, to caches and to libraries, which may do without
            assert struck.code == TrainerExit.STORAGE, f"{where}: {struck.code}\n{struck.log}"
        elif struck.code == TrainerExit.DONE:
            assert bench.result().tensors_sha256 == wanted, where
        ended = bench.train()
        assert ended.code == TrainerExit.DONE, f"after {where}: {ended.log}"
        assert bench.result().tensors_sha256 == wanted, f"after {where} the bytes differ"
        assert not [name for name in os.listdir(bench.folder.checkpoints) if name.startswith(".tmp-")], where
    record_property("struck", f"{count} of {len(chosen)} points")
    assert count > len(chosen) * 0.9, "most points must strike, or this shows nothing"


def _all(points: dict[str, int]) -> list[tuple[str, str, int]]:
    rng = random.Random(1)
    found = []
    for call, count in sorted(points.items()):
        numbers = range(1, count + 1) if count <= 80 else sorted(rng.sample(range(1, count + 1), 30))
        found += [(call, fault, number) for fault in ("SIGKILL", "ENOSPC", "EIO") for number in numbers]
    return found
