"""The objective, packing and guidance agree with diffusers' own pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.training_utils import compute_loss_weighting_for_sd3

from fluxtui.engine.family.flux1 import transformer as flux
from fluxtui.engine.family.flux1.components import pipeline_at
from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.loop import take_step
from fluxtui.engine.trainer.objective import Samples, sample_losses, weights_of
from fluxtui.persist.settings.spec import TrainSpec
from tests.trainer.job import Bench


def random_samples(batch: int, height: int = 8, width: int = 6) -> tuple[Samples, torch.Tensor, torch.Tensor]:
    """x0, embeddings; noise; noise levels. `height` and `width` in latents."""
    generator = torch.Generator().manual_seed(1)
    samples = Samples(
        torch.randn(batch, 16, height, width, generator=generator), torch.randn(batch, 16, 32, generator=generator),
        torch.randn(batch, 24, generator=generator),
    )  # fmt: skip
    return samples, torch.randn(batch, 16, height, width, generator=generator), torch.rand(batch, generator=generator)


def reference_losses(
    model: FluxTransformer2DModel, samples: Samples, noise: torch.Tensor, sigma: torch.Tensor, guidance: float | None
) -> torch.Tensor:
    """The same loss from diffusers' scheduler, pipeline and transformer, in the order of its own training script."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    scheduler.sigmas, scheduler.timesteps = sigma.clone(), sigma * 1000.0
    height, width = samples.latents.shape[-2:]
    losses = []
    for index in range(len(sigma)):
        x0, eps = samples.latents[index : index + 1], noise[index : index + 1]
        noisy = scheduler.scale_noise(x0, scheduler.timesteps[index : index + 1], eps)
        packed = FluxPipeline._pack_latents(noisy, 1, 16, height, width)
        predicted = model(
            hidden_states=packed, timestep=scheduler.timesteps[index : index + 1] / 1000,
            guidance=None if guidance is None else torch.tensor([guidance]), pooled_projections=samples.pooled[index : index + 1],
            encoder_hidden_states=samples.prompt_embeds[index : index + 1], txt_ids=torch.zeros(16, 3),
            img_ids=FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, "cpu", torch.float32), return_dict=False,
        )[0]  # fmt: skip
        velocity = FluxPipeline._unpack_latents(predicted, height * 8, width * 8, vae_scale_factor=8)
        losses.append(torch.nn.functional.mse_loss(velocity, eps - x0))
    return torch.stack(losses)


@pytest.mark.parametrize("kind", ["tiny_dev", "tiny_schnell"])
def test_loss_equals_one_made_of_diffusers_own_pieces(kind: str, request: pytest.FixtureRequest) -> None:
    components = pipeline_at(request.getfixturevalue(kind))
    model = components.load_transformer(torch.float32, "cpu")
    guidance = 1.0 if components.guidance_embeds else None
    samples, noise, sigma = random_samples(3)
    with torch.no_grad():
        ours = sample_losses(lambda *inputs: flux.velocity(model, *inputs, guidance), samples, noise, sigma)
        theirs = reference_losses(model, samples, noise, sigma, guidance)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-7)


def test_packing_and_ids_are_those_of_the_pipeline(tiny_dev: Path) -> None:
    latents = torch.randn(2, 16, 6, 10)
    pipeline = FluxPipeline(None, None, None, None, None, None, pipeline_at(tiny_dev).empty_transformer())
    packed, ids = pipeline.prepare_latents(1, 16, 48, 80, torch.float32, "cpu", None, latents=flux.pack(latents))
    torch.testing.assert_close(flux.pack(latents), packed, rtol=0, atol=0)
    torch.testing.assert_close(flux.image_ids(6, 10, torch.device("cpu"), torch.float32), ids, rtol=0, atol=0)
    torch.testing.assert_close(flux.unpack(flux.pack(latents), 6, 10), latents, rtol=0, atol=0)


def test_schnell_is_never_given_a_guidance_and_dev_always_is(new_bench: Callable[..., Bench], tiny_schnell: Path) -> None:
    for name, model, expected in (("dev", None, {1.0}), ("schnell", tiny_schnell, {None})):
        run = new_bench(name, model=model).prepare_here()
        seen = []
        hook = run.adapter.model.register_forward_pre_hook(
            lambda _module, _args, kwargs, seen=seen: seen.append(kwargs["guidance"]), with_kwargs=True
        )
        take_step(run, run.plan(0)[0])
        hook.remove()
        assert len(seen) == 1
        assert ({None} if seen[0] is None else set(seen[0].tolist())) == expected


def test_a_guidance_where_none_belongs_is_an_error(tiny_schnell: Path) -> None:
    model = pipeline_at(tiny_schnell).load_transformer(torch.float32, "cpu")
    samples, noise, sigma = random_samples(1)
    with pytest.raises(TypeError):
        sample_losses(lambda *inputs: flux.velocity(model, *inputs, 1.0), samples, noise, sigma)


def test_a_step_draws_noise_and_sigma_for_its_slots_alone(new_bench: Callable[..., Bench]) -> None:
    run = new_bench().prepare_here()
    batch = run.plan(0)[0]
    seen: list[torch.Tensor] = []
    predict = run.predict

    def watched(noisy: torch.Tensor, sigma: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(sigma)
        return predict(noisy, sigma, *rest)

    run.predict = watched
    take_step(run, batch)
    expected = draws.sigmas(
        run.job.spec.train.seed, 0, [slot.index for slot in batch.slots], run.job.spec.train, batch.bucket.packed_tokens
    )
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=0)


def test_loss_weightings_are_their_closed_forms() -> None:
    sigma = torch.tensor([1e-6, 0.01, 0.25, 0.5, 0.9, 1.0])

    def weights(name: Any) -> torch.Tensor:
        return weights_of(TrainSpec(loss_weighting=name), sigma)

    assert torch.equal(weights("none"), torch.ones(6))
    for name in ("sigma_sqrt", "cosmap"):
        torch.testing.assert_close(weights(name)[1:], compute_loss_weighting_for_sd3(name, sigma[1:]))
    assert weights("sigma_sqrt")[0] == pytest.approx(1e6)
    steps = torch.arange(1000, dtype=torch.float32)  # ai-toolkit's table of a weight a timestep, of mean 1
    table = torch.exp(-2 * ((steps - 500) / 1000) ** 2)
    table = (table - table.min()) * (1000 / (table - table.min()).sum())
    torch.testing.assert_close(weights_of(TrainSpec(loss_weighting="bell"), steps / 1000), table, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weighting", ["sigma_sqrt", "cosmap", "bell"])
def test_a_weighting_trains_another_adapter_and_leaves_the_held_out_loss_as_it_is_measured(
    new_bench: Callable[..., Bench], weighting: str
) -> None:
    plain, other = (new_bench(name, train__steps=2, validate__images=1, train__loss_weighting=of)
                    for name, of in (("plain", "none"), ("other", weighting)))  # fmt: skip
    before = [bench.prepare_here().validation_loss() for bench in (plain, other)]
    assert before[0] == before[1]
    for bench in (plain, other):
        bench.run_here()
    assert other.result().tensors_sha256 != plain.result().tensors_sha256
