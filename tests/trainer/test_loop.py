"""The loop: splits that must not matter, looks that must not disturb, ends that must be told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch

from fluxtui.engine.trainer.checkpoint.committer import Committer
from fluxtui.engine.trainer.exit_reason import NonFiniteError
from fluxtui.engine.trainer.loop import advance, take_step, train
from fluxtui.engine.trainer.optim import schedule
from fluxtui.engine.trainer.run import Run
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist import metrics
from fluxtui.persist.checkpoints.commit import remove_checkpoint
from fluxtui.persist.settings.spec import TrainSpec
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.adapter.named_parameters()}


def closest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference of two adapters, relative to the largest weight."""
    scale = max(tensor.abs().max().item() for tensor in a.values())
    return max((a[name] - b[name]).abs().max().item() for name in a) / scale


def gradient_of_first_step(bench: Bench) -> tuple[dict[str, torch.Tensor], float]:
    """Gradient and loss of the first global batch, left as `take_step` sums them."""
    run = bench.prepare_here()
    with torch.no_grad():
        for number, parameter in enumerate(run.parameters):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    batches = [batch for batch in run.plan(0) if len(batch.slots) == 4]
    run._stream = run.encoded.batches(batches[0].micro_batches(run.job.spec.train.batch_size))
    found: dict[str, torch.Tensor] = {}
    run.optimizer.register_step_pre_hook(
        lambda *_: found.update({name: parameter.grad.clone() for name, parameter in run.adapter.named_parameters()})
    )
    took = take_step(run, batches[0])
    return found, took.loss


def test_four_micro_steps_of_one_are_a_batch_of_four(new_bench: NewBench) -> None:
    whole, loss = gradient_of_first_step(new_bench("whole", train__batch_size=4, train__max_grad_norm=0.0))
    split, split_loss = gradient_of_first_step(
        new_bench("split", train__batch_size=1, train__gradient_accumulation=4, train__max_grad_norm=0.0)
    )
    assert loss == pytest.approx(split_loss, rel=1e-6)
    assert closest(whole, split) < 1e-5


def test_two_ranks_of_one_are_one_rank_of_two_and_two_micro_steps(new_bench: NewBench) -> None:
    ended = [
        (
            bench := new_bench(
                name, train__batch_size=size, train__gradient_accumulation=steps, train__steps=6, checkpoint__every_steps=3,
                lora__rank_dropout=0.3, lora__module_dropout=0.3,
            ),
            bench.train(ranks),
        )[0]
        for name, size, steps, ranks in (("one", 2, 1, 1), ("ranks", 1, 1, 2), ("micro", 1, 2, 1))
    ]
    losses = [[metric.loss for metric in metrics.read_all(bench.folder.metrics_file)] for bench in ended]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)
    assert ended[1].checkpoints() == ended[0].checkpoints() == ["step-000000003", "step-000000006"]
    product = ended[1].result().tensors_sha256
    remove_checkpoint(ended[1].folder.checkpoints, "step-000000006")
    again = ended[1].train(ranks=2)
    assert {line.resumed_from for line in again.lines} == {"", "step-000000003"}, again.log
    assert ended[1].result().tensors_sha256 == product


def test_looking_changes_nothing_and_the_seed_does(new_bench: NewBench) -> None:
    plain = new_bench("plain", validate__images=1)
    looked = new_bench(
        "looked", validate__images=1, validate__every_epochs=1, sample__prompts=["a [trigger] square"], sample__at_start=True,
        sample__every_epochs=1, sample__steps=2, sample__width=64, sample__height=64,
    )  # fmt: skip
    other = new_bench("other", validate__images=1, train__seed=43)
    unlooked_seed = msgspec.structs.replace(looked.spec, validate=plain.spec.validate)
    assert unlooked_seed.train == plain.spec.train
    for bench in (plain, looked, other):
        bench.run_here()
    assert len(list(looked.folder.samples.glob("step-*/00.png"))) >= 3
    seen = metrics.read_all(looked.folder.metrics_file)
    assert (seen[0].step, seen[0].loss, bool(seen[0].validation_loss)) == (0, None, True)  # before anything was trained
    assert any(m.validation_loss for m in seen[1:])
    assert seen[0].validation_loss != seen[-1].validation_loss
    assert looked.result().tensors_sha256 == plain.result().tensors_sha256
    assert other.result().tensors_sha256 != plain.result().tensors_sha256


def test_validation_called_twice_is_the_same_and_sees_only_the_adapter(new_bench: NewBench) -> None:
    run = new_bench(validate__images=2, lora__dropout=0.3).run_here()
    first = run.validation_loss()
    torch.manual_seed(1)
    assert run.validation_loss() == first
    with torch.no_grad():
        run.parameters[1].add_(1.0)
    assert run.validation_loss() != first


def test_a_stop_after_the_epoch_that_is_the_last_lets_the_run_complete(new_bench: NewBench) -> None:
    run = new_bench("last", train__steps=0, train__epochs=2).prepare_here()
    run.requests._after_epoch = True
    assert train(run) is TrainerExit.STOPPED
    assert run.state.step == run.steps_per_epoch
    run.close()
    last = new_bench("only", train__steps=0, train__epochs=1).prepare_here()
    last.requests._after_epoch = True
    assert train(last) is TrainerExit.DONE
    last.close()


def test_what_was_trained_is_saved_before_minutes_go_into_samples(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_bench("order", train__steps=3, checkpoint__every_steps=2, sample__every_steps=2).prepare_here()
    order: list[str] = []
    monkeypatch.setattr(Committer, "commit", lambda self, state: order.append(f"commit {state.step}"))
    monkeypatch.setattr(Run, "draw", lambda self, is_last=False: order.append(f"draw {self.state.step}"))
    assert advance(run, 3)
    assert order == ["commit 2", "draw 2"]
    run.close()


@pytest.mark.parametrize("broken", ["loss", "weights"])
def test_what_is_not_finite_is_never_committed(new_bench: NewBench, broken: str) -> None:
    bench = new_bench(checkpoint__every_steps=2)
    run = bench.prepare_here()
    predict = run.predict

    def broken_at_step_six(*inputs: torch.Tensor) -> torch.Tensor:
        if run.state.step == 5 and broken == "weights":
            with torch.no_grad():
                run.parameters[0][0, 0] = math.nan
        predicted = predict(*inputs)
        return predicted * math.inf if run.state.step == 5 and broken == "loss" else predicted

    run.predict = broken_at_step_six
    with pytest.raises(NonFiniteError, match="step 6"):
        train(run)
    run.close()  # the checkpoint of step 4 may still be being written
    assert bench.checkpoints() == ["step-000000002", "step-000000004"]
    assert not bench.folder.product.exists()
    assert not bench.folder.result_file.exists()


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion"])
@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_is_not_finite_leaves_all_as_it_was(new_bench: NewBench, optimizer: str, broken: str) -> None:
    """Also where the optimizer was given the step before the host knew."""
    run = new_bench(train__optimizer=optimizer, train__ema_decay=0.9, lora__max_norm=1e-6).prepare_here()
    batches = run.plan(0)
    take_step(run, batches[0])
    run.state.step = 1

    def all_of_it() -> list[torch.Tensor]:
        held = [value for state in run.optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
        return [value.detach().clone() for value in (*run.parameters, *held, *run.ema.shadow.values())]

    before, predict = all_of_it(), run.predict
    if broken == "loss":
        run.predict = lambda *inputs: predict(*inputs) * math.inf
    else:
        run.parameters[1].register_hook(lambda gradient: torch.full_like(gradient, math.nan))
    with pytest.raises(NonFiniteError, match=f"the {broken} of step 2 is not finite"):
        take_step(run, batches[1])
    after = all_of_it()
    assert len(after) == len(before) > 2 * len(run.parameters)
    assert all(torch.equal(one, other) for one, other in zip(after, before, strict=True))
    run.close()


@pytest.mark.parametrize(("every", "begins_with"), [(1, " --checkpoint newest"), (0, "")])
def test_a_learning_rate_beyond_reason_ends_with_its_own_code(new_bench: NewBench, every: int, begins_with: str) -> None:
    bench = new_bench(
        train__learning_rate=1e9, train__scheduler="constant", checkpoint__every_steps=every, train__max_grad_norm=0.0
    )
    ended = bench.train()
    assert ended.code == 76, ended.log
    assert "finite" in ended.error
    assert bool(bench.checkpoints()) == bool(every)
    assert f"fluxtui new little-2 --from little{begins_with} --set train.learning_rate" in ended.log
    assert not bench.folder.result_file.exists()


@pytest.mark.parametrize(
    "name", ["constant_with_decay", "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
)
def test_a_schedule_is_a_function_of_the_step_and_wastes_none(name: Any) -> None:
    rate = schedule(TrainSpec(scheduler=name, warmup_steps=5, learning_rate=2e-3), steps=40)
    rates = [rate(step) for step in range(40)]
    assert [rate(step) for step in reversed(range(40))] == rates[::-1]
    assert all(0 < value <= 2e-3 for value in rates)
    assert max(rates) == pytest.approx(2e-3, rel=0.02)
    if name != "constant":
        assert rates[0] < rates[1] < rates[4]
    if name not in ("constant", "constant_with_warmup"):
        assert rates[-1] < 0.15 * 2e-3


def test_cosine_with_restarts_restarts() -> None:
    """Loshchilov and Hutter's (arXiv:1608.03983), read at the middle of each step: each cycle begins at the peak again."""
    train = TrainSpec(scheduler="cosine_with_restarts", scheduler_cycles=3, warmup_steps=10, learning_rate=1.0)
    rates = [schedule(train, steps=40)(step) for step in range(40)]
    assert rates[10:] == pytest.approx([0.5 * (1 + math.cos(math.pi * (step + 0.5) / 10)) for step in range(10)] * 3)
    once = [schedule(TrainSpec(scheduler="cosine_with_restarts", learning_rate=1.0), steps=40)(step) for step in range(40)]
    assert once == [schedule(TrainSpec(scheduler="cosine", learning_rate=1.0), steps=40)(step) for step in range(40)]


def test_constant_with_decay_is_what_it_says() -> None:
    rate = schedule(TrainSpec(learning_rate=1.0, warmup_steps=10, decay_share=0.2), steps=100)
    assert [rate(step) for step in (10, 40, 79)] == [1.0, 1.0, 1.0]
    assert rate(0) == pytest.approx(0.05)
    assert rate(89) == pytest.approx(0.525)
    assert rate(99) == pytest.approx(0.025)
