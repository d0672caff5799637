"""The adapter: where it sits, that it stays float32, that its numbers follow from the seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fluxtui.engine.family.flux1.components import pipeline_at
from fluxtui.engine.family.flux1.targets import PRESETS, target_names
from fluxtui.engine.family.flux1.transformer import velocity
from fluxtui.engine.memory.base import recomputed
from fluxtui.engine.remedies import filled
from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.adapter import dropout
from fluxtui.engine.trainer.adapter.dropout import KeyedRanks, Place
from fluxtui.engine.trainer.adapter.lora import Adapter, add_lora
from fluxtui.engine.trainer.objective import sample_losses
from fluxtui.engine.trainer.prepare import _add_adapters
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.errors import UsageError
from fluxtui.persist.settings import defaults
from fluxtui.persist.settings.spec import LoraSpec
from tests.trainer.test_objective import random_samples
from tests.trainer.tiny_flux import new_transformer


def adapted(
    model: Path, dtype: torch.dtype = torch.float32, seed: int = 7, is_checkpointed: bool = False, **spec: object
) -> Adapter:
    """A LoRA on the tiny model, with B drawn too so that every factor has a gradient."""
    transformer = pipeline_at(model).load_transformer(dtype, "cpu")
    if is_checkpointed:
        transformer.enable_gradient_checkpointing(recomputed)
    adapter = add_lora(transformer, target_names(transformer, "attention+mlp"), LoraSpec(rank=4, alpha=8.0, **spec), seed)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    transformer.train()
    return adapter


def gradients(adapter: Adapter, slots: list[int], step: int = 5) -> dict[str, torch.Tensor]:
    samples, noise, sigma = random_samples(4)
    picked = type(samples)(samples.latents[slots], samples.prompt_embeds[slots], samples.pooled[slots])
    adapter.place.begin(step, slots, torch.device("cpu"), adapter.model.dtype)
    losses = sample_losses(
        lambda *inputs: velocity(adapter.model, *inputs, 1.0, adapter.model.dtype), picked, noise[slots], sigma[slots]
    )
    losses.sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in adapter.named_parameters()}
    for parameter in adapter.parameters():
        parameter.grad = None
    return found


def test_default_targets_are_attention_and_mlp_of_both_block_kinds_and_nothing_else() -> None:
    names = target_names(new_transformer(), "attention+mlp")
    double = [name.split(".", 2)[2] for name in names if name.startswith("transformer_blocks.0.")]
    single = [name.split(".", 2)[2] for name in names if name.startswith("single_transformer_blocks.0.")]
    assert sorted(double) == sorted(
        ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj",
         "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]
    )  # fmt: skip
    assert sorted(single) == ["attn.to_k", "attn.to_q", "attn.to_v", "proj_mlp", "proj_out"]
    assert len(names) == 2 * 12 + 2 * 5
    assert "proj_out" not in names


def test_presets_differ_and_a_pattern_must_match_whole_names() -> None:
    model = new_transformer()
    assert len({target_names(model, preset) for preset in PRESETS}) == len(PRESETS)
    assert target_names(model, r"transformer_blocks\.1\.attn\.to_q") == ("transformer_blocks.1.attn.to_q",)
    with pytest.raises(UsageError, match="matches no linear layer"):
        target_names(model, "to_q")
    with pytest.raises(UsageError, match="regular expression"):
        target_names(model, "(")


def test_targets_that_mean_no_layer_are_answered_by_the_session_to_make_instead() -> None:
    """Not by a resume, which cannot change them."""
    sets = {"lora.targets": "nothing_like_it"}
    spec = defaults.new_spec("hot", "owner/flux", "/x", "flux1", 20, "ohwx", defaults.with_recipe("", 20, sets))
    none: Any = None
    with pytest.raises(Refusal, match="matches no linear layer") as refused:
        _add_adapters(spec, new_transformer(), none, none, none)
    remedy = filled(refused.value.remedy, spec, False, list)
    assert remedy.endswith("fluxtui new hot-2 --from hot --set lora.targets=attention+mlp")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapter_and_its_gradients_are_float32_whatever_the_base_is(tiny_dev: Path, dtype: torch.dtype) -> None:
    adapter = adapted(tiny_dev, dtype)
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}
    assert {gradient.dtype for gradient in gradients(adapter, [0, 1]).values()} == {torch.float32}
    base = [p for n, p in adapter.model.named_parameters() if "lora_" not in n]
    assert {parameter.dtype for parameter in base} == {dtype}
    assert not any(parameter.requires_grad for parameter in base)


def test_every_factor_gets_a_gradient(tiny_dev: Path) -> None:
    assert all(gradient.abs().max() > 0 for gradient in gradients(adapted(tiny_dev), [0, 1, 2]).values())


def test_factors_follow_from_seed_and_module_alone(tiny_dev: Path) -> None:
    def factors(seed: int, targets: str) -> dict[str, torch.Tensor]:
        transformer = pipeline_at(tiny_dev).load_transformer(torch.float32, "cpu")
        torch.manual_seed(torch.seed() % 1000)  # the global generator must not matter
        return dict(
            add_lora(transformer, target_names(transformer, targets), LoraSpec(rank=4, alpha=4.0), seed).named_parameters()
        )

    many, few, other = factors(1, "attention+mlp"), factors(1, "attention"), factors(2, "attention")
    for name, factor in few.items():
        assert torch.equal(factor, many[name])
        assert name.endswith("lora_B") == bool((factor == 0).all())
        assert name.endswith("lora_B") or not torch.equal(factor, other[name])


DROPOUTS = pytest.mark.parametrize("dropouts", [{"dropout": 0.4}, {"rank_dropout": 0.4}, {"module_dropout": 0.4}], ids=str)


@DROPOUTS
def test_dropout_is_exact_under_recomputation(tiny_dev: Path, dropouts: dict[str, float]) -> None:
    plain = gradients(adapted(tiny_dev, **dropouts), [0, 1])
    again = gradients(adapted(tiny_dev, **dropouts, is_checkpointed=True), [0, 1])
    without = gradients(adapted(tiny_dev), [0, 1])
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert not all(torch.equal(plain[name], without[name]) for name in plain)


ALL_DROPOUTS = {"dropout": 0.4, "rank_dropout": 0.4, "module_dropout": 0.4}


@pytest.mark.parametrize("kind", [{"kind": "lora", **ALL_DROPOUTS}, {"kind": "dora", **ALL_DROPOUTS}, {"kind": "lokr"}], ids=str)
def test_no_block_depends_on_torchs_own_generator_which_recomputation_does_not_carry(tiny_dev: Path, kind: Any) -> None:
    plain, recomputed_later = adapted(tiny_dev, **kind), adapted(tiny_dev, **kind, is_checkpointed=True)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    expected = gradients(plain, [0, 1])
    assert torch.equal(torch.get_rng_state(), state) or kind["kind"] == "lokr"  # peft draws there, and decides nothing by it
    torch.manual_seed(2)
    found = gradients(recomputed_later, [0, 1])
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@DROPOUTS
def test_dropout_of_a_sample_does_not_depend_on_its_companions(tiny_dev: Path, dropouts: dict[str, float]) -> None:
    adapter = adapted(tiny_dev, **dropouts)
    together = gradients(adapter, [0, 1, 2])
    apart = [gradients(adapter, [slot]) for slot in (2, 0, 1)]
    for name, gradient in together.items():
        torch.testing.assert_close(sum(part[name] for part in apart), gradient, rtol=1e-4, atol=1e-6)
    other_step = gradients(adapter, [0, 1, 2], step=6)
    assert not all(torch.allclose(together[name], other_step[name], rtol=1e-3) for name in together)


def test_what_all_layers_leave_out_is_drawn_once_a_micro_step_and_copied_once(
    tiny_dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each draw is the one that its layer, step and slot alone decide, whatever comes in the same copy."""
    adapter = adapted(tiny_dev, is_checkpointed=True, rank_dropout=0.4, module_dropout=0.3)
    copies: list[torch.Size] = []
    monkeypatch.setattr(dropout, "send", lambda drawn, _device: (copies.append(drawn.shape), drawn)[1])
    gradients(adapter, [0, 1])
    assert copies == [(2, 4 * len(adapter.layers))]
    for name, layer in adapter.layers.items():
        for slot, counts in zip([0, 1], layer.lora_A["default"].ranks.counts, strict=True):
            kept = torch.rand(4, generator=draws.generator(7, "rank_dropout", 5, slot, name)) >= 0.4
            is_left_out = draws.uniform(7, "module_dropout", 5, slot, name) < 0.3
            assert torch.equal(counts, torch.zeros(4) if is_left_out else kept / (1.0 - 0.4))


def test_ranks_and_modules_are_left_out_as_often_as_is_asked_and_only_ranks_are_scaled_up_for_it() -> None:
    down = torch.ones(64, 3, 8)
    ranks, modules, other = KeyedRanks(8, 0.25, 0.0, 1, "a"), KeyedRanks(8, 0.0, 0.5, 1, "a"), KeyedRanks(8, 0.0, 0.5, 1, "b")
    place = Place(ranks=[ranks, modules, other])
    found = []
    for step in range(40):
        place.begin(step, range(64), torch.device("cpu"), torch.float32)
        made = ranks(down)
        assert torch.equal(made, made[:, :1].expand(-1, 3, -1))     # a rank is left out for the whole sample
        assert set(made.unique().tolist()) <= {0.0, torch.tensor(1 / 0.75).item()}
        whole = modules(down)
        assert set(whole.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(whole, whole[:, :1, :1].expand_as(whole))
        found.append(((made == 0).float().mean(), (whole == 0).float().mean()))
    shares = torch.tensor(found).mean(dim=0)
    assert abs(shares[0] - 0.25) < 0.015    # 20480 draws: sigma 0.003
    assert abs(shares[1] - 0.5) < 0.05      # 2560 draws: sigma 0.01
    assert not torch.equal(other(down), modules(down))


def test_dropout_is_off_in_evaluation(tiny_dev: Path) -> None:
    samples, noise, sigma = random_samples(1)
    losses = []
    for share in (0.0, 0.4):
        adapter = adapted(tiny_dev, dropout=share, rank_dropout=share, module_dropout=share)
        adapter.model.eval()
        with torch.no_grad():
            losses.append(sample_losses(lambda *i, a=adapter: velocity(a.model, *i, 1.0), samples, noise, sigma).item())
    assert losses[0] == losses[1]
