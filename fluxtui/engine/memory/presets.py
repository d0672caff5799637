"""What `hardware.preset` means: how the base is held on a card of a size, and how many of its blocks are streamed. No torch.

A preset decides only what the spec leaves open: `model.precision = "auto"` and `hardware.stream_blocks = -1`. The numbers are the
smallest with which the plan of the default recipe leaves 1 GB of the card free; tests/memory/test_presets.py holds them to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fluxtui.persist.settings.spec import Spec

Blocks = tuple[int, int, int]  # streamed where the longest side that is trained is 512, 768, 1024 pixels or more
SIDES = (512, 768, 1024)


@dataclass(frozen=True, slots=True)
class Preset:
    """For cards from `size` bytes: as torch counts them, which is less than what is printed on the box."""

    size: int
    precision: str
    streamed: dict[str, Blocks]  # by what the base is held in

    def blocks(self, precision: str, longest: int) -> int:
        """How many blocks are streamed with sides of at most `longest` pixels. The two precisions of 8 bits are as large."""
        each = self.streamed.get("int8" if precision == "fp8" else precision, (0, 0, 0))
        return next((number for side, number in zip(SIDES, each, strict=True) if side >= longest), each[-1])


_GB = 10**9
_TEXT_FROM = 14 * _GB
PRESETS: dict[str, Preset] = {
    "8GB": Preset(8 * _GB, "int8", {"int8": (50, 50, 53), "nf4": (43, 43, 47), "bf16": (55, 55, 56)}),
    "10GB": Preset(10 * _GB, "int8", {"int8": (44, 44, 47), "nf4": (20, 20, 32), "bf16": (52, 52, 53)}),
    "12GB": Preset(12 * _GB, "int8", {"int8": (35, 35, 41), "nf4": (0, 0, 7), "bf16": (49, 49, 50)}),
    "16GB": Preset(16 * _GB, "int8", {"int8": (7, 7, 13), "bf16": (43, 43, 44)}),
    "24GB": Preset(23_500_000_000, "int8", {"bf16": (20, 20, 24)}),
    "32GB": Preset(33 * _GB, "bf16", {}),
    "48GB": Preset(47_500_000_000, "bf16", {}),
    "80GB": Preset(80 * _GB, "bf16", {}),
}


@dataclass(frozen=True, slots=True)
class Held:
    """What a spec comes to on this machine."""

    precision: str  # "fp32", "bf16", or a codec's name
    stream_blocks: int
    preset: str  # whose numbers were taken; "" where the spec says all itself, or there is no GPU
    unstreamed: str = ""  # the setting for whose sake blocks stay that the preset would stream; "" where none does


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
    precision: str = spec.model.precision
    if precision == "auto":  # what works with the weights themselves cannot work with codes
        precision = preset.precision if spec.lora.kind == "lora" else "bf16"
    if spec.hardware.stream_blocks >= 0:
        return Held(precision, spec.hardware.stream_blocks, name)
    streamed = preset.blocks(precision, max(spec.dataset.resolution))
    against = against_streaming(spec) if streamed else ""
    return Held(precision, 0 if against else streamed, name, against)


def against_streaming(spec: Spec) -> str:
    """What does not go together with streaming and was asked for by name: it wins. "" where nothing was."""
    if spec.lora.kind != "lora":
        return f"lora.kind={spec.lora.kind}"
    if spec.hardware.compile:
        return "hardware.compile=true"
    return "" if spec.train.gradient_checkpointing else "train.gradient_checkpointing=false"
