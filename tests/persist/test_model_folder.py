"""What kind of model a name, folder or hub id is, by names and JSON alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fluxtui.persist.errors import NotFoundError, UsageError
from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import recognise
from tests.persist.inert import is_inert

INDEX = {
    "_class_name": "FluxPipeline",
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "mine"
    for name in INDEX:
        if not name.startswith("_"):
            (folder / name).mkdir(parents=True)
            (folder / name / "config.json").write_text("{}")
            (folder / name / "model.safetensors").write_bytes(b"x" * 100)
    (folder / "transformer" / "config.json").write_text(
        json.dumps({"num_attention_heads": 24, "attention_head_dim": 128, "guidance_embeds": True})
    )
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder


def test_a_folder_is_known_by_its_json(pipeline: Path) -> None:
    seen = recognise(str(pipeline))
    assert (seen.kind, seen.path, seen.is_guidance_distilled, seen.weight_bytes) == ("flux1", pipeline, True, 400)
    (pipeline / "transformer" / "config.json").write_text(json.dumps({"num_attention_heads": 4, "attention_head_dim": 48}))
    assert recognise(str(pipeline)).kind == "pico"
    assert recognise(str(pipeline)).is_guidance_distilled is False


def test_a_name_in_the_homes_models_is_found(pipeline: Path, tmp_path: Path) -> None:
    assert recognise("mine", Home(tmp_path)).path == pipeline


def test_a_hub_id_is_taken_without_asking_anybody() -> None:
    assert recognise("black-forest-labs/FLUX.1-dev").hub_id == "black-forest-labs/FLUX.1-dev"
    assert recognise("black-forest-labs/FLUX.1-schnell").is_guidance_distilled is False


def test_the_bundled_model_is_whole() -> None:
    from fluxtui.demo import PICO_DIR

    seen = recognise("pico")
    assert (seen.kind, seen.written, seen.path) == ("pico", "pico", PICO_DIR)


@pytest.mark.parametrize("source", ["nothing", "../x/y", "a/b/c", "/no/where", "owner/", "ow ner/name", ""])
def test_what_is_nothing_is_said(source: str) -> None:
    with pytest.raises((NotFoundError, UsageError)):
        recognise(source)


def broken(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        recognise(str(folder))
    assert is_inert(str(caught.value))
    return str(caught.value)


def test_every_part_that_is_missing_or_another_is_named(pipeline: Path, tmp_path: Path) -> None:
    for part in INDEX:
        if part.startswith("_"):
            continue
        (pipeline / "model_index.json").write_text(json.dumps({**INDEX, part: ["x", "Other\x1b[31m"]}))
        assert part in broken(pipeline)
        (pipeline / "model_index.json").write_text(json.dumps(INDEX))
        os.rename(pipeline / part, tmp_path / part)
        assert part in broken(pipeline)
        os.rename(tmp_path / part, pipeline / part)
    recognise(str(pipeline))


def test_pickled_weights_alone_are_refused_unopened(pipeline: Path) -> None:
    os.rename(pipeline / "vae" / "model.safetensors", pipeline / "vae" / "model.bin")
    assert "pickled" in broken(pipeline)


@pytest.mark.parametrize("name", ["Flux2Pipeline", "FluxFillPipeline", "FluxKontextPipeline", "StableDiffusionPipeline", ""])
def test_another_pipeline_is_named(pipeline: Path, name: str) -> None:
    (pipeline / "model_index.json").write_text(json.dumps({**INDEX, "_class_name": name}))
    assert "not a FLUX.1 pipeline" in broken(pipeline)


def test_a_transformer_that_wants_a_picture_beside_the_noise_is_named(pipeline: Path) -> None:
    (pipeline / "transformer" / "config.json").write_text(json.dumps({"in_channels": 384}))
    assert "FLUX.1 Fill" in broken(pipeline)


@pytest.mark.parametrize("data", [b"", b"[]", b"{" * 100_000, b"\xff", b'{"a":' * 50_000])
def test_json_that_is_none_is_said(pipeline: Path, data: bytes) -> None:
    (pipeline / "model_index.json").write_bytes(data)
    broken(pipeline)
