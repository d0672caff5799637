"""The caches hold exactly what FLUX.1 is given elsewhere; only what is missing is made; nothing depends on how it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fluxtui.engine.family.flux1.components import Components, pipeline_at
from fluxtui.engine.family.flux1.encode import compute_in_float32, encode_image_mean, encode_prompts, pixels_of
from fluxtui.engine.trainer.data import encode
from fluxtui.engine.trainer.data.dataset import Batch, Dataset, plan_epoch, read_dataset
from fluxtui.engine.trainer.data.encode import fill_caches
from fluxtui.engine.trainer.data.encoded import Encoded
from fluxtui.engine.trainer.refusal import DataError
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.runtime import Runtime
from fluxtui.persist import cache_folder
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings.spec import Spec
from tests.trainer.job import small_spec
from tests.trainer.tiny_flux import little_pictures

HERE = Runtime(torch.device("cpu"), torch.float32, 0, 1)


class Telling(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[dict[str, Any]] = []
        self.said: list[str] = []

    def progress(self, phase: Phase | None = None, **what: Any) -> None:
        self.lines.append({"phase": phase} | what)

    def say(self, text: str) -> None:
        self.said.append(text)

    def encoded(self) -> dict[str, int]:
        """How many of each unit were encoded."""
        return {line["unit"]: line["item"] for line in self.lines if line["phase"] == Phase.ENCODE}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return little_pictures(tmp_path / "data", count=5, size=(96, 64))


@pytest.fixture
def fill(tmp_path: Path, tiny_dev: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Encoded, Telling]]:
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))

    def run(
        prompts: tuple[str, ...] = (), model: Path | None = None, runtime: Runtime = HERE, **sets: Any
    ) -> tuple[Encoded, Telling]:
        spec = spec_of(model or tiny_dev, data, **sets)
        told = Telling()
        dataset = read_dataset(spec.dataset, hold_out=spec.validate.images)
        return fill_caches(dataset, spec, pipeline_at(model or tiny_dev), told, runtime, tmp_path / "cache", prompts), told

    return run


def spec_of(model: Path, data: Path, **sets: Any) -> Spec:
    return small_spec(model, data, **({"dataset__resolution": [32, 64]} | sets))


def plan(spec: Spec) -> tuple[Dataset, tuple[Batch, ...]]:
    dataset = read_dataset(spec.dataset, hold_out=spec.validate.images)
    return dataset, plan_epoch(dataset, spec.train, 0)


def entries(folder: Path) -> dict[str, int]:
    return {kind: len(list((folder / "cache" / kind).rglob("*.safetensors"))) for kind in ("latents", "text")}


# ---- what is in them


@pytest.mark.parametrize("is_slow", [True, False])
def test_a_cpu_that_is_slow_in_bf16_takes_t5s_products_in_float32(
    is_slow: bool, fill: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As beside a GPU that has no room for T5: what is held and what is cached stays bf16."""
    taken: set[torch.dtype] = set()
    layers: list[torch.nn.Linear] = []
    load = Components.load_text_encoders

    def watched(*given: Any) -> Any:
        encoders = load(*given)
        layers.extend(module for module in encoders.t5.modules() if isinstance(module, torch.nn.Linear))
        for layer in layers:
            layer.register_forward_hook(lambda _layer, _inputs, made: taken.add(made.dtype))
        return encoders

    monkeypatch.setattr(Components, "load_text_encoders", watched)
    monkeypatch.setattr(encode, "are_slow_in_bf16", lambda: is_slow)
    runtime = Runtime(torch.device("cpu"), torch.bfloat16, 0, 1, card=10 * 10**9)
    encoded, _ = fill(("a red square",), runtime=runtime)
    assert taken == {torch.float32 if is_slow else torch.bfloat16}
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}
    states, _ = encoded.prompt("a red square")
    assert states.dtype == torch.bfloat16


def test_t5_computed_in_float32_is_nearer_to_itself_in_float32(tiny_dev: Path) -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.bfloat16)
    whole, plain, cast = (Components(tiny_dev).load_text_encoders(dtype, "cpu") for dtype in dtypes)
    whole.t5.to(torch.bfloat16).to(torch.float32)  # the same weights
    compute_in_float32(cast.t5)
    wanted = encode_prompts(whole, ["a red square"])[0]
    error = [(encode_prompts(one, ["a red square"])[0].float() - wanted).norm() for one in (plain, cast)]
    assert error[1] < 0.5 * error[0]


@pytest.mark.parametrize("kind", ["dev", "schnell"])
def test_prompts_are_encoded_as_diffusers_does(kind: str, tiny_dev: Path, tiny_schnell: Path) -> None:
    from diffusers import FluxPipeline

    folder = tiny_dev if kind == "dev" else tiny_schnell
    pipeline = FluxPipeline.from_pretrained(folder)
    encoders = Components(folder).load_text_encoders(torch.float32, "cpu")
    assert encoders.text_tokens == Components(folder).text_tokens == 16
    long = "a photo of a red square on a gray circle in the green square of the blue circle " * 3
    for prompt in ("a red square", "", "zorp, a photo of a circle", "unknown wörds, 日本", long):
        states, pooled = encode_prompts(encoders, [prompt])
        with torch.no_grad():       # as the pipeline's own __call__: attention has another kernel where gradients are kept
            wanted, wanted_pooled, _ = pipeline.encode_prompt(prompt, max_sequence_length=encoders.text_tokens)
        assert torch.equal(states, wanted)
        assert torch.equal(pooled, wanted_pooled)


def test_pictures_are_encoded_as_diffusers_does(tiny_dev: Path) -> None:
    from diffusers.image_processor import VaeImageProcessor

    picture = Image.effect_noise((80, 64), 60).convert("RGB")
    pixels = pixels_of(picture)
    assert torch.equal(pixels, VaeImageProcessor(vae_scale_factor=16).preprocess(picture))
    vae = Components(tiny_dev).load_vae(torch.float32, "cpu")
    found = encode_image_mean(vae, pixels)
    assert found.shape == (1, 16, 8, 10)
    assert torch.equal(found, vae.encode(pixels).latent_dist.mean)


def test_a_batch_holds_each_slots_own_picture_and_caption(fill: Callable[..., Any], tiny_dev: Path, data: Path) -> None:
    encoded, _ = fill()
    spec = spec_of(tiny_dev, data)
    vae = Components(tiny_dev).load_vae(torch.float32, "cpu")
    encoders = Components(tiny_dev).load_text_encoders(torch.float32, "cpu")
    for found in plan(spec)[1]:
        batch = encoded.load(found.slots)
        assert batch.slots == found.slots
        for row, slot in enumerate(found.slots):
            size = (slot.place.bucket.width, slot.place.bucket.height)
            picture = Image.open(slot.item.image).convert("RGB").resize(size, Image.Resampling.LANCZOS, box=slot.place.box)
            assert torch.equal(batch.latents[row], encode_image_mean(vae, pixels_of(picture))[0])
            states, pooled = encode_prompts(encoders, [slot.caption])
            assert torch.equal(batch.prompt_embeds[row], states[0])
            assert torch.equal(batch.pooled[row], pooled[0])


# ---- what is made, and what is not


def test_with_full_caches_no_network_is_loaded(fill: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first, told = fill(prompts=("a zorp",))
    assert told.encoded() == {"captions": 4, "images": 10}      # 3 captions and a prompt; 5 pictures at 2 resolutions

    def loads(*_: object) -> None:
        raise AssertionError("a network was loaded for nothing")

    monkeypatch.setattr(Components, "load_text_encoders", loads)
    monkeypatch.setattr(Components, "load_vae", loads)
    again, told = fill(prompts=("a zorp",))
    assert told.encoded() == {}
    assert "10 of 10 latents and 4 of 4 captions" in told.said[0]
    assert torch.equal(again.prompt("a zorp")[0], first.prompt("a zorp")[0])


def test_editing_one_caption_makes_only_that_embedding_again(fill: Callable[..., Any], data: Path) -> None:
    fill()
    (data / "03.txt").write_text("a green circle")
    _, told = fill()
    assert told.encoded() == {"captions": 1}


def test_changing_one_picture_makes_only_its_latents_again(fill: Callable[..., Any], data: Path) -> None:
    fill()
    Image.new("RGB", (96, 64), (9, 9, 9)).save(data / "03.png")
    _, told = fill()
    assert told.encoded() == {"images": 2}


def test_another_resolution_adds_only_its_own_latents(fill: Callable[..., Any]) -> None:
    fill()
    _, told = fill(dataset__resolution=[32, 48, 64])
    assert told.encoded() == {"images": 5}


def test_the_empty_caption_is_there_where_captions_are_dropped(fill: Callable[..., Any], tiny_dev: Path, data: Path) -> None:
    encoded, told = fill(dataset__caption_dropout=0.5)
    assert told.encoded()["captions"] == 4
    spec = spec_of(tiny_dev, data, dataset__caption_dropout=0.5)
    slots = [slot for found in plan(spec)[1] for slot in found.slots]
    assert {slot.caption == "" for slot in slots} == {True, False}
    for found in plan(spec)[1]:
        encoded.load(found.slots)


def test_mirrored_samples_are_the_mirrored_pictures_and_half_of_all(
    fill: Callable[..., Any], tiny_dev: Path, data: Path
) -> None:
    fill()
    encoded, told = fill(dataset__flip=True)
    assert told.encoded() == {"images": 10}     # the mirrored ones; the others are there
    spec = spec_of(tiny_dev, data, dataset__flip=True)
    vae = Components(tiny_dev).load_vae(torch.float32, "cpu")
    dataset = read_dataset(spec.dataset)
    slots = [slot for epoch in range(40) for found in plan_epoch(dataset, spec.train, epoch) for slot in found.slots]
    assert 150 < sum(slot.is_mirrored for slot in slots) < 250
    assert not any(slot.is_mirrored for found in plan(spec_of(tiny_dev, data))[1] for slot in found.slots)
    for slot in slots[:12]:
        size = (slot.place.bucket.width, slot.place.bucket.height)
        picture = Image.open(slot.item.image).convert("RGB").resize(size, Image.Resampling.LANCZOS, box=slot.place.box)
        if slot.is_mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert torch.equal(encoded.load([slot]).latents[0], encode_image_mean(vae, pixels_of(picture))[0])


def test_caches_are_shared_between_sessions_and_not_between_models(
    fill: Callable[..., Any], tmp_path: Path, tiny_dev: Path, tiny_schnell: Path
) -> None:
    fill()
    assert fill(train__seed=7, lora__rank=2)[1].encoded() == {}
    before = entries(tmp_path)
    assert fill(model=tiny_schnell)[1].encoded() == {}      # the same random networks and the same text length: the same content
    assert entries(tmp_path) == before
    halved = Runtime(HERE.device, torch.bfloat16, 0, 1)
    assert fill(runtime=halved)[1].encoded() == {"captions": 3}     # the VAE always computes in float32


def test_a_damaged_entry_is_made_again_and_said_with_the_same_bytes(fill: Callable[..., Any], tmp_path: Path) -> None:
    fill()
    shelf = sorted((tmp_path / "cache").rglob("*.safetensors"))
    whole = {path: path.read_bytes() for path in shelf}
    for number, path in enumerate(shelf):
        if number % 3 == 0:
            path.write_bytes(whole[path][:-5])
        elif number % 3 == 1:
            path.write_bytes(whole[path][:-3] + b"\0\1\2")
    shelf[2].unlink()
    os.mkfifo(shelf[2])
    _, told = fill()
    notes = [line["note"] for line in told.lines if "note" in line]
    assert len(notes) == len([n for n in range(len(shelf)) if n % 3 != 2]) + 1
    assert all("made again" in note for note in notes)
    assert {path: path.read_bytes() for path in shelf} == whole


def test_a_picture_that_changes_after_preflight_is_not_trained_on(
    fill: Callable[..., Any], tiny_dev: Path, data: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_dev, data)
    dataset = read_dataset(spec.dataset)
    Image.new("RGB", (96, 64), (9, 9, 9)).save(data / "03.png")
    with pytest.raises(DataError, match=r"03\.png changed"):
        fill_caches(dataset, spec, pipeline_at(tiny_dev), Telling(), HERE, tmp_path / "cache")


@pytest.mark.timeout(120)
def test_a_picture_swapped_for_a_pipe_after_preflight_does_not_hang(tiny_dev: Path, data: Path, tmp_path: Path) -> None:
    spec = spec_of(tiny_dev, data)
    dataset = read_dataset(spec.dataset)
    (data / "03.png").unlink()
    os.mkfifo(data / "03.png")
    with pytest.raises(DataError, match=r"03\.png is not a regular file"):
        fill_caches(dataset, spec, pipeline_at(tiny_dev), Telling(), HERE, tmp_path / "cache")


def test_the_bound_of_the_caches_spares_what_this_run_needs(
    fill: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()[0].close()
    old = entries(tmp_path)
    monkeypatch.setattr(cache_folder, "LIMIT", 1)
    monkeypatch.setattr(encode.Cache.__init__, "__defaults__", (1,))
    encoded, told = fill(dataset__resolution=[48])
    assert told.encoded() == {"images": 5}
    assert any("removed" in said for said in told.said)
    assert entries(tmp_path) == {"latents": 5, "text": old["text"]}
    encoded.close()


# ---- how it is read


@pytest.mark.parametrize("way", ["memory", "disk", "workers"])
def test_the_way_of_reading_changes_no_number(
    fill: Callable[..., Any], tiny_dev: Path, data: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    wanted, _ = fill(prompts=("a zorp",))
    if way == "disk":
        monkeypatch.setattr(encode, "MEMORY_SHARE", 0.0)
    encoded, _ = fill(prompts=("a zorp",), hardware__workers=2 if way == "workers" else 0)
    assert bool(encoded._held) == (way == "memory")
    micro_batches = [micro for found in plan(spec_of(tiny_dev, data))[1] for micro in found.micro_batches(2)]
    stream = encoded.batches(micro_batches)
    for number, (found, expected) in enumerate(zip(stream, wanted.batches(micro_batches), strict=True)):
        assert found.slots == expected.slots
        assert torch.equal(found.latents, expected.latents)
        assert torch.equal(found.prompt_embeds, expected.prompt_embeds)
        assert torch.equal(found.pooled, expected.pooled)
        if number == 1:     # in the middle of an epoch
            assert torch.equal(encoded.prompt("a zorp")[1], wanted.prompt("a zorp")[1])
            encoded.load(micro_batches[0])
    encoded.close()


def test_where_not_all_fits_into_memory_a_micro_batch_costs_only_its_own_entries(
    fill: Callable[..., Any], tiny_dev: Path, data: Path
) -> None:
    class Held(dict[Any, Any]):
        def __or__(self, other: object) -> Any:
            raise AssertionError("everything in memory was copied for one micro-batch")

    wanted, _ = fill()
    encoded, _ = fill()
    batch = plan(spec_of(tiny_dev, data))[1][0].slots
    encoded._held = Held(encoded._held)
    del encoded._held[encoded._entries(batch[0])[0]]
    assert torch.equal(encoded.load(batch).latents, wanted.load(batch).latents)
    encoded.close()


def test_what_vanishes_from_the_caches_during_a_run_is_said(
    fill: Callable[..., Any], tiny_dev: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "MEMORY_SHARE", 0.0)
    encoded, _ = fill()
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(DataError, match="removed while it ran") as caught:
        encoded.load(plan(spec_of(tiny_dev, data))[1][0].slots)
    assert "resume" in caught.value.remedy


def test_two_ranks_share_the_work_and_both_have_all(fill: Callable[..., Any], tiny_dev: Path, data: Path, tmp_path: Path) -> None:
    counts = []
    for rank in (0, 1):     # in turn, so the second finds what the first made and the first what it lacks of the second's

        class Alone(Runtime):
            def wait_for_all(self) -> None:
                return

        runtime = Alone(HERE.device, HERE.dtype, rank, 2)
        if rank == 0:
            with pytest.raises(DataError, match="another rank"):
                fill(runtime=runtime)
        else:
            encoded, told = fill(runtime=runtime)
            counts.append(sum(told.encoded().values()))
            for found in plan(spec_of(tiny_dev, data))[1]:
                encoded.load(found.slots)
    assert entries(tmp_path) == {"latents": 10, "text": 3}
    assert 0 < counts[0] < 13


