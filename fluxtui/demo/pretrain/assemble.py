"""Puts the parts together as a pipeline folder in diffusers layout, in half precision."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

from fluxtui.demo.pretrain.models import new_scheduler
from fluxtui.demo.pretrain.tokenizers import new_clip_tokenizer, new_t5_tokenizer


def assemble(
    folder: Path,
    transformer: FluxTransformer2DModel,
    t5: T5EncoderModel,
    clip: CLIPTextModel,
    vae: AutoencoderKL,
    shift: float,
    scale: float,
) -> None:
    """Writes the pipeline to `folder` (written beside and swapped in), leaving the given modules as they are."""
    vae = copy.deepcopy(vae)
    vae.register_to_config(shift_factor=round(shift, 5), scaling_factor=round(scale, 5))
    pipeline = FluxPipeline(
        scheduler=new_scheduler(),
        vae=vae.half(),
        text_encoder=copy.deepcopy(clip).half(),
        tokenizer=new_clip_tokenizer(),
        text_encoder_2=copy.deepcopy(t5).half(),
        tokenizer_2=new_t5_tokenizer(),
        transformer=copy.deepcopy(transformer).half(),
    )
    beside, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for path in (beside, old):
        shutil.rmtree(path, ignore_errors=True)
    pipeline.save_pretrained(beside)
    if folder.exists():
        os.rename(folder, old)
    os.rename(beside, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> FluxPipeline:
    """The pipeline in float32, quiet."""
    pipeline: FluxPipeline = FluxPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
