"""The demo's training by diffusers' own script `examples/dreambooth/train_dreambooth_lora_flux.py`, for `bench/peer.py`.

It is run as it stands but for one number: its 77 CLIP tokens, of which the pico model has 20. Without its `--cache_latents`,
which takes the latents in the order of the first epoch while captions come in the order of the present one: with it 22 % of the
prompts with the trigger showed the concept, and none of the old ones what it asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from _peers import BATCH, RANK, RATE, SIGMA_MEAN, WARM_UP, Taken, run

from fluxtui.demo import IMAGES_DIR, PICO_DIR, TRIGGER

NOT_EQUAL = (
    "its rate does not fall at the end",
    "it encodes pictures and captions in every step: its --cache_latents pairs captions with other pictures",
    "its noise levels are 1000, ours any number between 0 and 1",
)
ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
MLP = ("attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")


def layers() -> str:
    """The product's default layers, as the script wants them: a bare `proj_out` would mean the model's last layer too."""
    config = json.loads((Path(PICO_DIR) / "transformer/config.json").read_text())
    singles = (f"single_transformer_blocks.{number}.proj_out" for number in range(config["num_single_layers"]))
    return ",".join([*ATTENTION, *MLP, *singles])


def as_dataset(folder: Path) -> None:
    """The demo's pictures in the layout that the datasets library reads."""
    folder.mkdir()
    lines = []
    for picture in sorted(Path(IMAGES_DIR).glob("*.png")):
        shutil.copy(picture, folder)
        lines.append(json.dumps({"file_name": picture.name, "text": picture.with_suffix(".txt").read_text().strip()}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def fitted(script: Path, folder: Path) -> None:
    """The script with the pico model's number of CLIP tokens. Raises `SystemExit` where it is not the script that is meant."""
    text = script.read_text()
    if text.count("max_length=77") < 1:
        raise SystemExit(f"{script} has no max_length=77: give diffusers' train_dreambooth_lora_flux.py")
    tokens = json.loads((Path(PICO_DIR) / "text_encoder/config.json").read_text())["max_position_embeddings"]
    (folder / "script.py").write_text(text.replace("max_length=77", f"max_length={tokens}"))


def prepare(script: Path, folder: Path) -> None:
    """The fitted script and the pictures, in `folder`. Raises `SystemExit` where it is not the script that is meant."""
    fitted(script, folder)
    as_dataset(folder / "data")


def train(python: str, folder: Path, steps: int, seed: int, more: Sequence[str] = ()) -> tuple[Taken, Path]:
    """What the command takes to its end, and the LoRA file."""
    tokens = json.loads((Path(PICO_DIR) / "tokenizer_2/tokenizer_config.json").read_text())["model_max_length"]
    output = folder / f"out-{steps}"
    words = {
        "pretrained_model_name_or_path": PICO_DIR, "dataset_name": folder / "data", "caption_column": "text",
        "instance_prompt": TRIGGER, "output_dir": output, "resolution": 64, "train_batch_size": BATCH, "max_train_steps": steps,
        "rank": RANK, "lora_alpha": RANK, "lora_layers": layers(), "learning_rate": RATE, "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": WARM_UP, "guidance_scale": 1, "weighting_scheme": "logit_normal", "logit_mean": -SIGMA_MEAN,
        "mixed_precision": "no", "max_sequence_length": tokens, "seed": seed, "checkpointing_steps": 10**6,
    }  # fmt: skip
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    return run([python, "script.py", *more, *options], folder), output / "pytorch_lora_weights.safetensors"
