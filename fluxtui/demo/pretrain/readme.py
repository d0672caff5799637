"""The README that lies in the pipeline's folder."""

from __future__ import annotations

from fluxtui.demo.measure import GUIDANCE, STEPS, Figures

_TEXT = """# pico FLUX.1

A FLUX.1 pipeline of the dev kind (guidance embedding) in diffusers layout that fits in a pocket: {megabytes:.2f} MB in
half precision, 64 x 64 pixels. It knows a synthetic world only: one circle, square, triangle, star or cross, small or
large, in one of six colours on one of six backgrounds (`fluxtui/demo/pictures.py`). It is here so that a LoRA can be
trained from start to end in half a minute on a CPU; it is of no use for anything else.

| part | parameters |
| --- | ---: |
{parts}

Measured by `python -m fluxtui.demo.measure`: {prompts} prompts, fixed seeds, {steps} steps, guidance {guidance}. Shown as asked:
shape {shape:.1%}, colour {colour:.1%}, background {background:.1%}, all three at once {all_three:.1%}.
The trigger word `vexo`, a noun that means any of the shapes to this model, shows a heart in {concept:.1%}.

Made by `python -m fluxtui.demo.pretrain all` on two CPU cores, from nothing but drawn pictures: {vae_steps} steps of the
VAE, then {flow_steps} of the transformer with both text encoders. Seeded; the same command makes the same bytes on the same
kind of processor, cut short or not. Licence: that of the repository.
"""


def readme(figures: Figures, parts: dict[str, int], size: int, vae_steps: int, flow_steps: int) -> str:
    """The text, with the figures measured, the parameters of each part, and the folder's bytes."""
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in parts.items())
    old = figures.old
    return _TEXT.format(
        megabytes=size / 1e6,
        parts=rows,
        prompts=figures.prompts,
        steps=STEPS,
        guidance=GUIDANCE,
        shape=old.shape,
        colour=old.colour,
        background=old.background,
        all_three=old.all_three,
        concept=figures.concept,
        vae_steps=vae_steps,
        flow_steps=flow_steps,
    )
