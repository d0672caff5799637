"""The demo's training by diffusers' own LoRA script and by `fluxtui`, one after the other: seconds, and what either file learnt.

    python bench/peer.py --script train_dreambooth_lora_flux.py [--python PYTHON] [--steps N] [--runs N]

The script is `examples/dreambooth/train_dreambooth_lora_flux.py` of diffusers' repository; PYTHON an interpreter that has what it
imports beside the product's own libraries (torchvision, datasets, ftfy). It is run as it stands but for one number: its 77 CLIP
tokens, of which the pico model has 20. Same pictures, captions, rank, layers, batch, learning rate and steps, and noise levels of
about the same distribution; seeds and warm-up are each one's own. Without its `--cache_latents`, which takes the latents in the
order of the first epoch while captions come in the order of the present one: with it (`--cache-latents` here) 22 % of the prompts
with the trigger showed the concept, and none of the old ones what it asked for. The judge of `fluxtui.demo` counts, for 64
prompts each, how often the new concept is drawn where it is asked for, and the old shapes where they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _clock import row

from fluxtui.demo import IMAGES_DIR, PICO_DIR, TRIGGER
from fluxtui.demo.measure import Figures, load, measure
from fluxtui.persist.home import Home

FLUXTUI = str(Path(sys.executable).with_name("fluxtui"))
ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
MLP = ("attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")
RANK, BATCH, RATE, WARM_UP = 16, 8, 0.003, 20  # the demo's recipe


def layers() -> str:
    """The product's default layers, as the script wants them: a bare `proj_out` would mean the model's last layer too."""
    config = json.loads((Path(PICO_DIR) / "transformer/config.json").read_text())
    singles = (f"single_transformer_blocks.{number}.proj_out" for number in range(config["num_single_layers"]))
    return ",".join([*ATTENTION, *MLP, *singles])


def as_dataset(folder: Path) -> Path:
    """The demo's pictures in the layout that the datasets library reads."""
    folder.mkdir()
    lines = []
    for picture in sorted(Path(IMAGES_DIR).glob("*.png")):
        shutil.copy(picture, folder)
        lines.append(json.dumps({"file_name": picture.name, "text": picture.with_suffix(".txt").read_text().strip()}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def fitted(script: Path, folder: Path) -> Path:
    """The script with the pico model's number of CLIP tokens. Raises `SystemExit` where it is not the script that is meant."""
    text = script.read_text()
    if text.count("max_length=77") < 1:
        raise SystemExit(f"{script} has no max_length=77: give diffusers' train_dreambooth_lora_flux.py")
    tokens = json.loads((Path(PICO_DIR) / "text_encoder/config.json").read_text())["max_position_embeddings"]
    path = folder / "script.py"
    path.write_text(text.replace("max_length=77", f"max_length={tokens}"))
    return path


def peer(python: str, script: Path, folder: Path, steps: int, more: list[str]) -> tuple[float, Path]:
    """Wall seconds from the command to its end, and the LoRA file."""
    tokens = json.loads((Path(PICO_DIR) / "tokenizer_2/tokenizer_config.json").read_text())["model_max_length"]
    output = folder / f"out-{steps}"
    words = {
        "pretrained_model_name_or_path": PICO_DIR, "dataset_name": folder / "data", "caption_column": "text",
        "instance_prompt": TRIGGER, "output_dir": output, "resolution": 64, "train_batch_size": BATCH, "max_train_steps": steps,
        "rank": RANK, "lora_alpha": RANK, "lora_layers": layers(), "learning_rate": RATE, "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": WARM_UP, "guidance_scale": 1, "weighting_scheme": "logit_normal", "logit_mean": -1.0,
        "mixed_precision": "no", "max_sequence_length": tokens, "seed": 42, "checkpointing_steps": 10**6,
    }  # fmt: skip
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    command = [python, str(script), *more, *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the script failed: {done.stderr[-2000:]}")
    return time.perf_counter() - began, output / "pytorch_lora_weights.safetensors"


def own(folder: Path, steps: int) -> tuple[float, float, Path]:
    """Wall seconds from `fluxtui start` to the proof, median seconds a step, and the LoRA file. Empty caches, no samples."""
    environment = {**os.environ, "FLUXTUI_HOME": str(folder / "home")}
    sets = {
        "sample.prompts": "[]", "sample.at_start": "false", "sample.every_epochs": 0, "checkpoint.every_steps": 0,
        "train.steps": steps, "train.batch_size": BATCH, "train.learning_rate": RATE, "train.warmup_steps": WARM_UP,
        "lora.rank": RANK, "lora.alpha": RANK,
    }  # fmt: skip
    words = [word for name, value in sets.items() for word in ("--set", f"{name}={value}")]
    new = [FLUXTUI, "new", "peer", "--model", "pico", "--dataset", "demo", *words]
    subprocess.run(new, env=environment, check=True, stdout=2)
    began = time.perf_counter()
    subprocess.run([FLUXTUI, "start", "peer"], env=environment, check=True, stdout=2)
    subprocess.run([FLUXTUI, "wait", "peer", "--timeout", "3600"], env=environment, check=True, stdout=2)
    taken = time.perf_counter() - began
    lines = (folder / "home/sessions/peer/metrics.jsonl").read_text().splitlines()
    seconds = [found["seconds"] for line in lines if "seconds" in (found := json.loads(line))]
    return taken, statistics.median(seconds), Home.open(folder / "home").session("peer").product


def words_of(name: str, figures: Figures) -> str:
    """What a file learnt, and what it forgot."""
    new = f"prompts with the trigger: the new concept {figures.concept:6.1%}, in its colour {figures.concept_colour:6.1%}"
    return f"  {name:<10} {new}; old prompts: all as asked for {figures.old.all_three:6.1%}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", type=Path, help="diffusers' train_dreambooth_lora_flux.py")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs it")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--cache-latents", action="store_true", help="give the script its --cache_latents: see above")
    options = parser.parse_args()
    more = ["--cache_latents"] if options.cache_latents else []
    if options.script is None:
        print("left out: --script names diffusers' train_dreambooth_lora_flux.py, which is not shipped here")
        return 0
    theirs: list[float] = []
    their_steps: list[float] = []
    ours: list[float] = []
    our_steps: list[float] = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            as_dataset(folder / "data")
            script = fitted(options.script, folder)
            short, _file = peer(options.python, script, folder, 2, more)
            whole, their_file = peer(options.python, script, folder, options.steps, more)
            theirs.append(whole)
            their_steps.append((whole - short) / (options.steps - 2))
            taken, step, our_file = own(folder, options.steps)
            ours.append(taken)
            our_steps.append(step)
            files = {"base": None, "diffusers": their_file, "fluxtui": our_file}
            learnt = {name: measure(load(lora=file)) for name, file in files.items()}
    print(row(f"diffusers' script, {options.steps} steps, command to file", theirs))
    print(row(f"fluxtui, {options.steps} steps, start to proven file", ours))
    print(row("diffusers' script, seconds a step", their_steps))
    print(row("fluxtui, seconds a step", our_steps))
    for name, figures in learnt.items():
        print(words_of(name, figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
