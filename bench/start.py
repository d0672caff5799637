"""Seconds from `fluxtui start` to the first optimizer step, beside the sum of what cannot be avoided, each part listed.

    python bench/start.py [--runs N]

The floor is one bare process: interpreter, imports, the weights read by diffusers and transformers themselves, each caption
and each picture encoded once, and one training step. The run is the product: a keeper, a trainer, an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from _clock import row, seconds

FLUXTUI = str(Path(sys.executable).with_name("fluxtui"))
SETS = ["sample.at_start=false", "sample.every_epochs=0", "train.steps=3", "train.warmup_steps=1"]

BARE = """
import json, sys, time
from pathlib import Path
taken, last = {}, time.perf_counter()
def done(name):
    global last
    now = time.perf_counter(); taken[name] = now - last; last = now
import torch
done("import torch")
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers.models.t5.modeling_t5 import T5EncoderModel
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.t5.tokenization_t5 import T5Tokenizer
from transformers.models.clip.tokenization_clip import CLIPTokenizer
done("import diffusers and transformers")
from peft import LoraConfig
import accelerate
done("import peft and accelerate")
import numpy
from PIL import Image
from fluxtui.demo import IMAGES_DIR, PICO_DIR
folder, images = Path(PICO_DIR), Path(IMAGES_DIR)
t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
clip = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
words2, words = T5Tokenizer.from_pretrained(folder / "tokenizer_2"), CLIPTokenizer.from_pretrained(folder / "tokenizer")
vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
model = FluxTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
done("load the pipeline")
with torch.no_grad():
    for file in sorted(images.glob("*.txt")):
        text = file.read_text().strip()
        t5(**words2(text, return_tensors="pt", padding="max_length", truncation=True, max_length=words2.model_max_length))
        clip(**words(text, return_tensors="pt", padding="max_length", truncation=True, max_length=words.model_max_length))
    for file in sorted(images.glob("*.png")):
        pixels = torch.from_numpy(numpy.asarray(Image.open(file).convert("RGB")).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        latents = vae.encode(pixels).latent_dist.mode()
done("encode captions and pictures")
model.requires_grad_(False)
model.add_adapter(LoraConfig(r=16, target_modules=["to_q", "to_k", "to_v"]))
tokens = torch.randn(8, 16, 64)
ids = torch.zeros(16, 3)
text = torch.randn(8, words2.model_max_length, model.config.joint_attention_dim)
out = model(tokens, timestep=torch.rand(8), guidance=torch.ones(8), encoder_hidden_states=text, img_ids=ids,
    pooled_projections=torch.randn(8, model.config.pooled_projection_dim), txt_ids=torch.zeros(text.shape[1], 3))[0]
out.square().mean().backward()
done("one step")
print(json.dumps(taken))
"""


def bare() -> dict[str, float]:
    """Seconds of each unavoidable part, two interpreters (keeper and trainer) included."""
    interpreter = seconds([sys.executable, "-c", "pass"])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", BARE], check=True, capture_output=True, text=True)
    return {"two interpreters": 2 * interpreter, **json.loads(done.stdout.splitlines()[-1])}


def product(folder: str) -> float:
    """Wall seconds from calling `fluxtui start` to the line of the first step in metrics.jsonl."""
    environment = {**os.environ, "FLUXTUI_HOME": folder}
    sets = [word for pair in SETS for word in ("--set", pair)]
    new = [FLUXTUI, "new", "first", "--model", "pico", "--dataset", "demo", *sets]
    subprocess.run(new, env=environment, check=True, stdout=2)
    began = time.time()
    subprocess.run([FLUXTUI, "start", "first"], env=environment, check=True, stdout=2)
    subprocess.run([FLUXTUI, "wait", "first", "--timeout", "120"], env=environment, check=True, stdout=2)
    line = json.loads((Path(folder) / "sessions/first/metrics.jsonl").read_text().splitlines()[0])
    return datetime.fromisoformat(line["at"]).timestamp() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    floors: list[dict[str, float]] = []
    runs: list[float] = []
    for _ in range(parser.parse_args().runs):
        floors.append(bare())
        with tempfile.TemporaryDirectory() as folder:
            runs.append(product(folder))
    for name in floors[0]:
        print(row(f"  floor: {name}", [floor[name] for floor in floors]))
    sums = [sum(floor.values()) for floor in floors]
    print(row("sum of the floors", sums))
    print(row("fluxtui start to the first optimizer step", runs, 15))
    print(f"{'ratio, pair by pair, median':<58}{statistics.median(a / b for a, b in zip(runs, sums, strict=True)):9.2f}")


if __name__ == "__main__":
    main()
