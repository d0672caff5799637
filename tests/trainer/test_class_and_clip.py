"""The two companions of a LoRA: a class word whose meaning is preserved, and CLIP trained along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from fluxtui.engine.export import export
from fluxtui.engine.prove import prove
from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.checkpoint.state import from_safetensors
from fluxtui.engine.trainer.data.caption import with_word
from fluxtui.engine.trainer.objective import preservation_losses
from fluxtui.persist import metrics
from fluxtui.persist.checkpoints.commit import remove_checkpoint
from fluxtui.persist.errors import UsageError
from tests.trainer.job import Bench
from tests.trainer.test_loop import closest, gradient_of_first_step

NewBench = Callable[..., Bench]
CLASS = {"dataset__class_word": "square", "train__learning_rate": 1e-2}
WITH_CLIP = {"train__clip_learning_rate": 5e-4, "lora__alpha": 2.0}


def drift(bench: Bench) -> float:
    """How far training moved what the class word draws, at noise that no training saw."""
    run = bench.run_here()
    losses = []
    for number, batch in enumerate(run.plan(0)):
        samples = run.to_device(run.encoded.load(batch.slots))
        if samples.class_text is None:
            text = [run.encoded.prompt(with_word(slot.caption, "zorp", "square")) for slot in batch.slots]
            embeds, pooled = (torch.stack(part) for part in zip(*text, strict=True))
            samples = type(samples)(samples.latents, embeds, pooled, None, class_text(embeds, pooled))
        noise = draws.noise(99, number, range(len(batch.slots)), tuple(samples.latents.shape[1:]), "validation_noise")
        run.adapter.model.eval()
        with torch.no_grad():
            sigma = torch.full((len(batch.slots),), 0.6)
            losses.append(preservation_losses(run.predict, run.predict_base, samples, noise, sigma).mean().item())
    return sum(losses) / len(losses)


def class_text(embeds: torch.Tensor, pooled: torch.Tensor) -> object:
    from fluxtui.engine.trainer.objective import ClassText

    return ClassText(embeds, pooled, pooled)


def test_a_class_word_keeps_its_meaning_and_does_not_without(new_bench: NewBench) -> None:
    prompts = [with_word(f"zorp, a {colour} square on gray", "zorp", "square") for colour in ("red", "green", "blue")]
    common = {"train__steps": 40, "sample__prompts": prompts, "sample__at_start": False, "sample__steps": 1,
              "sample__width": 64, "sample__height": 64}  # fmt: skip
    kept = new_bench("kept", **CLASS | common, train__preservation_weight=10.0)
    lost = new_bench("lost", **CLASS | common | {"dataset__class_word": ""})
    kept_drift, lost_drift = drift(kept), drift(lost)
    assert kept_drift < 0.5 * lost_drift
    seen = metrics.read_all(kept.folder.metrics_file)
    assert seen[0].preservation_loss == 0.0  # nothing has moved yet
    assert seen[-1].preservation_loss
    assert metrics.read_all(lost.folder.metrics_file)[-1].preservation_loss is None


def test_preservation_is_split_like_any_loss(new_bench: NewBench) -> None:
    sets = {**CLASS, "train__max_grad_norm": 0.0, "dataset__regularisation": "00*"}
    whole, loss = gradient_of_first_step(new_bench("whole", train__batch_size=4, **sets))
    split, split_loss = gradient_of_first_step(new_bench("split", train__batch_size=1, train__gradient_accumulation=4, **sets))
    assert loss == pytest.approx(split_loss, rel=1e-6)
    assert closest(whole, split) < 1e-5


def test_dropout_in_clip_falls_by_sample_whatever_the_split(new_bench: NewBench) -> None:
    sets = {**WITH_CLIP, "train__max_grad_norm": 0.0, "lora__dropout": 0.3}
    whole, loss = gradient_of_first_step(new_bench("whole", train__batch_size=4, **sets))
    split, split_loss = gradient_of_first_step(new_bench("split", train__batch_size=1, train__gradient_accumulation=4, **sets))
    assert loss == pytest.approx(split_loss, rel=1e-6)
    assert closest(whole, split) < 1e-5


def test_the_class_word_stands_where_the_trigger_stood() -> None:
    assert with_word("zorp, a Zorp on a zorpy day", "zorp", "dog") == "dog, a dog on a zorpy day"
    assert with_word(r"zorp", "zorp", r"a\1b") == r"a\1b"


def test_a_class_word_without_a_trigger_is_refused(new_bench: NewBench) -> None:
    with pytest.raises(UsageError, match=r"set dataset\.trigger"):
        new_bench(dataset__class_word="dog", dataset__trigger="").prepare_here()


def test_clip_is_trained_resumed_proven_and_drawn_with(new_bench: NewBench, tiny_dev: Path) -> None:
    sampling = {"sample__prompts": ["a [trigger]"], "sample__steps": 1, "sample__width": 64, "sample__height": 64}
    sets = {**CLASS, **WITH_CLIP, **sampling, "lora__dropout": 0.2}
    bench = new_bench(train__steps=6, checkpoint__every_steps=3, **sets, validate__images=1)
    run = bench.run_here()
    whole = bench.result().tensors_sha256
    remove_checkpoint(bench.folder.checkpoints, "step-000000006")
    bench.run_here()
    assert bench.result().tensors_sha256 == whole
    bench.write_record()
    proof = prove(bench.root, "little", 0, lambda **_: None)
    assert proof.ok, proof.what
    assert run.shares == (1.0, 0.05)
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx([run.rate(5), 0.05 * run.rate(5)])
    assert (bench.folder.samples / "step-000000006" / "00.png").is_file()

    pipeline = FluxPipeline.from_pretrained(tiny_dev)
    pipeline.load_lora_weights(str(bench.folder.product))
    assert run.clip is not None
    run.clip.adapter.model.eval()
    with torch.no_grad():
        ours, base = run.clip.pooled(["a zorp"]), run.clip.pooled(["a zorp"], is_base=True)
        theirs = pipeline._get_clip_prompt_embeds("a zorp")
    assert (ours - base).abs().max() > 1e-4
    torch.testing.assert_close(theirs, ours, rtol=0.02, atol=0.02 * (ours - base).abs().max().item())  # bf16 in the file


@pytest.mark.parametrize("form", ["diffusers", "kohya", "comfyui"])
def test_clip_is_exported_in_every_format_and_read_back(new_bench: NewBench, tmp_path: Path, form: str) -> None:
    bench = new_bench(train__steps=2, **WITH_CLIP)
    bench.run_here()
    bench.write_record()
    path = tmp_path / "out.safetensors"
    assert "read back" in export(bench.root, "little", form, path, "", "bf16", False)
    keys = [key for key in from_safetensors(path) if key.startswith(("text_encoder.text_model.encoder.", "lora_te1_text_model_"))]
    assert len(keys) == 6 * (3 if form == "kohya" else 2)
    again = new_bench("again", train__steps=1, **WITH_CLIP, lora__weights=str(path))
    run = again.prepare_here()
    assert any(parameter.any() for name, parameter in run.clip.adapter.named_parameters() if name.endswith("lora_B"))
