"""What is no FLUX.1, or not in a form to train from, is named in one sentence: by its content, whatever it is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fluxtui.persist.errors import FluxTUIError, UsageError
from fluxtui.persist.home import Home
from fluxtui.persist.models.file import identify
from fluxtui.persist.models.folder import recognise
from tests.models.singles import FILES, originals, prefixed, told, write
from tests.persist.inert import is_inert

STRANGERS = {
    "transformer.single_blocks.0.proj_out.lora_A.weight": "LoRA",
    "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": "LoRA",
    "model.diffusion_model.input_blocks.0.0.weight": "Stable Diffusion",
    "model.diffusion_model.label_emb.0.0.weight": "SDXL",
    "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
    "double_stream_modulation_img.lin.weight": "FLUX.2",
    "distilled_guidance_layer.norms.0.scale": "Chroma",
    "controlnet_blocks.0.weight": "ControlNet",
    "something.else": "something.else",
    "\x1b]52;c;x\x07.weight": "no part of FLUX.1",
}


def refused(path: Path, home: Home) -> str:
    with pytest.raises(FluxTUIError) as caught:
        recognise(str(path), home)
    assert is_inert(str(caught.value))
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


@pytest.mark.parametrize("key", STRANGERS)
def test_each_stranger_is_named(key: str, home: Home, tmp_path: Path) -> None:
    path = write(tmp_path / "flux1-dev.safetensors", {key: torch.zeros(4, 4)}, {})
    assert STRANGERS[key] in refused(path, home)


def test_a_gguf_and_a_pickle_are_known_by_their_first_bytes(home: Home, tmp_path: Path) -> None:
    for name, begins, words in (
        ("flux1-dev-Q4_K_S.gguf", b"GGUF\x03\x00\x00\x00", "GGUF"),
        ("renamed.safetensors", b"GGUF\x03\x00\x00\x00", "GGUF"),
        ("model.safetensors", b"PK\x03\x04\x00\x00\x00\x00", "pickle"),
        ("model.ckpt", b"\x80\x02}q\x00.____", "pickle"),
    ):
        (tmp_path / name).write_bytes(begins + bytes(100))
        assert words in refused(tmp_path / name, home)


def test_what_is_no_safetensors_file_at_all_is_said(home: Home, tmp_path: Path) -> None:
    for number, content in enumerate((b"", b'\x08\0\0\0\0\0\0\0{"a": 1', os.urandom(4096), b"\xff" * 16)):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(content)
        refused(path, home)


def test_weights_in_4_bits_or_integers_are_refused(tiny: Path, home: Home, tmp_path: Path) -> None:
    name = "double_blocks.0.img_mlp.0.weight"
    for number, change in enumerate((
        {f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(3, dtype=torch.uint8), name: torch.zeros(8, dtype=torch.uint8)},
        {name: torch.zeros(128, 32, dtype=torch.int8)},
        {name.replace("weight", "weight_scale"): torch.zeros(128, 2)},
    )):  # fmt: skip
        content = originals(tiny)["transformer"] | change
        words = refused(write(tmp_path / f"{number}.safetensors", content, told(tiny, "transformer")), home)
        assert "cannot be trained from" in words


def test_other_members_of_the_family_are_told_apart(tiny: Path, home: Home, tmp_path: Path) -> None:
    content = originals(tiny)["transformer"]
    fill = content | {"img_in.weight": torch.zeros(32, 384)}
    assert "FLUX.1 Fill" in refused(write(tmp_path / "fill.safetensors", fill, told(tiny, "transformer")), home)
    assert "heads are 16 wide" in refused(write(tmp_path / "narrow.safetensors", content, {}), home)
    gap = {key.replace("single_blocks.0.", "single_blocks.7."): value for key, value in content.items()}
    assert "some are missing" in refused(write(tmp_path / "gap.safetensors", gap, told(tiny, "transformer")), home)


def test_another_vae_clip_or_t5_is_told_apart(tiny: Path, tmp_path: Path) -> None:
    parts = originals(tiny)
    vae = parts["vae"] | {"decoder.conv_in.weight": torch.zeros(8, 4, 3, 3)}
    big = parts["text_encoder"] | {"text_model.embeddings.token_embedding.weight": torch.zeros(4, 1280)}
    umt5 = parts["text_encoder_2"] | {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": torch.zeros(32, 4)}
    for name, content, words in (("a", vae, "4 latent channels"), ("b", big, "CLIP-G"), ("c", umt5, "UMT5")):
        with pytest.raises(UsageError, match=words):
            identify(write(tmp_path / f"{name}.safetensors", content, {}))


def test_a_stable_diffusion_checkpoint_is_not_taken_for_its_vae(tiny: Path, home: Home, tmp_path: Path) -> None:
    content = prefixed(originals(tiny)["vae"], "first_stage_model.")
    content["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(4)
    assert "Stable Diffusion model" in refused(write(tmp_path / "sd.safetensors", content, {}), home)


def test_strangers_in_the_folder_of_models_disturb_nothing(models: Path, home: Home, tmp_path: Path) -> None:
    for name in FILES.values():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).symlink_to(models / name)
    os.mkfifo(tmp_path / "m" / "vae" / "a.safetensors")
    (tmp_path / "m" / "vae" / "b.safetensors").write_bytes(b"GGUF....")
    (tmp_path / "m" / "clip" / "a.safetensors").symlink_to("nowhere")
    write(tmp_path / "m" / "clip" / "b.safetensors", {"lora_A.weight": torch.zeros(2)}, {})
    seen = recognise(str(tmp_path / "m" / FILES["transformer"]), home)
    assert seen.collection is not None
    assert {found.path.name for found in seen.collection.parts.values()} == {Path(name).name for name in FILES.values()}
