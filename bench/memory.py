"""Memory: what each precision costs in accuracy, what each preset's plan comes to, and real steps beside their plans.

    python bench/memory.py [--only precision,presets,measured]

Prints the tables of docs/memory.md. No GPU is used: plans are reckoned from shapes, steps are taken on the CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from fluxtui.engine import quiet  # noqa: E402

GIB = 2**30
PRECISIONS = ("bf16", "int8", "fp8", "nf4")


def errors_of(kind: str, width: int = 3072) -> Iterator[tuple[str, float, float]]:
    """(precision, relative error of the weights, of the block's update) of a double or single block, against float32.

    Random normal weights (standard deviation 0.02), 64 picture and 32 text tokens; the update is what a block adds to its input.
    """
    import torch

    block, weights = new_block(kind, width)
    exact = update(kind, block, width)
    for precision in PRECISIONS:
        block, weights = new_block(kind, width)
        squares = hold(block, precision)
        total = sum(float(weight.square().sum()) for weight in weights)
        found = update(kind, block, width)
        assert torch.isfinite(found).all()
        yield precision, (squares / total) ** 0.5, float((found - exact).norm() / exact.norm())


def new_block(kind: str, width: int) -> tuple[Any, list[Any]]:
    """The same block at every call, and its linear layers' weights."""
    import torch
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock

    torch.manual_seed(0)  # biases and norms come from the global generator: without it every call is another block
    made = (FluxTransformerBlock if kind == "double" else FluxSingleTransformerBlock)(width, width // 128, 128)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.02, generator=source)
    made.requires_grad_(False)
    return made, [module.weight.clone() for module in made.modules() if isinstance(module, torch.nn.Linear)]


def hold(block: Any, precision: str) -> float:
    """Puts the block's weights into a precision; the sum of the squares of what that changed."""
    import torch

    from fluxtui.engine.memory.precision import CODECS, QuantizedLinear

    squares = 0.0
    for owner in list(block.modules()):
        for name, layer in list(owner.named_children()):
            if not isinstance(layer, torch.nn.Linear):
                continue
            if precision in CODECS:
                coded = QuantizedLinear(layer, CODECS[precision])
                coded.take(layer.weight)
                squares += float((coded.codec.decode(coded.parts(), coded.shape, torch.float32) - layer.weight).square().sum())
                setattr(owner, name, coded)
            else:
                rounded = layer.weight.bfloat16().float()
                squares += float((rounded - layer.weight).square().sum())
                layer.weight.copy_(rounded)
    return squares


def update(kind: str, block: Any, width: int) -> Any:
    """What the block adds to its input, in float32."""
    import torch
    from diffusers.models.transformers.transformer_flux import FluxPosEmbed

    source = torch.Generator().manual_seed(1)
    picture, text, temb = (torch.randn(1, *shape, width, generator=source) for shape in ((64,), (32,), ()))
    ids = torch.cat([torch.zeros(32, 3), torch.tensor([[0.0, row, column] for row in range(8) for column in range(8)])])
    with torch.no_grad():
        after = block(
            hidden_states=picture, encoder_hidden_states=text, temb=temb, image_rotary_emb=FluxPosEmbed(10000, [16, 56, 56])(ids)
        )
    return torch.cat(after, dim=1) - torch.cat([text, picture], dim=1)


def print_precision() -> None:
    double, single = ({name: rest for name, *rest in errors_of(kind)} for kind in ("double", "single"))
    print("| held in | weights | a double block's update | a single block's update |\n| --- | --- | --- | --- |")
    for name in PRECISIONS:
        print(f"| {name} | {double[name][0]:.2%} | {double[name][1]:.2%} | {single[name][1]:.2%} |")


def print_presets() -> None:
    """Each preset at each size: blocks streamed, and the peak of each phase in GiB."""
    from fluxtui.engine.memory.model import model_of
    from fluxtui.engine.memory.phases import CUDA_CONTEXT, fits, memory_of
    from fluxtui.engine.memory.presets import PRESETS, SIDES
    from fluxtui.persist.settings import recipe
    from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec

    base = Spec(name="a", id="a", model=ModelSpec(source="flux"), dataset=DatasetSpec(path="pictures"))
    model = model_of(None, is_schnell=False)
    print("| preset | base | px | streamed | on the GPU | in host memory | encoding | training | samples | left | fits |")
    print("| --- " * 11 + "|")
    for name, preset in PRESETS.items():
        for side in SIDES:
            spec = recipe.apply(base, {"dataset.resolution": [side], "sample.prompts": ["a"], "hardware.preset": name})
            found = memory_of(spec, model, preset.size)
            sizes = (found.weights.on_device, found.weights.hosted, found.encoding_peak, found.training_peak, found.sampling_peak)
            left = preset.size - found.peak - CUDA_CONTEXT
            print(
                f"| {name} | {found.precision} | {side} | {found.weights.streamed} | "
                + " | ".join(f"{size / GIB:.1f}" for size in (*sizes, left))
                + f" | {'yes' if fits(found, preset.size) else 'NO'} |"
            )


def print_measured() -> None:
    """Real steps on the CPU: anonymous memory beyond what the process had before the base was loaded."""
    from tests.memory.measured import measure_all

    print("| a slice of | planned, MB | measured, MB | measured / planned |\n| --- | --- | --- | --- |")
    for name, found in measure_all().items():
        print(f"| {name} | {found.planned / 1e6:.0f} | {found.peak / 1e6:.0f} | {found.peak / found.planned:.3f} |", flush=True)


def main() -> int:
    quiet.hush()
    parts = {"precision": print_precision, "presets": print_presets, "measured": print_measured}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(parts), help="parts, with commas between them")
    for name in parser.parse_args().only.split(","):
        print(f"\n{name}\n")
        parts[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
