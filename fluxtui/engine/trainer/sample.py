"""Pictures along the way, drawn by diffusers' own pipeline with the adapter as it is.

Nothing that training depends on is touched, and a picture that fails is a note in the log, never the end of a run.
"""

from __future__ import annotations

import io
import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.PngImagePlugin import PngInfo

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.memory.streaming import BlockSwapError
from fluxtui.engine.trainer.exit_reason import first_line
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.requests import StopAsked
from fluxtui.engine.trainer.runtime import loosely
from fluxtui.persist.checkpoints.commit import step_name
from fluxtui.persist.files.durable import make_own_folder, write_file
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings.prompts import SamplePrompt

if TYPE_CHECKING:
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from PIL.Image import Image

    from fluxtui.engine.trainer.adapter.clip import Clip


@dataclass(frozen=True, slots=True)
class Prompt:
    """A picture to draw, its text as the encoders gave it, on the CPU."""

    asked: SamplePrompt
    prompt_embeds: torch.Tensor  # (1, tokens, width)
    pooled: torch.Tensor  # (1, width)


@dataclass(slots=True)
class Painter:
    """Draws the prompts of a session. The VAE is loaded for a drawing and dropped after it."""

    components: Components
    transformer: FluxTransformer2DModel
    prompts: Sequence[Prompt]
    folder: Path  # samples/
    reporter: Reporter
    clip: Clip | None = None  # trained along: its pooled output is made anew for each drawing

    def draw(self, step: int, look: Callable[[], None] | None = None) -> None:
        """One PNG a prompt into samples/step-…/. A failure is said, and that is all.

        `look` is called at each denoising step; what it raises for a stop (`StopAsked`) ends the drawing and is raised on.
        """
        if not self.prompts:
            return
        self.reporter.progress(Phase.SAMPLE, step=step, item=0, items=self._total(), unit="denoising steps")
        models = [self.transformer, *([self.clip.adapter.model] if self.clip else [])]
        devices = [self.transformer.device] if self.transformer.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices), loosely():
                for model in models:
                    model.eval()
                self._draw_all(step, look)
        except StopAsked:
            raise
        except BlockSwapError:
            raise  # the base's weights are on their way and will not come: the next step would stand there too
        except Exception as error:  # noqa: BLE001  (whatever a drawing meets, the training goes on; it is in the log)
            traceback.print_exc()
            self.reporter.note(f"the samples of step {step} failed: {type(error).__name__}: {first_line(error)}")
        finally:
            for model in models:
                model.train()
            if devices:
                torch.cuda.empty_cache()  # the VAE's decoder takes gigabytes that the next step wants

    def _draw_all(self, step: int, look: Callable[[], None] | None) -> None:
        pipeline = self._pipeline()
        folder = self.folder / step_name(step)
        make_own_folder(self.folder)
        make_own_folder(folder)
        done = 0
        for number, prompt in enumerate(self.prompts):
            picture = self._draw_one(pipeline, prompt, done, look)
            write_file(folder / f"{number:02d}.png", png(picture, self._settings(prompt.asked, step)))
            done += prompt.asked.steps
        self.reporter.say(f"{len(self.prompts)} samples of step {step} drawn")

    def _total(self) -> int:
        return sum(prompt.asked.steps for prompt in self.prompts)

    def _draw_one(self, pipeline: FluxPipeline, prompt: Prompt, done: int, look: Callable[[], None] | None) -> Image:
        total, asked = self._total(), prompt.asked

        def drawn(_pipeline: Any, index: int, _time: Any, kept: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
            self.reporter.progress(Phase.SAMPLE, item=done + index + 1, items=total, unit="denoising steps")
            if look is not None:
                look()
            return kept

        device, dtype = self.transformer.device, self.transformer.dtype
        with torch.no_grad():
            pooled = self.clip.pooled([asked.text]) if self.clip else prompt.pooled
        picture: Image = pipeline(
            prompt_embeds=prompt.prompt_embeds.to(device, dtype),
            pooled_prompt_embeds=pooled.to(device, dtype),
            width=asked.width,
            height=asked.height,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance,
            generator=torch.Generator("cpu").manual_seed(asked.seed),
            callback_on_step_end=drawn,
        ).images[0]
        return picture

    def _pipeline(self) -> FluxPipeline:
        from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

        vae = self.components.load_vae(self.transformer.dtype, self.transformer.device)
        pipeline = FluxPipeline(
            scheduler=self.components.load_scheduler(), vae=vae, text_encoder=None, tokenizer=None, text_encoder_2=None,
            tokenizer_2=None, transformer=self.transformer,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _settings(self, asked: SamplePrompt, step: int) -> dict[str, str]:
        settings = {
            "seed": asked.seed, "steps": asked.steps, "width": asked.width, "height": asked.height,
            "guidance": asked.guidance if self.components.guidance_embeds else None, "training_step": step,
        }  # fmt: skip
        return {"prompt": asked.text, "fluxtui": json.dumps(settings, sort_keys=True)}


def png(picture: Image, texts: dict[str, str]) -> bytes:
    """The picture as PNG, with texts (UTF-8) inside."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
