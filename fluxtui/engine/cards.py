"""Do the driver, torch and the cards agree: what torch says of each, and what to do where it cannot be trained on.

Facts are gathered by `look`, which asks torch; `judge` is pure, so that every card, driver and build can be tried without one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

Level = Literal["good", "note", "bad"]
_BF16_SINCE = (8, 0)  # compute capability: Ampere
_FP8_SINCE = (8, 9)


class Card(Struct, frozen=True):
    """One GPU as torch sees it."""

    name: str
    capability: tuple[int, int]  # (9, 0) is sm_90
    memory: int  # bytes
    trouble: str = ""  # why a small bf16 product failed on it; "" where it came out right


class Torch(Struct, frozen=True):
    """This build of torch, and what it can use here."""

    version: str
    cuda: str = ""  # the CUDA it was built for; "" for a build without
    architectures: tuple[str, ...] = ()  # "sm_90", "compute_90"
    cards: tuple[Card, ...] = ()
    trouble: str = ""  # what torch said where it could not begin
    bitsandbytes: str = ""  # its version; "" where it is not installed
    bitsandbytes_trouble: str = ""  # what it said where it does not load


class CardFinding(Struct, frozen=True):
    """One thing that was looked at. The same form as the doctor's."""

    subject: str
    level: Level
    found: str
    remedy: str = ""


def look(only: int | None = None) -> Torch:
    """What torch and bitsandbytes say, of all cards that it sees or of one. Raises ImportError where torch does not load."""
    import torch

    version, cuda = str(torch.__version__), str(torch.version.cuda or "")
    trouble, cards = "", []
    if cuda:
        try:
            torch.cuda.init()
            cards = [_card(index) for index in ([only] if only is not None else range(torch.cuda.device_count()))]
        except (RuntimeError, AssertionError) as error:
            trouble = _first(error)
    bitsandbytes, its_trouble = _bitsandbytes()
    return Torch(
        version=version, cuda=cuda, architectures=tuple(torch.cuda.get_arch_list()) if cards else (), cards=tuple(cards),
        trouble=trouble, bitsandbytes=bitsandbytes, bitsandbytes_trouble=its_trouble,
    )  # fmt: skip


def _card(index: int) -> Card:
    """The card, after one real product on it: a build without its kernels says so only then."""
    import torch

    properties, trouble = torch.cuda.get_device_properties(index), ""
    try:
        ones = torch.ones(32, 32, dtype=torch.bfloat16, device=f"cuda:{index}")
        if float((ones @ ones).sum()) != 32.0**3:
            trouble = "a product of ones came out wrong"
    except RuntimeError as error:
        trouble = _first(error)
    return Card(properties.name, (properties.major, properties.minor), properties.total_memory, trouble)


def _bitsandbytes() -> tuple[str, str]:
    """(version, why it does not load). It looks for CUDA's libraries when it is imported, and may say anything."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return "", ""
    version = importlib.metadata.version("bitsandbytes")
    try:
        importlib.import_module("bitsandbytes.functional")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        return version, _first(error)
    return version, ""


def judge(seen: Torch, driver_gpus: int) -> list[CardFinding]:
    """Findings with their remedies. `driver_gpus`: how many GPUs the driver itself counts (NVML)."""
    findings = _of_build(seen, driver_gpus)
    for index, card in enumerate(seen.cards):
        findings.append(_of_card(index, card, seen))
    return [*findings, _of_bitsandbytes(seen)]


def misfit(index: int) -> CardFinding | None:
    """What keeps a rank from training on this card, of those that it sees; None where nothing does."""
    return next((found for found in judge(look(index), 1) if found.level == "bad" and found.subject != "bitsandbytes"), None)


def _of_build(seen: Torch, driver_gpus: int) -> list[CardFinding]:
    told = f"torch {seen.version}" + (f" for CUDA {seen.cuda}" if seen.cuda else ", a build without CUDA")
    if not driver_gpus and not seen.cards:
        return [CardFinding("torch", "good", told)]
    if not seen.cuda:
        fix = "make install TORCH=system on a pod that has torch, or install one of download.pytorch.org/whl/cu126"
        return [CardFinding("torch", "bad", f"{told}, on a machine with {driver_gpus} GPUs", fix)]
    if seen.trouble:
        old = re.search(r"driver.*too old", seen.trouble)
        fix = (
            f"update the NVIDIA driver, or install a torch built for an older CUDA than {seen.cuda}"
            if old else "look at nvidia-smi and dmesg; in a container, start it with --gpus all"
        )  # fmt: skip
        return [CardFinding("torch", "bad", f"{told} cannot use the GPU: {seen.trouble}", fix)]
    if len(seen.cards) < driver_gpus:
        fix = "unset CUDA_VISIBLE_DEVICES, or give the container all GPUs"
        return [CardFinding("torch", "note", f"{told} sees {len(seen.cards)} of {driver_gpus} GPUs", fix)]
    return [CardFinding("torch", "good", told)]


def _of_card(index: int, card: Card, seen: Torch) -> CardFinding:
    major, minor = card.capability
    subject, name = f"torch on GPU {index}", f"{card.name}, sm_{major}{minor}"
    if not runs_on(card.capability, seen.architectures):
        built = ", ".join(seen.architectures) or "nothing"
        fix = "install a newer torch" if major >= 9 else "install an older torch that still has this architecture"
        return CardFinding(subject, "bad", f"{name}, and this torch is built for {built}", fix)
    if card.trouble:
        fix = "reboot, or give the machine back; where it stays, another driver or torch"
        if "operation not supported" in card.trouble:  # a share of a GPU (vGPU) maps no memory by itself
            fix = "set PYTORCH_ALLOC_CONF=expandable_segments:False, and PYTORCH_CUDA_ALLOC_CONF to the same"
        return CardFinding(subject, "bad", f"{name}: {card.trouble}", fix)
    if card.capability < _BF16_SINCE:
        fix = (
            "bf16 is emulated here, and attention computes in float32: slow, and a little more memory than planned; "
            "an Ampere card or newer is what FLUX.1 wants"
        )
        return CardFinding(subject, "note", f"{name}, without bf16", fix)
    return CardFinding(subject, "good", f"{name}, bf16" + (", fp8" if card.capability >= _FP8_SINCE else ""))


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """CUDA's rule: machine code runs on the same major version and its minor or a later one; PTX on anything later."""
    for name in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name)
        if match is None:
            continue
        built = (int(match[2]), int(match[3]))
        if built <= capability and (match[1] == "compute" or built[0] == capability[0]):
            return True
    return False


def is_without_bf16(index: int | None) -> bool:
    """Whether this card, or the current one, is older than Ampere."""
    import torch

    return torch.cuda.get_device_capability(index) < _BF16_SINCE


def _of_bitsandbytes(seen: Torch) -> CardFinding:
    if not seen.bitsandbytes:
        fix = "pip install 'fluxtui[bitsandbytes]' for train.optimizer = adamw8bit and 4-bit weights" if seen.cards else ""
        return CardFinding("bitsandbytes", "note" if seen.cards else "good", "not installed; nothing needs it by default", fix)
    if seen.bitsandbytes_trouble:
        fix = "pip install -U bitsandbytes, one that knows this torch's CUDA; or train.optimizer = adamw"
        return CardFinding("bitsandbytes", "bad", f"{seen.bitsandbytes} does not load: {seen.bitsandbytes_trouble}", fix)
    return CardFinding("bitsandbytes", "good", f"{seen.bitsandbytes} loads")


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
