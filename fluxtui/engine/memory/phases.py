"""The memory of a run, phase by phase: what a spec comes to on a device. Phases never overlap, so the largest decides."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fluxtui.engine.memory.activations import Activations, Shape, measure, measure_clip, vae_work
from fluxtui.engine.memory.model import Model
from fluxtui.engine.memory.precision import CODECS
from fluxtui.engine.memory.presets import Held, held_on, is_text_on_cpu
from fluxtui.engine.memory.weights import Weights, count_weights
from fluxtui.engine.trainer.lion import AT_ONCE
from fluxtui.persist.settings.prompts import prompts_of
from fluxtui.persist.settings.spec import Spec

MARGIN = 10**9  # bytes that a plan leaves free of a card
CUDA_CONTEXT = 1 << 30  # bytes that a process takes on a GPU before its first tensor; about
_COMMUNICATORS = 512 << 20  # bytes that NCCL takes on each GPU where there are several, beside torch's own count; about
_TEXT_WORK = 300 << 20  # bytes: T5's largest layer at 512 tokens, its scores in float32 included

# bytes of optimizer state a trained parameter; adafactor keeps a number for each row and column: see `state_bytes`
_STATE = {"adamw": 8.0, "adamw8bit": 2.04, "adafactor": 4.0, "lion": 4.0, "prodigy": 16.0, "schedule_free": 8.0}
_SHARE = 1 / 512  # of the short side, beside the long one's: a factor's columns are as many at the least


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; on the device that trains, unless said otherwise."""

    held: Held  # in which precision, and how many blocks are streamed
    weights: Weights
    clip: int  # its weights, where it is trained along
    lora_parameters: int  # count, of CLIP's adapter too
    lora: int  # float32
    gradients: int
    optimizer: int
    averaged: int  # the EMA's copy
    activations: Activations  # CLIP's, where it is trained along, among what is kept
    encoders: int
    vae: int
    encoding_peak: int  # text encoders, then the VAE
    sampling_peak: int  # the base, the adapter and its optimizer, and the VAE that decodes
    training_peak: int
    communicators: int  # between ranks; outside of every phase, as CUDA's own memory is
    host: int  # streamed blocks' weights, in host memory, of each rank
    host_encoding: int  # text encoders, where they run on the CPU for want of room on the GPU

    @property
    def precision(self) -> str:
        """As the base is held: "fp32", "bf16", or a codec's name."""
        return self.held.precision

    @property
    def peak(self) -> int:
        return max(self.encoding_peak, self.sampling_peak, self.training_peak)

    @property
    def adapter(self) -> int:
        """Everything that is there for the adapter's sake."""
        return self.lora + self.gradients + self.optimizer + self.averaged


def memory_of(spec: Spec, model: Model, card: int | None, resolution: int | None = None) -> Memory:
    """Of the largest picture that the spec lists, or of `resolution` pixels. `card`: its bytes; None: on the CPU.

    Raises `Refusal` where the adapter's kind does not fit the base, `UsageError` where its targets are none.
    """
    held = held_on(spec, card)
    is_wide = held.precision == "fp32" or (card is None and held.precision in CODECS)
    dtype, width = (torch.float32, 4) if is_wide else (torch.bfloat16, 2)
    side = resolution or max(spec.dataset.resolution)
    weights = count_weights(model.config, held.precision, width, held.stream_blocks)
    activations = _activations(spec, model, Shape(
        dtype=dtype, is_coded=held.precision in CODECS, lora=spec.lora, tokens=(side // 16) ** 2, text_tokens=model.text_tokens,
        batch=spec.train.batch_size, is_checkpointed=spec.train.gradient_checkpointing,
        splits=_splits(card, spec.hardware.deterministic),
    ))  # fmt: skip
    lora = 4 * activations.lora_parameters
    optimizer = state_bytes(spec, activations.lora_parameters)
    averaged = lora if spec.train.ema_decay else 0
    clip = width * model.clip if spec.train.clip_learning_rate else 0
    stays = weights.on_device + clip + lora + optimizer + averaged
    vae, encoders = width * model.vae, width * model.encoders
    return Memory(
        held=held,
        weights=weights,
        clip=clip,
        lora_parameters=activations.lora_parameters,
        lora=lora,
        gradients=lora,
        optimizer=optimizer,
        averaged=averaged,
        activations=activations,
        encoders=encoders,
        vae=vae,
        encoding_peak=max(
            0 if is_text_on_cpu(card) else encoders + _TEXT_WORK,
            4 * model.vae + vae_work(model.vae_config, torch.float32, side, is_decoding=False),  # in float32 whatever the base is
        ),
        sampling_peak=stays + vae + _drawing(spec, model, dtype, lora) if spec.sample.prompts else 0,
        training_peak=stays + lora + max(activations.peak, _summed(spec, lora), _stepping(spec, lora)),
        communicators=_COMMUNICATORS if card is not None and _has_ranks(spec) else 0,
        host=weights.hosted,
        host_encoding=encoders if is_text_on_cpu(card) else 0,
    )


def state_bytes(spec: Spec, parameters: int) -> int:
    """Of the optimizer of so many trained numbers."""
    whole = _STATE[spec.train.optimizer] * parameters
    return int(whole * (1 / spec.lora.rank + _SHARE) if spec.train.optimizer == "adafactor" else whole)


def _summed(spec: Spec, lora: int) -> int:
    """The buffer in which the gradients of all ranks are summed, once the activations are gone."""
    return lora if _has_ranks(spec) else 0


def _has_ranks(spec: Spec) -> bool:
    """Whether more than one GPU may train."""
    gpus, ranks = spec.hardware.gpus, spec.hardware.ranks * spec.hardware.nodes
    return ranks > 1 or gpus == "all" or (isinstance(gpus, list) and len(gpus) > 1)


def _stepping(spec: Spec, lora: int) -> int:
    """What the optimizer's step makes and drops, once the activations are gone: schedule-free's roots of all second moments
    at once, Lion's moves of some parameters. The fused AdamW makes nothing, the others go parameter by parameter."""
    return {"schedule_free": lora, "lion": min(lora, AT_ONCE)}.get(spec.train.optimizer, 0)


def _splits(card: int | None, is_deterministic: bool) -> int:
    """Float32 sums that attention's backward pass holds at 24 heads. Deterministic: by the multiprocessors that cards of a size
    have at the most, 84 below 20 GB (a 5080), 170 above (a 5090); else the one that all blocks add to. None on the CPU."""
    if card is None or not is_deterministic:
        return 0 if card is None else 1
    return 4 if card < 20 * 10**9 else 8


def _activations(spec: Spec, model: Model, shape: Shape) -> Activations:
    """The transformer's; beside them all that CLIP keeps until the backward pass comes to it."""
    own = measure(model.config, shape)
    if not spec.train.clip_learning_rate:
        return own
    clip = measure_clip(model.clip_config, shape)
    return Activations(own.lora_parameters + clip.lora_parameters, own.kept + clip.kept, max(own.peak + clip.kept, clip.peak))


def _drawing(spec: Spec, model: Model, dtype: torch.dtype, lora: int) -> int:
    """The VAE's work; and of a schedule-free optimizer the weights that it trains, kept aside while others are looked at."""
    aside = lora if spec.train.optimizer == "schedule_free" else 0
    side = max(max(prompt.width, prompt.height) for prompt in prompts_of(spec.sample, ""))
    return aside + vae_work(model.vae_config, dtype, side, is_decoding=True)


def fits(memory: Memory, card: int) -> bool:
    """Whether every phase leaves `MARGIN` of a card, CUDA's own memory and NCCL's counted."""
    return memory.peak + beside(memory) + MARGIN <= card


def beside(memory: Memory) -> int:
    """Bytes on each GPU that no phase counts: CUDA's context, and NCCL's communicators where several GPUs train."""
    return CUDA_CONTEXT + memory.communicators
