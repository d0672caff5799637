"""A pipeline in diffusers layout taken apart into the single files that ComfyUI and Forge have. Written apart from the reader:
from the names in the authors' own code (github.com/black-forest-labs/flux, src/flux/model.py and modules/autoencoder.py).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]

_TOLD = {
    "transformer": ("axes_dims_rope",),
    "vae": ("norm_num_groups", "scaling_factor", "shift_factor", "sample_size"),
    "text_encoder": ("num_attention_heads", "bos_token_id", "eos_token_id", "pad_token_id"),
    "text_encoder_2": ("relative_attention_max_distance", "pad_token_id", "eos_token_id"),
}


def weights(folder: Path, part: str) -> Weights:
    return {name: value for file in sorted((folder / part).glob("*.safetensors")) for name, value in load_file(file).items()}


def config(folder: Path, part: str) -> dict[str, Any]:
    return dict(json.loads((folder / part / "config.json").read_text()))


def original_transformer(w: Weights, double: int, single: int) -> Weights:
    """The authors' names: `Flux.state_dict()`."""
    out: Weights = {}

    def linear(theirs: str, *ours: str) -> None:
        for kind in ("weight", "bias"):
            out[f"{theirs}.{kind}"] = torch.cat([w[f"{name}.{kind}"] for name in ours])

    linear("img_in", "x_embedder")
    linear("txt_in", "context_embedder")
    for theirs, ours in (("time_in", "timestep_embedder"), ("vector_in", "text_embedder"), ("guidance_in", "guidance_embedder")):
        if f"time_text_embed.{ours}.linear_1.weight" in w:
            linear(f"{theirs}.in_layer", f"time_text_embed.{ours}.linear_1")
            linear(f"{theirs}.out_layer", f"time_text_embed.{ours}.linear_2")
    for i in range(double):
        b, d = f"transformer_blocks.{i}", f"double_blocks.{i}"
        linear(f"{d}.img_mod.lin", f"{b}.norm1.linear")
        linear(f"{d}.txt_mod.lin", f"{b}.norm1_context.linear")
        linear(f"{d}.img_attn.qkv", *(f"{b}.attn.to_{x}" for x in "qkv"))
        linear(f"{d}.txt_attn.qkv", *(f"{b}.attn.add_{x}_proj" for x in "qkv"))
        linear(f"{d}.img_attn.proj", f"{b}.attn.to_out.0")
        linear(f"{d}.txt_attn.proj", f"{b}.attn.to_add_out")
        for stream, ours in (("img", "ff"), ("txt", "ff_context")):
            linear(f"{d}.{stream}_mlp.0", f"{b}.{ours}.net.0.proj")
            linear(f"{d}.{stream}_mlp.2", f"{b}.{ours}.net.2")
        for stream, ours in (("img", "norm_"), ("txt", "norm_added_")):
            out[f"{d}.{stream}_attn.norm.query_norm.scale"] = w[f"{b}.attn.{ours}q.weight"]
            out[f"{d}.{stream}_attn.norm.key_norm.scale"] = w[f"{b}.attn.{ours}k.weight"]
    for i in range(single):
        b, s = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
        linear(f"{s}.modulation.lin", f"{b}.norm.linear")
        linear(f"{s}.linear1", *(f"{b}.attn.to_{x}" for x in "qkv"), f"{b}.proj_mlp")
        linear(f"{s}.linear2", f"{b}.proj_out")
        out[f"{s}.norm.query_norm.scale"] = w[f"{b}.attn.norm_q.weight"]
        out[f"{s}.norm.key_norm.scale"] = w[f"{b}.attn.norm_k.weight"]
    linear("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):  # the authors: shift before scale
        scale, shift = w[f"norm_out.linear.{kind}"].chunk(2)
        out[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    return out


def original_vae(w: Weights) -> Weights:
    """The authors' names: `AutoEncoder.state_dict()`; q, k, v and proj_out are 1×1 convolutions there."""
    ups = 1 + max(int(name.split(".")[2]) for name in w if name.startswith("decoder.up_blocks."))
    out: Weights = {}
    for name, value in w.items():
        side, *rest = name.split(".")
        match rest:
            case ["down_blocks", i, "resnets", j, *tail]:
                new = ["down", i, "block", j, *tail]
            case ["down_blocks", i, "downsamplers", "0", *tail]:
                new = ["down", i, "downsample", *tail]
            case ["up_blocks", i, "resnets", j, *tail]:
                new = ["up", str(ups - 1 - int(i)), "block", j, *tail]
            case ["up_blocks", i, "upsamplers", "0", *tail]:
                new = ["up", str(ups - 1 - int(i)), "upsample", *tail]
            case ["mid_block", "resnets", j, *tail]:
                new = ["mid", f"block_{int(j) + 1}", *tail]
            case ["mid_block", "attentions", "0", "group_norm", kind]:
                new = ["mid", "attn_1", "norm", kind]
            case ["mid_block", "attentions", "0", "to_out", "0", kind]:
                new = ["mid", "attn_1", "proj_out", kind]
            case ["mid_block", "attentions", "0", to, kind]:
                new = ["mid", "attn_1", to.removeprefix("to_"), kind]
            case ["conv_norm_out", kind]:
                new = ["norm_out", kind]
            case _:
                new = rest
        new = ["nin_shortcut" if word == "conv_shortcut" else word for word in new]
        if "attn_1" in new and "norm" not in new and new[-1] == "weight":
            value = value[:, :, None, None]
        out[".".join([side, *new])] = value
    return out


def originals(folder: Path) -> dict[str, Weights]:
    """Each part of a pipeline under the names of single files, without a prefix."""
    shape = config(folder, "transformer")
    transformer = original_transformer(weights(folder, "transformer"), shape["num_layers"], shape["num_single_layers"])
    return {
        "transformer": transformer,
        "vae": original_vae(weights(folder, "vae")),
        "text_encoder": {f"text_model.{name}": value for name, value in weights(folder, "text_encoder").items()},
        "text_encoder_2": weights(folder, "text_encoder_2"),
    }


def told(folder: Path, *parts: str) -> dict[str, str]:
    """The metadata that say what no shape tells; a FLUX.1 of full size needs none."""
    said = {part: {key: value for key, value in config(folder, part).items() if key in _TOLD[part]} for part in parts}
    return {"config": json.dumps(said)}


def write(path: Path, content: Weights, metadata: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in content.items()}, path, metadata)
    return path


FILES = {
    "transformer": "unet/some-flux.safetensors", "vae": "vae/ae.safetensors", "text_encoder": "clip/clip_l.safetensors",
    "text_encoder_2": "clip/t5xxl_fp16.safetensors",
}  # fmt: skip


def take_apart(folder: Path, models: Path) -> dict[str, Path]:
    """The pipeline as files in ComfyUI's layout; and its tokenizers, where such a program would have them."""
    made = {part: write(models / FILES[part], content, told(folder, part)) for part, content in originals(folder).items()}
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(folder / name, models / name)
    return made


def prefixed(content: Weights, prefix: str) -> Weights:
    return {prefix + name: value for name, value in content.items()}


def float8(content: Weights, scaled: bool, rows: bool = False) -> tuple[Weights, Weights]:
    """(as an fp8 checkpoint stores it, what those bytes mean in float32). Only matrices are stored in 8 bits where scaled."""
    stored: Weights = {}
    meant: Weights = {}
    for name, value in content.items():
        if not scaled:
            stored[name] = value.to(torch.float8_e4m3fn)
            meant[name] = stored[name].float()
        elif name.endswith(".weight") and value.dim() == 2 and "embed" not in name and "shared" not in name:
            largest = value.float().abs().amax(dim=1, keepdim=True) if rows else value.float().abs().max()
            scale = largest.clamp(min=1e-12) / 448.0
            stored[name] = (value.float() / scale).to(torch.float8_e4m3fn)
            stored[name.removesuffix("weight") + ("weight_scale" if rows else "scale_weight")] = scale
            meant[name] = stored[name].float() * scale
        else:
            stored[name], meant[name] = value, value.float()
    if scaled:
        stored["scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    return stored, meant
