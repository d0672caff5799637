"""What the keys of FluxGym, kohya's sd-scripts and ai-toolkit mean in our words.

Read off the trainers' own code: sd-scripts' `flux_train_utils.py`, `train_util.py`, `flux_train_network.py`; ai-toolkit's
`config_modules.py` and `custom_flowmatch_sampler.py`; FluxGym's `app.py`. A value that becomes another one says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fluxtui.persist.imports.values import (
    Convert,
    clip_rate,
    containing,
    content_or_style,
    dropout,
    eight_bits,
    linear_timesteps,
    linear_timesteps_2,
    lines,
    loss_of_ai_toolkit,
    loss_of_kohya,
    model,
    nothing,
    number,
    optimizer,
    part,
    prediction,
    same,
    sampled_by_steps,
    scheduler,
    shuffled,
    sides,
    swapped,
    switch,
    thousandths,
    timesteps_of_ai_toolkit,
    timesteps_of_kohya,
    train_blocks,
    two,
    vram,
    weighting,
    whole,
)

Table = Mapping[str, tuple[str, Convert]]


@dataclass(frozen=True, slots=True)
class Source:
    """One trainer's configurations."""

    table: Table  # their key, whole or its last part -> ours
    unsaid: Mapping[str, object]  # what it does where nothing is said, and ours would do otherwise
    done_here: Mapping[str, frozenset[str]]  # keys that ask for what is always so here, and the values (low, as text) that do
    wins: tuple[tuple[str, str], ...]  # (key, key that it overrides there), by their last parts
    notes: Mapping[str, str]  # what it does where a key is missing, and cannot be had here
    by_optimizer: Mapping[str, Mapping[str, object]]  # ours of an optimizer -> what is unsaid with it
    follows: Mapping[str, tuple[str, str]]  # ours -> ours whose value it has there whatever is said, and why


_ONE_FOLDER = "all of a session lies in sessions/NAME of the home here"
_OTHER_STATE = "it holds the state of another program; --set lora.weights=FILE begins with a finished LoRA"
_NOISE_OF_OTHERS = ("noise_offset", "adaptive_noise_scale", "multires_noise_iterations", "min_snr_gamma")
_NOT_OF_FLUX = "it is of the noise of older models; sd-scripts does nothing with it for FLUX.1"

_KOHYA: Table = {
    "pretrained_model_name_or_path": ("model", model),
    "train_data_dir": ("dataset by convention", same),
    "reg_data_dir": ("regularisation by convention", same),
    "is_reg": ("dataset.regularisation", lambda value: "*" if switch(value) else ""),
    "image_dir": ("dataset", same),
    **{name: ("part of the model", part) for name in ("clip_l", "t5xxl", "ae")},
    **{name: ("", nothing(_ONE_FOLDER)) for name in ("output_dir", "logging_dir")},
    **{name: ("", nothing(_NOT_OF_FLUX)) for name in _NOISE_OF_OTHERS},
    "ip_noise_gamma": ("", nothing("no noise is put into the model here beside that of the noise level")),
    "random_crop": ("", nothing("a picture is cropped in its middle, so that its latents are made once")),
    "color_aug": ("", nothing("latents are made once, of the picture as it is")),
    "resume": ("", nothing(_OTHER_STATE)),
    "output_name": ("title", same),
    "class_tokens": ("dataset.trigger", same),
    "num_repeats": ("dataset.repeats", whole),
    "resolution": ("dataset.resolution", sides),
    "bucket_reso_steps": ("dataset.bucket_step", whole),
    "flip_aug": ("dataset.flip", switch),
    "alpha_mask": ("dataset.masks", lambda value: "alpha" if switch(value) else ""),
    "caption_extension": ("dataset.caption_extension", same),
    "caption_dropout_rate": ("dataset.caption_dropout", number),
    "shuffle_caption": ("dataset.shuffle_tags", shuffled),
    "keep_tokens": ("dataset.keep_tags", whole),
    "caption_tag_dropout_rate": ("dataset.tag_dropout", number),
    "prior_loss_weight": ("dataset.regularisation_weight", number),
    "network_dim": ("lora.rank", whole),
    "network_alpha": ("lora.alpha", number),
    "network_dropout": ("lora.dropout", dropout),
    "scale_weight_norms": ("lora.max_norm", number),
    "network_weights": ("lora.weights", same),
    "learning_rate": ("train.learning_rate", number),
    "unet_lr": ("train.learning_rate", number),
    "text_encoder_lr": ("train.clip_learning_rate", clip_rate),
    "max_train_epochs": ("train.epochs", whole),
    "max_train_steps": ("train.steps", whole),
    "train_batch_size": ("train.batch_size", whole),
    "batch_size": ("train.batch_size", whole),
    "gradient_accumulation_steps": ("train.gradient_accumulation", whole),
    "gradient_checkpointing": ("train.gradient_checkpointing", switch),
    "optimizer_type": ("train.optimizer", optimizer),
    "optimizer_args.weight_decay": ("train.weight_decay", number),
    "optimizer_args.betas": ("train.betas", two),
    "optimizer_args.eps": ("train.eps", number),
    "optimizer_args.d_coef": ("train.d_coef", number),
    "network_args.rank_dropout": ("lora.rank_dropout", number),
    "network_args.module_dropout": ("lora.module_dropout", number),
    "network_args.train_blocks": ("lora.targets", train_blocks),
    "network_args.loraplus_lr_ratio": ("train.lora_plus", number),
    "network_args.loraplus_unet_lr_ratio": ("train.lora_plus", number),
    "min_timestep": ("train.timestep_min", thousandths),
    "max_timestep": ("train.timestep_max", thousandths),
    "weighting_scheme": ("train", weighting),
    "lr_scheduler": ("train.scheduler", scheduler),
    "lr_scheduler_num_cycles": ("train.scheduler_cycles", whole),
    "lr_warmup_steps": ("train.warmup_steps", whole),
    "max_grad_norm": ("train.max_grad_norm", number),
    "loss_type": ("train.loss", loss_of_kohya),
    "huber_c": ("train.loss_delta", number),
    "timestep_sampling": ("train.timestep_sampling", timesteps_of_kohya),
    "discrete_flow_shift": ("train.timestep_shift", number),
    "model_prediction_type": ("train", prediction),
    "guidance_scale": ("train.guidance", number),
    "seed": ("train.seed", whole),
    "fp8_base": ("model.precision", eight_bits("fp8", "with a scale for each row, which loses less")),
    "blocks_to_swap": ("hardware.stream_blocks", swapped),
    "save_every_n_epochs": ("checkpoint.every_epochs", whole),
    "save_every_n_steps": ("checkpoint.every_steps", whole),
    "sample_prompts": ("sample.prompts", lines),
    "sample_every_n_epochs": ("sample.every_epochs", whole),
    "sample_every_n_steps": ("sample", sampled_by_steps),
    "sample_at_first": ("sample.at_start", switch),
    "max_data_loader_n_workers": ("hardware.workers", whole),
}
_FLUXGYM: Table = {
    **_KOHYA,
    "lora_name": ("title", same),
    "concept_sentence": ("dataset.trigger", same),
    "base_model": ("model", model),
    "dataset_folder": ("dataset", same),
    "resume_from_checkpoint": ("", nothing(_OTHER_STATE)),
    "rank": ("lora.rank", whole),
    "workers": ("hardware.workers", whole),
    "vram": ("hardware.preset", vram),
}
_AI_TOOLKIT: Table = {
    "config.name": ("title", same),
    **{
        f"config.process.{name}": entry
        for name, entry in {
            "trigger_word": ("dataset.trigger", same),
            "network.linear": ("lora.rank", whole),
            "network.rank": ("lora.rank", whole),
            "network.alpha": ("lora.alpha", number),
            "network.linear_alpha": ("lora.alpha", number),
            "network.dropout": ("lora.dropout", dropout),
            "network.rank_dropout": ("lora.rank_dropout", number),
            "network.module_dropout": ("lora.module_dropout", number),
            "network.network_kwargs.rank_dropout": ("lora.rank_dropout", number),
            "network.network_kwargs.module_dropout": ("lora.module_dropout", number),
            "network.network_kwargs.only_if_contains": ("lora.targets", containing),
            "training_folder": ("", nothing(_ONE_FOLDER)),
            "save.save_every": ("checkpoint.every_steps", whole),
            "save.max_step_saves_to_keep": ("checkpoint.keep", lambda value: max(2, whole(value))),
            "datasets.folder_path": ("dataset", same),
            "datasets.is_reg": ("dataset.regularisation", lambda value: "*" if switch(value) else ""),
            "datasets.trigger_word": ("dataset.trigger", same),
            "datasets.caption_ext": ("dataset.caption_extension", lambda value: "." + str(value).lstrip(".")),
            "datasets.caption_dropout_rate": ("dataset.caption_dropout", number),
            "datasets.shuffle_tokens": ("dataset.shuffle_tags", shuffled),
            "datasets.keep_tokens": ("dataset.keep_tags", whole),
            "datasets.token_dropout_rate": ("dataset.tag_dropout", number),
            "datasets.resolution": ("dataset.resolution", sides),
            "datasets.num_repeats": ("dataset.repeats", whole),
            "datasets.flip_x": ("dataset.flip", switch),
            "datasets.mask_path": ("dataset.masks", same),
            "datasets.mask_min_value": ("dataset.mask_outside", number),
            "train.batch_size": ("train.batch_size", whole),
            "train.steps": ("train.steps", whole),
            "train.gradient_accumulation_steps": ("train.gradient_accumulation", whole),
            "train.gradient_accumulation": ("train.gradient_accumulation", whole),
            "train.gradient_checkpointing": ("train.gradient_checkpointing", switch),
            "train.optimizer": ("train.optimizer", optimizer),
            "train.optimizer_params.weight_decay": ("train.weight_decay", number),
            "train.optimizer_params.betas": ("train.betas", two),
            "train.optimizer_params.eps": ("train.eps", number),
            "train.optimizer_params.d_coef": ("train.d_coef", number),
            "train.lr": ("train.learning_rate", number),
            "train.timestep_type": ("train.timestep_sampling", timesteps_of_ai_toolkit),
            "train.linear_timesteps": ("train.timestep_sampling", linear_timesteps),
            "train.linear_timesteps2": ("train.timestep_sampling", linear_timesteps_2),
            "train.content_or_style": ("train.timestep_sampling", content_or_style),
            "train.loss_type": ("train.loss", loss_of_ai_toolkit),
            "train.max_grad_norm": ("train.max_grad_norm", number),
            "train.ema_config.ema_decay": ("train.ema_decay", number),
            "train.ema_config.use_ema": ("", nothing("the product has the raw weights here; export --ema writes the averaged")),
            "train.skip_first_sample": ("sample.at_start", lambda value: not switch(value)),
            "model.name_or_path": ("model", model),
            "model.quantize": ("model.precision", eight_bits("int8", "8 bits with a scale for each row, which loses less")),
            "sample.sample_every": ("sample", sampled_by_steps),
            "sample.width": ("sample.width", whole),
            "sample.height": ("sample.height", whole),
            "sample.prompts": ("sample.prompts", lines),
            "sample.seed": ("sample.seed", whole),
            "sample.guidance_scale": ("sample.guidance", number),
            "sample.sample_steps": ("sample.steps", whole),
        }.items()
    },
}

_YES, _NO = frozenset({"true", "1"}), frozenset({"false", "0", "none", "no"})
_HALF = frozenset({"bf16", "fp16", "float16", "bfloat16"})
_KOHYA_DONE: Mapping[str, frozenset[str]] = {
    "network_module": frozenset({"networks.lora_flux"}), "cache_latents": _YES, "cache_latents_to_disk": _YES,
    "cache_text_encoder_outputs": _YES, "cache_text_encoder_outputs_to_disk": _YES, "network_train_unet_only": _YES,
    "sdpa": _YES, "mixed_precision": _HALF, "save_precision": _HALF, "save_model_as": frozenset({"safetensors"}),
    "persistent_data_loader_workers": _YES, "enable_bucket": _YES, "bucket_no_upscale": _YES,
    "model_prediction_type": frozenset({"raw"}), "weighting_scheme": frozenset({"none"}), "loss_type": frozenset({"l2"}),
    "huber_schedule": frozenset({"constant"}), "huber_scale": frozenset({"1", "1.0"}),
    **{name: _NO | {"0.0"} for name in (*_NOISE_OF_OTHERS, "ip_noise_gamma", "random_crop", "color_aug", "scale_weight_norms")},
    "highvram": _YES | _NO, "disable_mmap_load_safetensors": _YES | _NO, "fp8_base": _NO, "blocks_to_swap": frozenset({"0"}),
}  # fmt: skip
_FLUXGYM_DONE: Mapping[str, frozenset[str]] = {
    **_KOHYA_DONE, "enable_checkpointing": _YES, "enable_monitoring": _YES, "auto_monitoring": _YES,
    "status": frozenset({"training", "running", "completed", "failed", "stopped", "unknown"}),  # what became of it there
}  # fmt: skip
_AI_TOOLKIT_DONE: Mapping[str, frozenset[str]] = {
    f"config.process.{name}": values
    for name, values in {
        "type": frozenset({"sd_trainer", "diffusion_trainer"}), "device": frozenset({"cuda", "cuda:0"}),
        "network.type": frozenset({"lora"}), "save.push_to_hub": _NO, "save.dtype": _HALF, "train.dtype": _HALF,
        "train.noise_scheduler": frozenset({"flowmatch"}),
        "train.train_unet": _YES, "train.train_text_encoder": _NO, "train.content_or_style": frozenset({"balanced"}),
        "train.ema_config.use_ema": _NO, "model.is_flux": _YES, "model.arch": frozenset({"flux"}), "model.quantize": _NO,
        "model.quantize_te": _YES | _NO, "model.low_vram": _YES | _NO, "datasets.cache_latents_to_disk": _YES,
        "sample.sampler": frozenset({"flowmatch"}), "sample.neg": frozenset({""}), "sample.walk_seed": _YES,
    }.items()
} | {"job": frozenset({"extension"}), "meta.version": frozenset({"1.0"}), "meta.name": frozenset({"[name]"})}  # fmt: skip

_KOHYA_UNSAID: Mapping[str, object] = {
    "lora.rank": 4,
    "lora.alpha": 1.0,
    "lora.targets": "all",
    "train.scheduler": "constant",
    "train.warmup_steps": 0,
    "train.timestep_sampling": "uniform_shift",
    "train.timestep_shift": 3.0,
    "train.guidance": 3.5,
    "train.scheduler_cycles": 1,
    "dataset.caption_dropout": 0.0,
}
_KOHYA_WINS = (
    ("max_train_epochs", "max_train_steps"), ("unet_lr", "learning_rate"), ("network_train_unet_only", "text_encoder_lr"),
    ("sample_every_n_epochs", "sample_every_n_steps"),
)  # fmt: skip

_KOHYA_NOTES: Mapping[str, str] = {
    "model_prediction_type": "sd-scripts takes 'sigma_scaled' then; here the velocity is trained, which is 'raw' there",
}

# Of the libraries that both leave to themselves, only AdamW decays unasked; the eps is of ai-toolkit's `get_optimizer`.
_UNDECAYED: Mapping[str, Mapping[str, object]] = {
    name: {"train.weight_decay": 0.0} for name in ("adafactor", "lion", "prodigy", "schedule_free")
}
_AI_TOOLKIT_OPTIMIZERS: Mapping[str, Mapping[str, object]] = {
    **_UNDECAYED,
    "adamw": {"train.eps": 1e-6},
    "prodigy": {**_UNDECAYED["prodigy"], "train.eps": 1e-6},
}

# its `lora_special.py` writes FLUX.1's LoRAs in peft's form, which has no alpha, and trains them so
_AI_TOOLKIT_FOLLOWS = {"lora.alpha": ("lora.rank", "for FLUX.1 ai-toolkit takes the rank, whatever alpha says")}

SOURCES: Mapping[str, Source] = {
    "kohya": Source(_KOHYA, _KOHYA_UNSAID, _KOHYA_DONE, _KOHYA_WINS, _KOHYA_NOTES, _UNDECAYED, {}),
    "FluxGym": Source(
        _FLUXGYM,
        {
            **_KOHYA_UNSAID,
            "train.timestep_sampling": "shift", "train.timestep_shift": 3.1582, "train.guidance": 1.0,
        },
        _FLUXGYM_DONE,
        _KOHYA_WINS,
        {},
        _UNDECAYED,
        {},
    ),
    "ai-toolkit": Source(
        _AI_TOOLKIT,
        {
            "lora.rank": 4, "lora.targets": "all", "train.scheduler": "constant", "train.warmup_steps": 0,
            "train.timestep_sampling": "sigmoid", "dataset.caption_dropout": 0.0,
        },
        _AI_TOOLKIT_DONE,
        (("network.rank", "network.linear"), ("network.linear_alpha", "network.alpha")),
        {},
        _AI_TOOLKIT_OPTIMIZERS,
        _AI_TOOLKIT_FOLLOWS,
    ),
}
