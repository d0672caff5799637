"""The memory of a run, phase by phase: what a spec comes to on a device. Phases never overlap, so the largest decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fluxtui.engine.memory.activations import Activations, Shape, measure, vae_work
from fluxtui.engine.memory.precision import CODECS
from fluxtui.engine.memory.presets import held_on, is_text_on_cpu
from fluxtui.engine.memory.weights import Weights, count_weights
from fluxtui.persist.spec import Spec

MARGIN = 10**9  # bytes that a plan leaves free of a card
CUDA_CONTEXT = 1 << 30  # bytes that a process takes on a GPU before its first tensor; about
_TEXT_WORK = 300 << 20  # bytes: T5's largest layer at 512 tokens, its scores in float32 included
FLUX1_VAE: dict[str, Any] = {  # of a model that is still on the hub
    "in_channels": 3, "out_channels": 3, "latent_channels": 16, "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2, "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip

# bytes of optimizer state a trained parameter
_STATE = {"adamw": 8.0, "adamw8bit": 2.04, "adafactor": 0.1, "lion": 4.0, "prodigy": 16.0, "schedule_free": 8.0}


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a pipeline without loading it."""

    config: Mapping[str, Any]  # the transformer's
    vae_config: Mapping[str, Any]
    encoders: int  # parameters of both
    vae: int  # parameters
    text_tokens: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, all on the device that trains."""

    precision: str  # as it is held: "fp32", "bf16", or a codec's name
    preset: str  # that this comes from; ""
    weights: Weights
    lora_parameters: int  # count
    lora: int  # float32
    gradients: int
    optimizer: int
    averaged: int  # the EMA's copy
    activations: Activations
    encoders: int  # on the CPU where the GPU is small
    vae: int
    encoding_peak: int  # text encoders, then the VAE
    sampling_peak: int  # the base, the adapter and its optimizer, and the VAE that decodes
    training_peak: int

    @property
    def peak(self) -> int:
        return max(self.encoding_peak, self.sampling_peak, self.training_peak)

    @property
    def adapter(self) -> int:
        """Everything that is there for the adapter's sake."""
        return self.lora + self.gradients + self.optimizer + self.averaged


def memory_of(spec: Spec, model: Model, card: int | None, resolution: int | None = None) -> Memory:
    """Of the largest picture that the spec lists, or of `resolution` pixels. `card`: its bytes; None: on the CPU."""
    held = held_on(spec, card)
    precision = held.precision
    is_wide = precision == "fp32" or (card is None and precision in CODECS)
    dtype, width = (torch.float32, 4) if is_wide else (torch.bfloat16, 2)
    side = resolution or max(spec.dataset.resolution)
    weights = count_weights(model.config, precision, width, held.stream_blocks)
    shape = Shape(
        dtype=dtype, is_coded=precision in CODECS, lora=spec.lora, tokens=(side // 16) ** 2, text_tokens=model.text_tokens,
        batch=spec.train.batch_size, is_checkpointed=spec.train.gradient_checkpointing,
    )  # fmt: skip
    activations = measure(model.config, shape)
    lora = 4 * activations.lora_parameters
    optimizer = int(_STATE[spec.train.optimizer] * activations.lora_parameters)
    averaged = lora if spec.train.ema_decay else 0
    stays = weights.on_device + lora + optimizer + averaged
    vae = width * model.vae
    sampled = max(spec.sample.width, spec.sample.height) if spec.sample.prompts else 0
    return Memory(
        precision=precision,
        preset=held.preset,
        weights=weights,
        lora_parameters=activations.lora_parameters,
        lora=lora,
        gradients=lora,
        optimizer=optimizer,
        averaged=averaged,
        activations=activations,
        encoders=width * model.encoders,
        vae=vae,
        encoding_peak=max(
            0 if is_text_on_cpu(card) else width * model.encoders + _TEXT_WORK,
            4 * model.vae + vae_work(model.vae_config, torch.float32, side, is_decoding=False),  # in float32 whatever the base is
        ),
        sampling_peak=stays + vae + vae_work(model.vae_config, dtype, sampled, is_decoding=True) if sampled else 0,
        training_peak=stays + lora + activations.peak,
    )


def fits(memory: Memory, card: int) -> bool:
    """Whether every phase leaves `MARGIN` of a card, CUDA's own memory counted."""
    return memory.peak + CUDA_CONTEXT + MARGIN <= card
