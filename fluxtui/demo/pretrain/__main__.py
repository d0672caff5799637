"""`python -m fluxtui.demo.pretrain STAGE --work DIR`: makes the pico pipeline and the data set.

`vae`, `flow` and `assemble` (which writes --out with its README and figures) one after another, or `all` of them; each goes
on where it was stopped. `images` writes the demo's data set. Private checkpoints lie in `--work`. Seeds, plans and the
thread count decide every byte on one kind of processor, however often the making was interrupted.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from fluxtui.demo import PICO_DIR, measure
from fluxtui.demo.pretrain import assemble, bank, checkpoints, dataset, flow, models, tokenizers, vae
from fluxtui.demo.pretrain.readme import readme

THREADS = 2
PICTURES = 24_000  # of the world, drawn and encoded once


def main() -> None:
    """Runs one stage, or all that make the pipeline."""
    parser = argparse.ArgumentParser(prog="python -m fluxtui.demo.pretrain", description=__doc__)
    parser.add_argument("stage", choices=("vae", "flow", "assemble", "all", "images"))
    parser.add_argument("--work", type=Path, default=Path("pico-work"), help="folder of the private checkpoints")
    parser.add_argument("--vae-steps", type=int, default=vae.VaePlan().steps, help="optimizer steps of the stage vae")
    parser.add_argument("--steps", type=int, default=flow.FlowPlan().steps, help="optimizer steps of the stage flow")
    parser.add_argument("--out", type=Path, default=PICO_DIR, help="assemble: the pipeline's folder")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    stages = ("vae", "flow", "assemble") if args.stage == "all" else (args.stage,)
    for stage in stages:
        match stage:
            case "vae":
                vae.train(args.work / "vae.pt", vae.VaePlan(args.vae_steps))
            case "flow":
                train_transformer(args.work, flow.FlowPlan(args.steps))
            case "assemble":
                write_pipeline(args.work, args.out)
            case "images":
                dataset.write()


def load_stage(work: Path, stage: str) -> checkpoints.Kept:
    """What a stage kept; it must have come to its end."""
    kept = checkpoints.load(work / f"{stage}.pt")
    if kept is None or kept["step"] != kept["plan"]["steps"]:
        raise SystemExit(f"The stage {stage} is not at its end in {work}: run `python -m fluxtui.demo.pretrain {stage}` first.")
    return kept


def load_vae(work: Path) -> AutoencoderKL:
    """The VAE of stage 1."""
    coder = vae.new_vae()
    coder.load_state_dict(load_stage(work, "vae")["modules"]["vae"])
    return coder


def load_bank(work: Path, coder: AutoencoderKL) -> bank.Bank:
    """The world's latents, encoded once and kept."""
    kept = checkpoints.load(work / "bank.pt")
    if kept is not None:
        return bank.Bank(**kept)
    world = bank.new_bank(coder, tokenizers.new_t5_tokenizer(), tokenizers.new_clip_tokenizer(), PICTURES, seed=5)
    checkpoints.save(work / "bank.pt", {name: getattr(world, name) for name in bank.Bank.__dataclass_fields__})
    return world


def new_pico() -> flow.Pico:
    """Untrained, seeded."""
    torch.manual_seed(2)
    return flow.Pico(
        models.new_transformer(),
        models.new_t5(tokenizers.new_t5_tokenizer()),
        models.new_clip(tokenizers.new_clip_tokenizer()),
    )


def train_transformer(work: Path, plan: flow.FlowPlan) -> None:
    """Stage 2; the pipeline is assembled into `work/latest` as it goes."""
    coder = load_vae(work)
    world = load_bank(work, coder)
    empty = (
        bank.token_ids(tokenizers.new_t5_tokenizer(), [""]),
        bank.token_ids(tokenizers.new_clip_tokenizer(), [""]),
    )

    def report(average: flow.Pico, step: int) -> None:
        latest = work / "latest"
        assemble.assemble(latest, average.transformer, average.t5, average.clip, coder, world.shift, world.scale)
        print(f"assembled at step {step}: {assemble.folder_bytes(latest)} bytes", flush=True)

    flow.pretrain(new_pico(), world, empty, plan, work / "flow.pt", report)


def write_pipeline(work: Path, out: Path) -> None:
    """Assembles the moving average of the flow stage into `out`, measures it and writes the README with the figures."""
    average, kept = flow.moving_average(new_pico()), load_stage(work, "flow")
    average.load_state_dict(kept["modules"]["average"])
    pico, coder = flow.averaged(average), load_vae(work)
    world = load_bank(work, coder)
    assemble.assemble(out, pico.transformer, pico.t5, pico.clip, coder, world.shift, world.scale)
    figures = measure.measure(measure.load(out))
    parts = {
        title: sum(weight.numel() for weight in part.parameters()) for title, part in (*pico.named_children(), ("vae", coder))
    }
    text = readme(figures, parts, assemble.folder_bytes(out), load_stage(work, "vae")["step"], kept["step"])
    (out / "README.md").write_text(text, encoding="utf-8")
    print(asdict(figures), f"{assemble.folder_bytes(out)} bytes")


if __name__ == "__main__":
    main()
