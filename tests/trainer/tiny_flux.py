"""A random FLUX.1 pipeline in diffusers layout, small enough for a test: every part is the real class, nothing is trained.

    folder = tiny_flux(tmp_path / "model")                  # dev kind: guidance_embeds = true
    folder = tiny_flux(tmp_path / "model", kind="schnell")
    folder = little_pictures(tmp_path / "data", count=5)    # images with captions

As a script: `python -m tests.trainer.tiny_flux FOLDER [dev|schnell]`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

TEXT_TOKENS = 16
WORDS = ("a", "photo", "of", "red", "green", "blue", "square", "circle", "on", "gray", "in", "the", "zorp")

Kind = Literal["dev", "schnell"]


def tiny_flux(folder: Path, kind: Kind = "dev", seed: int = 0, **transformer: Any) -> Path:
    """Writes the pipeline to `folder` and gives it back. Keywords go to the transformer's configuration."""
    import torch
    from diffusers import FluxPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip_tokenizer, t5_tokenizer = new_clip_tokenizer(), new_t5_tokenizer()
        pipeline = FluxPipeline(
            scheduler=new_scheduler(kind),
            vae=new_vae(),
            text_encoder=new_clip(clip_tokenizer),
            tokenizer=clip_tokenizer,
            text_encoder_2=new_t5(t5_tokenizer),
            tokenizer_2=t5_tokenizer,
            transformer=new_transformer(kind, **transformer),
        )
    pipeline.save_pretrained(folder)
    return folder


def new_transformer(kind: Kind = "dev", **changes: Any) -> Any:
    """2 double and 2 single blocks of width 32."""
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    config: dict[str, Any] = {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 24,
        "guidance_embeds": kind == "dev",
        "axes_dims_rope": (4, 6, 6),
    }
    return FluxTransformer2DModel(**(config | changes))


def new_vae() -> Any:
    """16 latent channels at an eighth of the sides, as FLUX.1's."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=16,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def new_scheduler(kind: Kind = "dev") -> Any:
    """Each kind's own: dev shifts by the number of image tokens, schnell not at all."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    if kind == "schnell":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def new_t5(tokenizer: Any) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=1,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def new_clip(tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=24,
            intermediate_size=32,
            projection_dim=24,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=TEXT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_t5_tokenizer() -> Any:
    """Unigram: a few words, every printable ASCII character."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -4.0) for word in WORDS]
    pieces += [(chr(code), -12.0) for code in range(33, 127)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TEXT_TOKENS)


def new_clip_tokenizer() -> Any:
    """Byte-level BPE without merges: each character is a token."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: index for index, name in enumerate(names)}, merges=[], model_max_length=TEXT_TOKENS)


def little_pictures(folder: Path, count: int = 5, size: tuple[int, int] = (64, 64)) -> Path:
    """`count` PNGs of a coloured square each, with captions; no two alike."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    colours = {"red": (215, 25, 30), "green": (15, 140, 45), "blue": (25, 55, 220)}
    for number in range(count):
        name = tuple(colours)[number % 3]
        picture = Image.new("RGB", size, (100 + 20 * number % 150,) * 3)
        left = 4 + 5 * number % 30
        ImageDraw.Draw(picture).rectangle((left, 8, left + 24, 40), fill=colours[name])
        picture.save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"a {name} square on gray\n")
    return folder


if __name__ == "__main__":
    tiny_flux(Path(sys.argv[1]), kind="schnell" if sys.argv[2:] == ["schnell"] else "dev")
