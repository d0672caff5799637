"""The plan: what is reckoned from one block of each kind is what the whole model would say."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from diffusers import FluxTransformer2DModel

from fluxtui.engine import plan
from tests.trainer.job import Bench
from tests.trainer.tiny_flux import new_transformer

NewBench = Callable[..., Bench]


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_blocks_reckoned_apart_are_the_whole_model(new_bench: NewBench, is_checkpointed: bool) -> None:
    spec = new_bench(train__gradient_checkpointing=is_checkpointed, lora__rank=4).spec
    config = dict(new_transformer(num_layers=3, num_single_layers=4).config)
    with torch.device("meta"):
        whole = FluxTransformer2DModel.from_config(config)
    base, lora, activations = plan.measure(config, spec, tokens=16, text_tokens=16)
    count, lora_count, kept = plan._kept(whole, spec, 16, 16, is_checkpointed)
    assert (base, lora) == (count, lora_count)
    if is_checkpointed:  # the plan adds the inside of the block that is computed again
        assert kept < activations < plan.measure(config, new_bench("other").spec, 16, 16)[2]
    else:
        assert activations == kept


def test_activations_grow_with_the_batch(new_bench: NewBench) -> None:
    config = dict(new_transformer().config)
    one, four = (plan.measure(config, new_bench(f"batch-{size}", train__batch_size=size).spec, 64, 16)[2] for size in (1, 4))
    assert 3 * one < four < 4.1 * one


def test_a_session_that_ran_knows_its_steps_and_speed(new_bench: NewBench, capsys: pytest.CaptureFixture[str]) -> None:
    bench = new_bench(train__steps=0, train__epochs=2)
    before = plan.plan(bench.root, "little")
    assert (before.steps, before.seconds) == (None, None)
    bench.run_here()
    capsys.readouterr()
    assert plan.main(["--home", str(bench.root), "--session", "little", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 6
    assert found["step_seconds"] > 0
    assert found["checkpoint"] == 12 * found["lora_parameters"]
    assert plan.main(["--home", str(bench.root), "--session", "little"]) == 0
    assert "activations at 32 tokens" in capsys.readouterr().out


def test_the_published_shape_is_taken_for_a_model_on_the_hub(new_bench: NewBench) -> None:
    bench = new_bench()
    from fluxtui.persist import recipe

    spec = recipe.apply(bench.spec, {"lora.rank": 16, "train.gradient_checkpointing": True, "dataset.resolution": [512]})
    config, encoders, vae, text_tokens = plan._parts(None, is_schnell=False)
    base, lora, _ = plan.measure(config, spec, (512 // 16) ** 2, text_tokens)
    assert (base, encoders, vae, text_tokens) == (11_901_408_320, 4_885_371_136, 83_819_683, 512)
    assert lora == (36 * 19 + 17 * 38) * 3072 * 16
