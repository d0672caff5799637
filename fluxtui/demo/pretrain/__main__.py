"""`python -m fluxtui.demo.pretrain STAGE --work DIR`: makes the pico pipeline and the data set, stage by stage.

`vae` (minutes), `flow` (steps; goes on where it was stopped), `distil` (steps; optional), `assemble` (writes --out with
its README and figures), `images` (writes the demo's data set). The private checkpoints lie in `--work`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from fluxtui.demo import PICO_DIR, measure
from fluxtui.demo.pretrain import assemble, bank, checkpoints, dataset, distil, flow, models, tokenizers, vae
from fluxtui.demo.pretrain.readme import readme


def main() -> None:
    """Runs one stage."""
    parser = argparse.ArgumentParser(prog="python -m fluxtui.demo.pretrain", description=__doc__)
    parser.add_argument("stage", choices=("vae", "flow", "distil", "assemble", "images"))
    parser.add_argument("--work", type=Path, default=Path("pico-work"), help="folder of the private checkpoints")
    parser.add_argument("--minutes", type=float, default=13.0, help="vae: wall clock")
    parser.add_argument("--steps", type=int, default=5000, help="flow, distil: optimizer steps in all")
    parser.add_argument("--batch", type=int, default=48, help="flow, distil: pictures a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="flow, distil: peak learning rate")
    parser.add_argument("--pictures", type=int, default=24_000, help="flow: pictures drawn and encoded once")
    parser.add_argument("--from-state", default="flow.pt", help="assemble: flow.pt or distil.pt")
    parser.add_argument("--out", type=Path, default=PICO_DIR, help="assemble: the pipeline's folder")
    args = parser.parse_args()
    match args.stage:
        case "vae":
            vae.train(args.work, args.minutes)
        case "images":
            dataset.write()
        case "assemble":
            write_pipeline(args.work, args.from_state, args.out)
        case stage:
            train_transformer(args, distilling=stage == "distil")


def load_vae(work: Path) -> AutoencoderKL:
    """The VAE of stage 1, or an untrained one where there is none yet."""
    coder = vae.new_vae()
    state = checkpoints.load(work / "vae.pt")
    if state is not None:
        coder.load_state_dict(state["vae"])
    return coder


def load_bank(work: Path, coder: AutoencoderKL, count: int) -> bank.Bank:
    """The world's latents, encoded once and kept."""
    kept = checkpoints.load(work / "bank.pt")
    if kept is not None:
        return bank.Bank(**kept)
    world = bank.new_bank(coder, tokenizers.new_t5_tokenizer(), tokenizers.new_clip_tokenizer(), count, seed=5)
    checkpoints.save(work / "bank.pt", {name: getattr(world, name) for name in bank.Bank.__dataclass_fields__})
    return world


def load_average(path: Path) -> flow.Pico | None:
    """The moving average that a stage kept."""
    state = checkpoints.load(path)
    if state is None:
        return None
    pico = new_pico()
    weights = state["average"] if "average" in state else state["pico"]
    pico.load_state_dict({name.removeprefix("module."): value for name, value in weights.items() if name != "n_averaged"})
    return pico


def new_pico() -> flow.Pico:
    """Untrained, seeded."""
    torch.manual_seed(2)
    return flow.Pico(
        models.new_transformer(),
        models.new_t5(tokenizers.new_t5_tokenizer()),
        models.new_clip(tokenizers.new_clip_tokenizer()),
    )


def train_transformer(args: argparse.Namespace, distilling: bool) -> None:
    """Stage 2 or 3; the pipeline is assembled into `work/latest` as it goes."""
    coder = load_vae(args.work)
    world = load_bank(args.work, coder, args.pictures)
    empty = (
        bank.token_ids(tokenizers.new_t5_tokenizer(), [""]),
        bank.token_ids(tokenizers.new_clip_tokenizer(), [""]),
    )
    plan = flow.FlowPlan(steps=args.steps, batch=args.batch, peak_rate=args.rate)

    def report(average: flow.Pico, step: int) -> None:
        latest = args.work / "latest"
        assemble.assemble(latest, average.transformer, average.t5, average.clip, coder, world.shift, world.scale)
        print(f"assembled at step {step}: {assemble.folder_bytes(latest)} bytes", flush=True)

    if not distilling:
        flow.pretrain(new_pico(), world, empty, plan, args.work / "flow.pt", report)
        return
    teacher = load_average(args.work / "flow.pt")
    if teacher is None:
        raise SystemExit("There is no flow.pt to distil: run the stage flow first.")
    distil.distil(teacher, world, empty, plan, args.work / "distil.pt", report)


def write_pipeline(work: Path, name: str, out: Path) -> None:
    """Assembles a kept stage into `out`, measures it and writes the README with the figures."""
    pico = load_average(work / name)
    if pico is None:
        raise SystemExit(f"There is no {name} to assemble: run its stage first.")
    coder = load_vae(work)
    world = load_bank(work, coder, 0)
    assemble.assemble(out, pico.transformer, pico.t5, pico.clip, coder, world.shift, world.scale)
    figures = measure.measure(measure.load(out))
    parts = {
        title: sum(weight.numel() for weight in part.parameters()) for title, part in (*pico.named_children(), ("vae", coder))
    }
    text = readme(figures, parts, assemble.folder_bytes(out))
    (out / "README.md").write_text(text, encoding="utf-8")
    print(asdict(figures), f"{assemble.folder_bytes(out)} bytes")


if __name__ == "__main__":
    main()
