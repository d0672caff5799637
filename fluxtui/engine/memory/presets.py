"""What `hardware.preset` means: how the base is held on a card of a size, and how many of its blocks are streamed. No torch.

A preset decides only what the spec leaves open: `model.precision = "auto"` and `hardware.stream_blocks = -1`. The numbers are the
smallest with which the plan of the default recipe leaves 1 GB of the card free; tests/memory/test_presets.py holds them to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fluxtui.persist.spec import Spec


@dataclass(frozen=True, slots=True)
class Preset:
    """For cards from `size` bytes."""

    size: int
    precision: str
    streamed: dict[int, int]  # longest side that is trained, pixels -> blocks; a larger side counts as the largest listed


_GB = 10**9
_TEXT_FROM = 14 * _GB
PRESETS: dict[str, Preset] = {
    "8GB": Preset(8 * _GB, "int8", {512: 50, 768: 50, 1024: 53}),
    "10GB": Preset(10 * _GB, "int8", {512: 44, 768: 44, 1024: 47}),
    "12GB": Preset(12 * _GB, "int8", {512: 35, 768: 36, 1024: 41}),
    "16GB": Preset(16 * _GB, "int8", {512: 7, 768: 8, 1024: 14}),
    "24GB": Preset(24 * _GB, "int8", {512: 0, 768: 0, 1024: 0}),
    "48GB": Preset(48 * _GB, "bf16", {512: 0, 768: 0, 1024: 0}),
    "80GB": Preset(80 * _GB, "bf16", {512: 0, 768: 0, 1024: 0}),
}


@dataclass(frozen=True, slots=True)
class Held:
    """What a spec comes to on this machine."""

    precision: str  # "fp32", "bf16", or a codec's name
    stream_blocks: int
    preset: str  # whose numbers were taken; "" where the spec says all itself, or there is no GPU


def is_text_on_cpu(card: int | None) -> bool:
    """Whether T5 (9.5 GB in bf16) is left to the CPU: on GPUs without room for it beside CUDA's own memory and a gigabyte."""
    return card is not None and card < _TEXT_FROM


def preset_for(card: int) -> str:
    """The largest preset that is not beyond a card of so many bytes; the smallest for cards that are smaller still."""
    fitting = [name for name, preset in PRESETS.items() if preset.size <= card]
    return fitting[-1] if fitting else next(iter(PRESETS))


def held_on(spec: Spec, card: int | None) -> Held:
    """How the base is held. `card`: bytes of the smallest GPU that trains; None: the CPU."""
    named = spec.hardware.preset
    if spec.kind == "pico" and named == "auto":
        card = None  # it fits anywhere
    is_open = spec.model.precision == "auto" or spec.hardware.stream_blocks < 0
    name = "" if not is_open or (named == "auto" and card is None) else preset_for(card) if named == "auto" and card else named
    if not name:
        plain = "fp32" if spec.model.precision == "auto" else spec.model.precision
        return Held(plain, max(0, spec.hardware.stream_blocks), "")
    preset = PRESETS[name]
    precision: str = preset.precision if spec.model.precision == "auto" else spec.model.precision
    streamed = spec.hardware.stream_blocks
    if streamed < 0:
        # the table is for the preset's own precision; another one that was asked for is left where it is
        longest = max(spec.dataset.resolution)
        size = next((side for side in preset.streamed if side >= longest), max(preset.streamed))
        streamed = preset.streamed[size] if precision == preset.precision and _may_stream(spec) else 0
    return Held(precision, streamed, name)


def _may_stream(spec: Spec) -> bool:
    """What does not go together with streaming was asked for by name: it wins."""
    return spec.train.gradient_checkpointing and not spec.hardware.compile and spec.lora.kind == "lora"
