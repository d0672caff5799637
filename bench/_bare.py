"""What a training on the pico FLUX.1 cannot do without, by the libraries alone: `python bench/_bare.py STEPS FILE`.

Interpreter apart, each part's seconds as one JSON object: imports, the weights read by diffusers and transformers themselves,
each caption and picture encoded once, STEPS bare steps of the demo's recipe (forward, backward, clip, AdamW), FILE written and
synced. Not a line of the product runs in here, but for where its model and pictures lie.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

TARGETS = r".*\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out|ff\.net\.0\.proj|ff\.net\.2" \
    r"|ff_context\.net\.0\.proj|ff_context\.net\.2|proj_mlp)|single_transformer_blocks\.\d+\.proj_out"  # fmt: skip


def main() -> None:
    steps, file = int(sys.argv[1]), Path(sys.argv[2])
    taken: dict[str, float] = {}
    last = time.perf_counter()

    def done(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        taken[name], last = now - last, now

    import torch

    done("import torch")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from transformers.models.clip.modeling_clip import CLIPTextModel
    from transformers.models.clip.tokenization_clip import CLIPTokenizer
    from transformers.models.t5.modeling_t5 import T5EncoderModel
    from transformers.models.t5.tokenization_t5 import T5Tokenizer

    done("import diffusers and transformers")
    import accelerate  # noqa: F401
    from peft import LoraConfig

    done("import peft and accelerate")
    import numpy
    from PIL import Image
    from safetensors.torch import save_file

    from fluxtui.demo import IMAGES_DIR, PICO_DIR

    folder, images = Path(PICO_DIR), Path(IMAGES_DIR)
    t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
    clip = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    words2, words = T5Tokenizer.from_pretrained(folder / "tokenizer_2"), CLIPTokenizer.from_pretrained(folder / "tokenizer")
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    model = FluxTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    done("load the pipeline")
    with torch.no_grad():
        for caption in sorted(images.glob("*.txt")):
            text = caption.read_text().strip()
            t5(**words2(text, return_tensors="pt", padding="max_length", truncation=True, max_length=words2.model_max_length))
            clip(**words(text, return_tensors="pt", padding="max_length", truncation=True, max_length=words.model_max_length))
        for image in sorted(images.glob("*.png")):
            pixels = torch.from_numpy(numpy.asarray(Image.open(image).convert("RGB")).copy()).permute(2, 0, 1)[None] / 127.5 - 1
            vae.encode(pixels).latent_dist.mode()
    done("encode captions and pictures")
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    ids, length = torch.zeros(16, 3), words2.model_max_length
    for _ in range(steps):
        tokens, target = torch.randn(8, 16, 64), torch.randn(8, 16, 64)
        out = model(
            tokens, timestep=torch.rand(8), guidance=torch.ones(8), img_ids=ids, txt_ids=torch.zeros(length, 3),
            encoder_hidden_states=torch.randn(8, length, model.config.joint_attention_dim),
            pooled_projections=torch.randn(8, model.config.pooled_projection_dim),
        )[0]  # fmt: skip
        (out - target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    done("one step" if steps == 1 else f"{steps} bare steps")
    lora = {f"transformer.{name}": value.detach().bfloat16() for name, value in model.state_dict().items() if "lora_" in name}
    save_file({name.replace(".default", ""): value.contiguous() for name, value in lora.items()}, file)
    with file.open("rb") as written:
        os.fsync(written.fileno())
    done("write the file")
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
