"""Every optimizer trains at the rate that it is given where the user sets none."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec
import pytest
import torch

from fluxtui.engine import quiet
from fluxtui.engine.trainer.adapter.lora import FactorLinear
from fluxtui.engine.trainer.optim import LIBRARY_OF, evaluated, groups_of, new_optimizer, schedule, too_long_a_warmup
from fluxtui.persist.errors import UsageError
from fluxtui.persist.settings import compatibility, defaults
from fluxtui.persist.settings.spec import Spec

OPTIMIZERS = ("adamw", "adamw8bit", "adafactor", "lion", "prodigy", "schedule_free")
STEPS = 500
LOSS_FALLS = 10.0  # times, at the least
AS_FAR = 3.0  # times as far as AdamW moves B, or a third of it, at the most
DOCS = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()


def spec_with(optimizer: str, kind: defaults.Kind = "flux1", recipe: str = "", **train: object) -> Spec:
    sets = {"train.optimizer": optimizer, "train.steps": STEPS} | {f"train.{key}": value for key, value in train.items()}
    return defaults.new_spec("a", "owner/flux", "/x", kind, 20, "ohwx", defaults.with_recipe(recipe, 20, sets))


@functools.cache
def trained(optimizer: str) -> tuple[float, float]:
    """How many times smaller the loss of a LoRA problem became, and how far B moved (root mean square).

    The layer is to learn an update of rank 4 such as some hundred steps of FLUX.1's rate can reach: entries of B near 0.01.
    """
    train = spec_with(optimizer).train
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(3))
    a, b = FactorLinear(256, 16), FactorLinear(16, 256)  # 4096 numbers: adamw8bit keeps them in 8 bits
    with torch.no_grad():
        a.weight.copy_(draw(16, 256) / 16)
        b.weight.zero_()
        meant = 0.01 * draw(256, 16)
    before = a.weight.detach().clone()
    groups = groups_of(train, {"layer.lora_A": a.weight, "layer.lora_B": b.weight})
    optimizer_made, rate = new_optimizer(groups, train), schedule(train, STEPS)

    def loss() -> torch.Tensor:
        inputs = draw(64, 256)
        return (b(a(inputs)) - inputs @ before.T @ meant.T).square().mean()

    first = loss().item()
    for step in range(STEPS):
        for group in optimizer_made.param_groups:
            group["lr"] = rate(step)
        loss().backward()
        torch.nn.utils.clip_grad_norm_([a.weight, b.weight], train.max_grad_norm)
        optimizer_made.step()
        optimizer_made.zero_grad()
    with evaluated(optimizer_made, [a.weight, b.weight]), torch.no_grad():
        return first / loss().item(), b.weight.square().mean().sqrt().item()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns_at_its_own_rate(optimizer: str) -> None:
    if optimizer in LIBRARY_OF:
        module = LIBRARY_OF[optimizer].replace("-", "_")
        quiet.let(module)
        pytest.importorskip(module, reason="pip install 'fluxtui[optimizers,bitsandbytes]'")
    (falls, moved), (_, usual) = trained(optimizer), trained("adamw")
    assert falls > LOSS_FALLS
    assert usual / AS_FAR < moved < usual * AS_FAR


def test_lora_plus_is_a_faster_b_and_nothing_else() -> None:
    a, b = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    clip_b = torch.nn.Parameter(torch.ones(2, 2))
    train = spec_with("adamw", lora_plus=16.0, clip_learning_rate=5e-5).train
    groups = groups_of(train, {"x.lora_A": a, "x.lora_B": b}, {"c.lora_B": clip_b})
    shares = {tuple(group.named): group.share for group in groups}
    assert shares == {("x.lora_A",): 1.0, ("x.lora_B",): 16.0, ("c.lora_B",): 8.0}
    (plain,) = groups_of(spec_with("adamw").train, {"x.lora_A": a, "x.lora_B": b})
    assert (list(plain.named), plain.share) == (["x.lora_A", "x.lora_B"], 1.0)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_weight_decay_leaves_the_rows_of_the_base_as_long_as_they_are(optimizer: str) -> None:
    """DoRA's magnitudes begin at the base's own rows: decayed with the factors, all of the base would fade."""
    named = {f"x.{part}": torch.nn.Parameter(torch.ones(4)) for part in ("lora_A", "lora_B", "magnitude")}
    train = spec_with(optimizer, weight_decay=0.5, lora_plus=2.0).train
    groups = groups_of(train, named)
    assert [list(group.named) for group in groups] == [["x.lora_A"], ["x.lora_B"], ["x.magnitude"]]
    made = new_optimizer(groups, train)
    for parameter in named.values():
        parameter.grad = torch.zeros(4)
    made.step()
    assert torch.equal(named["x.magnitude"], torch.ones(4))
    assert (named["x.lora_A"] < 1.0).all()


def test_settings_reach_the_optimizer() -> None:
    weight = {"x.lora_A": torch.nn.Parameter(torch.ones(2, 2))}

    def group_of(optimizer: str, **train: object) -> dict[str, object]:
        train_spec = spec_with(optimizer, **train).train
        return new_optimizer(groups_of(train_spec, weight), train_spec).param_groups[0]

    usual = group_of("adamw")
    assert (tuple(usual["betas"]), usual["eps"]) == ((0.9, 0.999), 1e-8)
    other = group_of("adamw", betas=[0.8, 0.95], eps=1e-6, weight_decay=0.1)
    assert (tuple(other["betas"]), other["eps"], other["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.1)
    adafactor = group_of("adafactor")
    assert (adafactor["scale_parameter"], adafactor["relative_step"], adafactor["warmup_init"]) == (False, False, False)
    pytest.importorskip("prodigyopt", reason="pip install 'fluxtui[optimizers]'")
    prodigy = group_of("prodigy", d_coef=2.0)
    assert (prodigy["d_coef"], prodigy["safeguard_warmup"]) == (2.0, True)
    pytest.importorskip("schedulefree", reason="pip install 'fluxtui[optimizers]'")
    assert group_of("schedule_free", warmup_steps=7)["warmup_steps"] == 7


def test_an_optimizer_brings_its_rate_and_schedule_unless_the_user_has_some() -> None:
    assert {name: spec_with(name).train.learning_rate for name in OPTIMIZERS} == {
        "adamw": 1e-4, "adamw8bit": 1e-4, "adafactor": 1e-4, "lion": 3e-5, "prodigy": 1.0, "schedule_free": 3e-4,
    }  # fmt: skip
    assert spec_with("lion", "pico").train.learning_rate == 9e-4
    assert spec_with("lion", recipe="fast").train.learning_rate == 1.2e-4
    assert spec_with("prodigy", recipe="fast").train.learning_rate == 1.0
    assert spec_with("prodigy", recipe="fast", learning_rate=0.5).train.learning_rate == 0.5
    assert spec_with("schedule_free").train.scheduler == "constant"
    assert spec_with("schedule_free", scheduler="cosine").train.scheduler == "cosine"
    for name in OPTIMIZERS:
        compatibility.check(spec_with(name))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_docs_give_the_rate_of_every_optimizer(optimizer: str) -> None:
    (row,) = [line for line in DOCS.splitlines() if line.startswith(f"| `{optimizer}` |")]
    assert float(row.split("|")[2]) == spec_with(optimizer).train.learning_rate


@pytest.mark.parametrize(
    ("optimizer", "train", "remedy"),
    [
        ("schedule_free", {"scheduler": "cosine"}, "set train.scheduler=constant"),
        ("prodigy", {"learning_rate": 1e-4}, "set train.learning_rate=1"),
        ("prodigy", {"clip_learning_rate": 5e-5}, "set train.clip_learning_rate=1"),
        ("prodigy", {"lora_plus": 16.0}, "set train.lora_plus=1"),
        ("adafactor", {"betas": [0.9, 0.99]}, r"set train.betas=\[\]"),
        ("lion", {"eps": 1e-6}, "set train.eps=0"),
        ("adamw", {"timestep_min": 0.5, "timestep_max": 0.5}, "set train.timestep_min below"),
        ("adamw", {"scheduler": "polynomial", "learning_rate": 1e-7}, "set train.learning_rate above that, or train.scheduler"),
    ],
)
def test_what_cannot_work_together_is_refused_with_what_to_set(optimizer: str, train: dict[str, object], remedy: str) -> None:
    with pytest.raises(UsageError, match=remedy):
        compatibility.check(spec_with(optimizer, **train))


def test_a_class_word_without_a_trigger_is_refused_before_there_is_a_session() -> None:
    spec = spec_with("adamw")
    spec = msgspec.structs.replace(spec, dataset=msgspec.structs.replace(spec.dataset, class_word="dog", trigger=""))
    with pytest.raises(UsageError, match=r"set dataset\.trigger, or no class_word"):
        compatibility.check(spec)
    compatibility.check(msgspec.structs.replace(spec, dataset=msgspec.structs.replace(spec.dataset, trigger="ohwx")))


def test_a_warm_up_that_the_run_ends_in_is_said() -> None:
    train = spec_with("adamw", warmup_steps=40).train
    assert too_long_a_warmup(train, 41) == ""
    said = too_long_a_warmup(train, 40)
    assert "all 40 steps are warm-up" in said
    assert "set train.warmup_steps" in said
    assert max(map(schedule(train, 40), range(40))) < train.learning_rate == max(map(schedule(train, 400), range(400)))
    assert too_long_a_warmup(spec_with("adamw", warmup_steps=40, scheduler="constant").train, 10) == ""  # which has none
    assert too_long_a_warmup(spec_with("schedule_free", warmup_steps=40).train, 10)  # whose warm-up is its own
