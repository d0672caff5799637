"""The demo's training by kohya's sd-scripts (branch sd3, `flux_train_network.py`, which FluxGym runs), for `bench/peer.py`.

sd-scripts has the sizes of FLUX.1-dev and of its encoders in its code, so a copy of it is fitted to the pico model: those numbers
and CLIP's 77 tokens. Nothing of how it loads, caches, trains and saves is touched; whether the fitted copy computes what
diffusers computes is asked first. Its CLIP has GELU where OpenAI's has QuickGELU, which moves the pico's pooled output by 0.1 %.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from _peers import BATCH, DECAY, RANK, RATE, SIGMA_MEAN, STEPS, WARM_UP, Taken, run
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent))

from fluxtui.demo import IMAGES_DIR, PICO_DIR
from fluxtui.engine.family.flux1.encode import encode_image_mean, pixels_of
from fluxtui.engine.family.flux1.lora_file import read_factors, to_diffusers
from fluxtui.engine.family.flux1.transformer import scale_latents, velocity
from tests.models.singles import originals, write

CODE = ("library", "networks", "train_network.py", "flux_train_network.py")
NOT_EQUAL = (
    "q, k and v, and a single block's MLP with them, share one A of rank 16 (its split_qkv stops: its issue 2220)",
    "its latents are one draw from the VAE's distribution, ours its mean",
    "its rate is read at the beginning of a step, ours in its middle",
)
LIMITS = {"text": 1e-5, "latents": 1e-5, "velocity": 1e-5, "pooled": 1e-2}  # of differences: GELU is in the last
# Asks the fitted copy for what it makes of captions, a picture and noisy tokens: `probe.py GIVEN FOUND MODELS TOKENS`.
PROBE = """
import sys, torch
from safetensors.torch import load_file, save_file
from library import flux_utils, strategy_flux
given, found, models, tokens = sys.argv[1:]
a = load_file(given)
flat = torch.float32
strategy = strategy_flux.FluxTokenizeStrategy(int(tokens), models + "/tokenizers")
encoders = [flux_utils.load_clip_l(models + "/clip_l.safetensors", flat, "cpu").eval(),
            flux_utils.load_t5xxl(models + "/t5xxl.safetensors", flat, "cpu").eval()]
with torch.no_grad():
    captions = open(models + "/captions.txt").read().splitlines()
    encoding = strategy_flux.FluxTextEncodingStrategy()
    pooled, text, text_ids, _ = encoding.encode_tokens(strategy, encoders, strategy.tokenize(captions))
    vae = flux_utils.load_ae(models + "/ae.safetensors", flat, "cpu")
    vae.reg.sample = False
    latents = vae.encode(a["pixels"])
    _, flux = flux_utils.load_flow_model(models + "/flux1-dev.safetensors", flat, "cpu")
    tokens_in = flux_utils.pack_latents(a["noisy"])
    ids = flux_utils.prepare_img_ids(len(tokens_in), a["noisy"].shape[2] // 2, a["noisy"].shape[3] // 2)
    out = flux(img=tokens_in, img_ids=ids, txt=a["text"], txt_ids=text_ids, y=a["pooled"], timesteps=a["sigma"],
               guidance=torch.ones(len(tokens_in)))
    velocity = flux_utils.unpack_latents(out, a["noisy"].shape[2] // 2, a["noisy"].shape[3] // 2)
save_file({"pooled": pooled, "text": text, "latents": latents, "velocity": velocity.contiguous()}, found)
"""


def config(part: str) -> dict[str, Any]:
    """A part's configuration, or a tokenizer's."""
    name = "tokenizer_config.json" if part.startswith("tokenizer") else "config.json"
    return dict(json.loads((Path(PICO_DIR) / part / name).read_text()))


def changes() -> dict[str, list[tuple[str, str]]]:
    """File of sd-scripts -> (what stands there, what the pico model needs there)."""
    flux, vae, clip, t5 = (config(part) for part in ("transformer", "vae", "text_encoder", "text_encoder_2"))
    width, widths = flux["attention_head_dim"] * flux["num_attention_heads"], vae["block_out_channels"]
    told = ("hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
            "projection_dim", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip
    t5_told = ("d_ff", "d_kv", "d_model", "num_heads", "num_layers", "vocab_size", "relative_attention_max_distance")
    return {
        "library/flux_models.py": [
            ("hidden_size=3072", f"hidden_size={width}"),
            ("vec_in_dim=768", f"vec_in_dim={flux['pooled_projection_dim']}"),
            ("context_in_dim=4096", f"context_in_dim={flux['joint_attention_dim']}"),
            ("num_heads=24", f"num_heads={flux['num_attention_heads']}"),
            ("axes_dim=[16, 56, 56]", f"axes_dim={flux['axes_dims_rope']}"),
            ("ch=128", f"ch={widths[0]}"),
            ("ch_mult=[1, 2, 4, 4]", f"ch_mult={widths}"),
            ("num_res_blocks=2", f"num_res_blocks={vae['layers_per_block']}"),
            ("scale_factor=0.3611", f"scale_factor={vae['scaling_factor']}"),
            ("shift_factor=0.1159", f"shift_factor={vae['shift_factor']}"),
            ("num_groups=32", f"num_groups={vae['norm_num_groups']}"),
            ("in_ch_mult = (1,)", f"in_ch_mult = ({widths[0]},)"),  # the pico's widths are no multiples of the first
            ("ch * in_ch_mult[i_level]", "in_ch_mult[i_level]"),
            ("ch * ch_mult[", "ch_mult["),
        ],
        "library/flux_utils.py": [
            ("CLIPConfig(**CLIPL_CONFIG)", f"CLIPConfig(**CLIPL_CONFIG | {({name: clip[name] for name in told})})"),
            ("T5Config(**config)", f"T5Config(**config | {({name: t5[name] for name in t5_told})})"),
        ],
        "library/strategy_flux.py": [
            ("max_length=77", f"max_length={clip['max_position_embeddings']}"),
            ("import CLIPTokenizer, T5TokenizerFast", "import PreTrainedTokenizerFast as CLIPTokenizer, T5TokenizerFast"),
        ],
    }  # fmt: skip


def fitted(kohya: Path, folder: Path) -> None:
    """A copy of sd-scripts that takes the pico model. Raises `SystemExit` where the code is not the one that is meant."""
    for name in CODE:
        if not (kohya / name).exists():
            raise SystemExit(f"{kohya} has no {name}: give a clone of kohya-ss/sd-scripts, branch sd3")
        (shutil.copytree if (kohya / name).is_dir() else shutil.copy)(kohya / name, folder / name)
    for name, pairs in changes().items():
        text = (folder / name).read_text()
        for old, new in pairs:
            if old not in text:
                raise SystemExit(f"{kohya / name} has no {old!r}: it is another version of sd-scripts than bench/_kohya.py knows")
            text = text.replace(old, new)
        (folder / name).write_text(text)


def as_files(folder: Path) -> None:
    """The pico model as sd-scripts reads one: four single files, and the tokenizers where it looks before it asks the hub."""
    names = {"transformer": "flux1-dev", "vae": "ae", "text_encoder": "clip_l", "text_encoder_2": "t5xxl"}
    for part, content in originals(Path(PICO_DIR)).items():
        write(folder / f"{names[part]}.safetensors", content, {})
    for name, known in (("tokenizer", "openai_clip-vit-large-patch14"), ("tokenizer_2", "google_t5-v1_1-xxl")):
        shutil.copytree(Path(PICO_DIR) / name, folder / "tokenizers" / known)
        told = {key: value for key, value in config(name).items() if key != "extra_special_tokens"}  # a list is transformers 5's
        (folder / "tokenizers" / known / "tokenizer_config.json").write_text(json.dumps(told))


def dataset(folder: Path) -> None:
    """The demo's pictures and captions, plainly: those that keep the old shapes are trained like the others, as here."""
    (folder / "data").mkdir()
    for file in Path(IMAGES_DIR).iterdir():
        shutil.copy(file, folder / "data")
    (folder / "data.toml").write_text(
        f"[[datasets]]\nresolution = 64\nbatch_size = {BATCH}\nenable_bucket = false\n\n"
        f'[[datasets.subsets]]\nimage_dir = "{folder / "data"}"\ncaption_extension = ".txt"\n'
    )


@torch.no_grad()
def differences(python: str, folder: Path) -> dict[str, float]:
    """The fitted copy beside diffusers, given the same: largest difference over largest value, of each part's output."""
    from diffusers import FluxPipeline
    from PIL import Image

    models = folder / "models"
    pipeline = FluxPipeline.from_pretrained(PICO_DIR, torch_dtype=torch.float32)
    pictures = sorted(Path(IMAGES_DIR).glob("*.png"))[::6][:BATCH]
    captions = [picture.with_suffix(".txt").read_text().strip() for picture in pictures]
    (models / "captions.txt").write_text("\n".join(captions))
    pixels = torch.cat([pixels_of(Image.open(picture).convert("RGB")) for picture in pictures])
    text, pooled, _ = pipeline.encode_prompt(captions, None, max_sequence_length=pipeline.tokenizer_2.model_max_length)
    latents = scale_latents(encode_image_mean(pipeline.vae, pixels), pipeline.vae.config)
    sigma = torch.linspace(0.02, 0.98, len(pictures))
    share = sigma.view(-1, 1, 1, 1)
    noisy = (1 - share) * latents + share * torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    wanted = {"pooled": pooled, "text": text, "latents": latents}
    wanted["velocity"] = velocity(pipeline.transformer, noisy, sigma, text, pooled, guidance=1.0)
    given = {"pixels": pixels, "noisy": noisy, "sigma": sigma, "text": text, "pooled": pooled}
    write(models / "given.safetensors", given, {})
    tokens = config("tokenizer_2")["model_max_length"]
    paths = (models / "given.safetensors", models / "found.safetensors", models)
    (folder / "probe.py").write_text(PROBE)
    run([python, "probe.py", *(str(path) for path in paths), str(tokens)], folder)
    found = load_file(models / "found.safetensors")
    return {name: ((found[name] - value).abs().max() / value.abs().max()).item() for name, value in wanted.items()}


def prepare(kohya: Path, folder: Path, python: str) -> None:
    """The fitted code, the model and the pictures, in `folder`. Raises `SystemExit` where it would not train the same model."""
    fitted(kohya, folder)
    as_files(folder / "models")
    dataset(folder)
    found = differences(python, folder)
    told = ", ".join(f"{name} {difference:.1e}" for name, difference in found.items())
    if any(found[name] > limit for name, limit in LIMITS.items()):
        raise SystemExit(f"the fitted sd-scripts computes another model than diffusers, so that nothing is compared: {told}")
    print(f"the fitted sd-scripts beside diffusers, largest difference over largest value: {told}")


def train(python: str, folder: Path, steps: int, seed: int) -> tuple[Taken, Path]:
    """What the command takes to its end, and the LoRA file, under diffusers' keys."""
    models = folder / "models"
    words: dict[str, object] = {
        "pretrained_model_name_or_path": models / "flux1-dev.safetensors", "ae": models / "ae.safetensors",
        "clip_l": models / "clip_l.safetensors", "t5xxl": models / "t5xxl.safetensors",
        "tokenizer_cache_dir": models / "tokenizers",
        "t5xxl_max_token_length": config("tokenizer_2")["model_max_length"], "dataset_config": folder / "data.toml",
        "output_dir": folder / f"out-{steps}", "output_name": "lora", "save_model_as": "safetensors", "save_precision": "float",
        "mixed_precision": "no", "network_module": "networks.lora_flux", "network_dim": RANK, "network_alpha": RANK,
        "optimizer_type": "AdamW", "learning_rate": RATE, "max_grad_norm": 1, "max_train_steps": steps,
        "lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": WARM_UP / STEPS, "lr_decay_steps": DECAY,
        "lr_scheduler_args": "decay_type='linear'", "timestep_sampling": "shift", "discrete_flow_shift": math.exp(SIGMA_MEAN),
        "model_prediction_type": "raw", "guidance_scale": 1, "loss_type": "l2", "seed": seed, "max_data_loader_n_workers": 0,
    }  # fmt: skip
    more = ["--network_train_unet_only", "--cache_latents", "--cache_text_encoder_outputs", "--sdpa"]
    more += ["--highvram"]  # as FluxGym has it: else garbage is collected after each picture, which takes longer than encoding it
    more += ["--network_args", "img_mod_dim=0", "txt_mod_dim=0", "single_mod_dim=0"]
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    taken = run([python, "flux_train_network.py", *options, *more], folder)
    return taken, as_diffusers(folder / f"out-{steps}" / "lora.safetensors")


def as_diffusers(file: Path) -> Path:
    """The file under diffusers' keys: diffusers' own reader of kohya's has the width 3072 in its code, ours asks the model."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config(config("transformer"))
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    shapes = {name: (layer.out_features, layer.in_features) for name, layer in linear.items()}
    path = file.with_name("diffusers.safetensors")
    tensors = to_diffusers(read_factors(load_file(file), shapes))
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)  # q, k and v share one A
    return path
