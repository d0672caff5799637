"""The step before the first: measured without a trace, both numbers in the record and in the plan, or the change that helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import pytest
import torch

from fluxtui.engine import plan, wire
from fluxtui.engine.memory.model import model_of
from fluxtui.engine.memory.peak_bytes import LiveBytes
from fluxtui.engine.memory.phases import memory_of
from fluxtui.engine.memory.probe import Meter, meter_of, probe, probe_and_tell
from fluxtui.engine.trainer.data.dataset import plan_epoch, steps_per_epoch
from fluxtui.engine.trainer.exit_reason import ending_of
from fluxtui.engine.trainer.loop import train
from fluxtui.engine.trainer.prepare import _thin_batches
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.run import Run
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.files import toml
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]


@dataclass
class Counting:
    """A meter for the CPU: what operations made since `reset`, as torch's dispatcher sees it."""

    live: LiveBytes
    name: str = "a CPU that counts"

    def reset(self) -> None:
        self.live.peak = self.live.live

    def peak(self) -> int:
        return self.live.peak


@dataclass
class Raising:
    """A GPU whose memory runs out in the middle of the step."""

    name: str = "a small GPU"

    def reset(self) -> None:
        pass

    def peak(self) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory.")


class Said(Reporter):
    """A reporter whose lines are kept."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[wire.ProgressLine] = []

    def progress(self, phase: object = None, **what: object) -> None:
        self.lines.append(msgspec.convert({"phase": phase, **what}, wire.ProgressLine))


def probed(run: Run) -> wire.ProgressLine:
    """The line with the footprint, of a probe of this run."""
    run.reporter = Said()
    with LiveBytes() as live:
        probe_and_tell(run, Counting(live))
    (line,) = [line for line in run.reporter.lines if line.memory]
    return line


@pytest.mark.parametrize(
    "sets",
    [{"lora__dropout": 0.1, "dataset__caption_dropout": 0.3}, {"train__gradient_accumulation": 2, "train__batch_size": 1},
     {"train__clip_learning_rate": 1e-4, "train__ema_decay": 0.9}],
    ids=["dropout", "accumulated", "clip"],
)  # fmt: skip
def test_a_run_that_was_probed_makes_the_same_bytes(new_bench: NewBench, sets: dict[str, object]) -> None:
    plain, looked_at = new_bench("plain", train__steps=3, **sets), new_bench("probed", train__steps=3, **sets)
    plain.run_here()
    run = looked_at.prepare_here()
    before = run.adapter.place.step, run.adapter.place.slots
    line = probed(run)
    assert (run.adapter.place.step, run.adapter.place.slots) == before
    assert all(parameter.grad is None for parameter in run.parameters)
    assert not run.optimizer.state
    assert line.memory is not None
    train(run)
    assert looked_at.result().tensors_sha256 == plain.result().tensors_sha256


def test_the_optimizers_state_counts_whether_or_not_it_is_there(new_bench: NewBench) -> None:
    run = new_bench(train__steps=4).prepare_here()
    with LiveBytes() as live:
        first = probe(run, Counting(live), 10**9)
        assert first.peak > 10**9
        assert first.seconds > 0
    train(run)
    with LiveBytes() as live:
        assert probe(run, Counting(live), 10**9).peak < 10**9


def test_what_lay_there_before_does_not_count_and_the_largest_bucket_does(new_bench: NewBench) -> None:
    small = new_bench("small", dataset__resolution=[32]).prepare_here()
    large = new_bench("large", dataset__resolution=[32, 64]).prepare_here()
    peaks = []
    for run in (small, large):
        with LiveBytes() as live:
            encoders = torch.empty(10**8, dtype=torch.uint8) + 1  # T5, that was there and went
            del encoders
            assert live.peak >= 10**8
            peaks.append(probe(run, Counting(live), 0).peak)
    assert 10**5 < peaks[0] < 0.8 * peaks[1] < 10**8


def test_a_rank_that_no_batch_of_the_epoch_reaches_measures_what_the_others_do(new_bench: NewBench) -> None:
    """Eight GPUs and five pictures in buckets of their own: the last ranks have no sample in any step."""
    run = new_bench(train__batch_size=1, train__gradient_accumulation=1).prepare_here()
    batches = plan_epoch(run.dataset, run.job.spec.train, 0, 8)
    assert not any(slots for batch in batches for slots in batch.micro_batches(1, 8, 7))
    peaks = []
    for rank in (0, 7):
        run.runtime = replace(run.runtime, rank=rank, ranks=8)
        with LiveBytes() as live:
            peaks.append(probe(run, Counting(live), 0).peak)
    assert peaks[0] == peaks[1] > 10**5


def test_gpus_that_find_too_few_pictures_of_one_shape_are_told(new_bench: NewBench) -> None:
    run = new_bench(train__batch_size=1, train__gradient_accumulation=1).prepare_here()
    train_spec = run.job.spec.train

    def told(ranks: int) -> str:
        return _thin_batches(run.dataset, train_spec, ranks, steps_per_epoch(run.dataset, train_spec, ranks))

    assert told(1) == ""
    uses = sum(1 for _ in run.dataset.uses())
    assert f"on average {uses / steps_per_epoch(run.dataset, train_spec, 8):.1f} of the 8 places" in told(8)


def test_both_numbers_stand_in_the_record_and_in_the_plan(new_bench: NewBench, capsys: pytest.CaptureFixture[str]) -> None:
    bench = new_bench()
    run = bench.prepare_here()
    line = probed(run)
    model = model_of(run.components.folder, is_schnell=False)
    assert line.memory is not None
    assert line.memory.planned == memory_of(bench.spec, model, None).training_peak
    assert line.memory.card == "a CPU that counts"
    assert msgspec.json.decode(wire.encode(line), type=wire.ProgressLine).memory == line.memory
    record = bench.write_record()
    toml.write(bench.folder.attempt_file(bench.attempt), msgspec.structs.replace(record, memory=line.memory))
    capsys.readouterr()
    assert plan.main(["--home", str(bench.root), "--session", "little", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["training_peak"] == found["probed_training_peak"] == line.memory.probed
    assert found["planned_training_peak"] == line.memory.planned
    assert plan.main(["--home", str(bench.root), "--session", "little"]) == 0
    said = capsys.readouterr().out
    assert "training, as planned" in said
    assert "training, as a step on the GPU took it" in said


@pytest.mark.parametrize("card", [None, 24 * 10**9])
def test_memory_that_runs_out_in_the_probe_ends_with_its_code_and_what_to_change(new_bench: NewBench, card: int | None) -> None:
    run = new_bench().prepare_here()
    run.runtime = replace(run.runtime, card=card)
    meter: Meter = Raising()
    with pytest.raises(Exception, match="does not fit the GPU") as ended:
        probe_and_tell(run, meter)
    ending = ending_of(ended.value)
    assert ending.code == TrainerExit.GPU_MEMORY
    of_all = ("hardware.stream_blocks", "train.batch_size=1", "model.precision")
    in_order = of_all if card is None else ("set train.gradient_checkpointing=true",)
    places = [ending.remedy.find(word) for word in in_order]
    assert places == sorted(places)
    assert places[0] >= 0
    assert all(parameter.grad is None for parameter in run.parameters)


def test_nothing_is_probed_where_no_gpu_is() -> None:
    assert meter_of(torch.device("cpu")) is None
