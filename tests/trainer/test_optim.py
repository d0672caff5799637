"""Every optimizer resumes exactly, averages are beside the weights and never instead of them, losses are what they say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fluxtui.engine import quiet
from fluxtui.engine.trainer import lion
from fluxtui.engine.trainer.adapter.ema import Ema
from fluxtui.engine.trainer.checkpoint import state as states
from fluxtui.engine.trainer.checkpoint.state import from_safetensors
from fluxtui.engine.trainer.objective import penalty_of
from fluxtui.engine.trainer.optim import Group, evaluated, new_optimizer, step_if_finite
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist import metrics
from fluxtui.persist.checkpoints.commit import remove_checkpoint
from fluxtui.persist.settings.spec import TrainSpec
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
LIBRARIES = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt", "schedule_free": "schedulefree"}
RATES = {"prodigy": 1.0}


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "adafactor", "lion", "prodigy", "schedule_free"])
def test_a_resume_is_exact_with_every_optimizer_and_its_averages(new_bench: NewBench, optimizer: str) -> None:
    if optimizer in LIBRARIES:
        quiet.let(LIBRARIES[optimizer])
        pytest.importorskip(LIBRARIES[optimizer], reason="pip install 'fluxtui[optimizers,bitsandbytes]'")
    rank = 128 if optimizer == "adamw8bit" else 4  # what has less than 4096 numbers it keeps in 32 bits
    bench = new_bench(
        lora__rank=rank, lora__alpha=float(rank), train__optimizer=optimizer,
        train__learning_rate=RATES.get(optimizer, 1e-3), train__ema_decay=0.5, train__scheduler="constant",
        train__lora_plus=1.0 if optimizer == "prodigy" else 4.0,
        checkpoint__every_steps=4, validate__images=1, validate__every_epochs=1,
    )  # fmt: skip
    bench.run_here()
    last = bench.folder.checkpoints / "step-000000008"
    first = {path.name: path.read_bytes() for path in last.iterdir()}
    product = bench.result().tensors_sha256
    assert states.EMA_FILE in first
    held = {tensor.dtype for tensor in from_safetensors(last / states.OPTIMIZER_FILE).values()}
    assert (torch.uint8 in held) == (optimizer == "adamw8bit")
    assert (states.EVALUATED_FILE in first) == (optimizer == "schedule_free")
    remove_checkpoint(bench.folder.checkpoints, last.name)
    bench.run_here()
    assert bench.result().tensors_sha256 == product
    for name in set(first) - {"MANIFEST"}:
        assert (last / name).read_bytes() == first[name], name


def test_averages_are_those_of_their_formula_and_do_not_change_the_weights(new_bench: NewBench) -> None:
    plain, averaged = new_bench("plain", train__steps=2), new_bench("averaged", train__steps=2, train__ema_decay=0.75)
    plain.run_here()
    run = averaged.prepare_here()
    from fluxtui.engine.trainer.loop import train

    history = [{name: value.clone() for name, value in run.ema.shadow.items()}]
    run.optimizer.register_step_post_hook(
        lambda *_: history.append({name: value.detach().clone() for name, value in run.ema.parameters.items()})
    )
    train(run)
    first, second = 2 / 11, 3 / 12  # not yet 0.75
    expected = {
        name: second * (first * history[0][name] + (1 - first) * history[1][name]) + (1 - second) * history[2][name]
        for name in history[0]
    }
    saved = from_safetensors(averaged.folder.checkpoints / "step-000000002" / states.EMA_FILE)
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-8)
    assert averaged.result().tensors_sha256 == plain.result().tensors_sha256


@pytest.mark.parametrize("optimizer", ["adamw", "prodigy", "schedule_free"])
def test_the_rate_that_is_told_is_the_one_that_moves_the_weights(new_bench: NewBench, optimizer: str) -> None:
    """Without decay, and where a gradient is not tiny, Adam's first step is as long as the rate, whatever the gradient.

    Prodigy's is (1 - beta1) / sqrt(1 - beta2) of it: its averages are not corrected for their beginning at zero.
    """
    if optimizer in LIBRARIES:
        pytest.importorskip(LIBRARIES[optimizer], reason="pip install 'fluxtui[optimizers]'")
    bench = new_bench(
        train__optimizer=optimizer, train__steps=5, train__learning_rate=RATES.get(optimizer, 1e-3), train__weight_decay=0.0,
        train__scheduler="constant" if optimizer == "schedule_free" else "constant_with_warmup", train__warmup_steps=4,
        train__max_grad_norm=0.0, checkpoint__every_steps=1, checkpoint__keep=9,
    )  # fmt: skip
    bench.run_here()
    told = [metric.learning_rate for metric in metrics.read_all(bench.folder.metrics_file)]
    moved = from_safetensors(bench.folder.checkpoints / "step-000000001" / states.ADAPTER_FILE)
    longest = max(float(tensor.abs().max()) for name, tensor in moved.items() if name.endswith("lora_B"))
    assert longest == pytest.approx(told[0] * (0.1 / 0.001**0.5 if optimizer == "prodigy" else 1.0), rel=0.05)
    assert len(told) == 5
    expected = {"adamw": [0.125, 0.375, 0.625, 0.875, 1.0], "schedule_free": [0.25, 0.5, 0.75, 1.0, 1.0]}
    if optimizer in expected:
        assert told == pytest.approx([1e-3 * share for share in expected[optimizer]])
    else:
        assert told[-1] < 0.1  # not 1, which is a factor on what it finds


def test_averages_beside_schedule_free_are_of_the_weights_that_it_is_evaluated_at(new_bench: NewBench) -> None:
    pytest.importorskip("schedulefree", reason="pip install 'fluxtui[optimizers]'")
    from fluxtui.engine.trainer.loop import advance

    free = {"train__optimizer": "schedule_free", "train__scheduler": "constant", "train__steps": 3}
    plain, averaged = new_bench("plain", **free), new_bench("averaged", train__ema_decay=0.5, **free)
    plain.run_here()
    run = averaged.prepare_here()
    expected = {name: value.clone() for name, value in run.ema.shadow.items()}
    for step in range(1, 4):
        advance(run, step)
        decay = min(0.5, (1 + step) / (10 + step))
        with evaluated(run.optimizer, run.parameters):
            expected = {name: decay * expected[name] + (1 - decay) * value for name, value in run.ema.parameters.items()}
    for name, value in expected.items():
        torch.testing.assert_close(run.ema.shadow[name], value.detach(), rtol=1e-5, atol=1e-8)
    run.commit()
    trained = [(bench.folder.checkpoints / "step-000000003" / states.ADAPTER_FILE).read_bytes() for bench in (plain, averaged)]
    assert trained[0] == trained[1]


def test_averages_of_a_short_run_are_of_trained_weights() -> None:
    """With a decay whose reach is ten times the run's length, B (which begins at zero) would stay at a tenth of its size."""
    weight = torch.nn.Parameter(torch.zeros(3))
    slow, quick = Ema(0.9999, {"w": weight}), Ema(0.9, {"w": weight})
    for step in range(1, 1001):
        with torch.no_grad():
            weight.fill_(1.0 if step > 100 else 0.0)
        slow.update(step)
        quick.update(step)
    assert slow.shadow["w"].min() > 0.99
    torch.testing.assert_close(quick.shadow["w"], weight.detach())
    with torch.no_grad():
        weight.zero_()
    quick.update(1001)
    torch.testing.assert_close(quick.shadow["w"], torch.full((3,), 0.9))


def test_looking_at_schedule_free_weights_gives_the_training_ones_back_bit_for_bit() -> None:
    pytest.importorskip("schedulefree", reason="pip install 'fluxtui[optimizers]'")
    weight = torch.nn.Parameter(torch.randn(7, 5, generator=torch.Generator().manual_seed(1)))
    optimizer = new_optimizer([Group(1.0, {"w": weight})], TrainSpec(optimizer="schedule_free", learning_rate=0.1))
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    before = weight.detach().clone()
    with evaluated(optimizer, [weight]):
        assert not torch.equal(weight, before)
    assert torch.equal(weight, before)
    weight.grad = torch.ones_like(weight)
    optimizer.step()


def test_a_step_that_could_be_left_out_has_the_bytes_of_a_plain_one() -> None:
    ended = []
    for is_plain in (True, False):
        named = {name: torch.nn.Parameter(torch.linspace(-1.0, 1.0, size)) for name, size in (("a", 37), ("b", 4096))}
        optimizer = new_optimizer([Group(1.0, named)], TrainSpec(optimizer="adamw", learning_rate=0.01))
        assert optimizer._step_supports_amp_scaling, "torch no longer says which optimizers can leave out a step"
        for step in range(3):
            for parameter in named.values():
                parameter.grad = torch.sin(parameter.detach() * (7.0 + step))
            if is_plain:
                optimizer.step()
            else:
                assert step_if_finite(optimizer, torch.tensor([1.0, 2.0])) == [1.0, 2.0]
        ended.append([*named.values(), *(value for state in optimizer.state.values() for value in state.values())])
    assert len(ended[0]) == 2 + 2 * 3
    assert all(torch.equal(one, other) for one, other in zip(*ended, strict=True))


@pytest.mark.parametrize("at_once", [1, 5000, 2**30])
@pytest.mark.parametrize("how", [{}, {"betas": [0.8, 0.97]}], ids=str)
def test_our_lion_steps_bit_for_bit_as_its_authors_port(
    monkeypatch: pytest.MonkeyPatch, at_once: int, how: dict[str, Any]
) -> None:
    """Whatever it does at once; a parameter without a gradient stays."""
    theirs = pytest.importorskip("lion_pytorch", reason="pip install lion-pytorch").Lion
    monkeypatch.setattr(lion, "AT_ONCE", at_once)
    train = TrainSpec(optimizer="lion", learning_rate=3e-3, weight_decay=0.1, **how)
    ended = []
    for is_ours in (True, False):
        own, of_clip = ({n: torch.nn.Parameter(torch.linspace(-0.1, 0.1, size)) for n, size in sizes} for sizes in
                        ([("a", 1000), ("b", 64), ("c", 2000), ("idle", 9)], [("d", 300)]))
        groups = [Group(1.0, own), Group(1.0, of_clip, decays=False)]
        named = {"lr": 3e-3, "weight_decay": 0.1} | ({"betas": tuple(how["betas"])} if how else {})
        held = [{"params": list(own.values())}, {"params": list(of_clip.values()), "weight_decay": 0.0}]
        optimizer = new_optimizer(groups, train) if is_ours else theirs(held, **named)
        for step in range(4):
            optimizer.param_groups[1]["lr"] = 1e-3 * (step + 1)
            for number, parameter in enumerate([*list(own.values())[:3], *of_clip.values()]):
                parameter.grad = torch.sin(parameter.detach() * (1e3 + step) + number)
            optimizer.step()
        ended.append(([*own.values(), *of_clip.values()], optimizer.state_dict()))
    assert all(torch.equal(one, other) for one, other in zip(ended[0][0], ended[1][0], strict=True))
    (state, groups_of_ours), (expected, of_theirs) = ((made["state"], made["param_groups"]) for _, made in ended)
    assert {group["weight_decay"] for group in groups_of_ours} == {group["weight_decay"] for group in of_theirs}
    assert state.keys() == expected.keys() == {0, 1, 2, 4}
    assert all(torch.equal(state[key]["exp_avg"], expected[key]["exp_avg"]) for key in state)


@pytest.mark.parametrize("optimizer", ["adamw8bit", "prodigy", "schedule_free"])
def test_a_library_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch, optimizer: Any) -> None:
    for module in (*LIBRARIES.values(), "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Refusal, match="is not installed") as refused:
        new_optimizer([Group(1.0, {"w": torch.nn.Parameter(torch.zeros(2))})], TrainSpec(optimizer=optimizer))
    assert "pip install 'fluxtui[" in refused.value.remedy


def test_losses_are_their_closed_forms() -> None:
    error = torch.tensor([-3.0, -0.05, 0.0, 0.1, 2.0])

    def cost(**train: Any) -> list[float]:
        return penalty_of(TrainSpec(**train))(error).tolist()

    assert cost() == (error**2).tolist()
    assert cost(loss="l1") == error.abs().tolist()
    assert cost(loss="huber", loss_delta=0.5) == pytest.approx([0.5 * (3 - 0.25), 0.00125, 0, 0.005, 0.5 * (2 - 0.25)])
    assert cost(loss="pseudo_huber", loss_delta=0.5) == pytest.approx(
        [0.25 * ((1 + (e / 0.5) ** 2) ** 0.5 - 1) for e in error.tolist()], abs=1e-7
    )


@pytest.mark.parametrize("loss", ["l1", "huber", "pseudo_huber"])
def test_another_loss_trains_another_adapter(new_bench: NewBench, loss: str) -> None:
    other, plain = new_bench("other", train__loss=loss, train__steps=2), new_bench("plain", train__steps=2)
    other.run_here()
    plain.run_here()
    assert other.result().tensors_sha256 != plain.result().tensors_sha256
