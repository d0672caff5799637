"""How much of the disk a run will need, going by the model's JSON and the data set's sizes. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.trainer.dataset import Dataset
from fluxtui.persist import layers
from fluxtui.persist.home import Home
from fluxtui.persist.model_folder import ModelSource
from fluxtui.persist.spec import Spec

_SLACK = 64 << 20           # bytes, at most, for logs, samples and the file system's own
_DOWNLOAD = 34 << 30        # bytes: transformer 23.8, T5 9.5, CLIP 0.25, VAE 0.17 GB
_STATE = 12                 # bytes of a checkpoint for each LoRA weight: itself and Adam's two, float32


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that decide how much is written. The defaults are FLUX.1-dev's."""

    double_blocks: int = 19
    single_blocks: int = 38
    width: int = 3072
    text_tokens: int = 512
    text_width: int = 4096


def shape_of(model: ModelSource) -> Shape:
    """The shape of a pipeline on this disk; FLUX.1-dev's for one that is still on the hub. Raises as `Components` does."""
    if model.path is None:
        return Shape()
    components = Components(model.path)
    transformer = components.transformer_config
    return Shape(
        double_blocks=int(transformer.get("num_layers", 19)),
        single_blocks=int(transformer.get("num_single_layers", 38)),
        width=int(transformer.get("num_attention_heads", 24)) * int(transformer.get("attention_head_dim", 128)),
        text_tokens=components.text_tokens,
        text_width=int(transformer.get("joint_attention_dim", 4096)),
    )


def lora_weights(shape: Shape, rank: int) -> int:
    """Weights of a LoRA of every linear layer of attention and MLPs: 36 and 17 x width x rank for a double and a single block.

    (A layer from n to m has (n + m) x rank. Double: 8 of n = m = width, 2 up and 2 down by 4. Single: 3, 1 up by 4, 1 from 5.)
    """
    return (36 * shape.double_blocks + 17 * shape.single_blocks) * shape.width * rank


def of_session(spec: Spec, shape: Shape, held: int = 0) -> int:
    """Bytes still to be written for the checkpoints that are kept, one more being written, and the product.

    `held` bytes of checkpoints are there already and are replaced in time; one always has to fit beside them.
    """
    weights = lora_weights(shape, layers.largest_rank(spec.lora))
    one = weights * _STATE
    return max(one, one * (spec.checkpoint.keep + 1) - held) + weights * 2 + min(_SLACK, one)


def of_caches(dataset: Dataset, shape: Shape, bytes_of_base: int) -> int:
    """Bytes of all latents and embeddings; a latent takes a byte a pixel (16 float32 for 8 x 8 of them)."""
    items = (*dataset.items, *dataset.held_out)
    turns = 2 if dataset.spec.flip else 1
    pixels = turns * sum(place.bucket.width * place.bucket.height for item in items for place in item.places)
    captions = len({caption for item in items for caption in item.captions})
    return pixels + captions * shape.text_tokens * shape.text_width * bytes_of_base


def of_download(model: ModelSource, home: Home) -> int:
    """Bytes of a model that is still to be fetched; 0 where it is here, or was begun."""
    if not model.hub_id or (home.models / "hub" / f"models--{model.hub_id.replace('/', '--')}").exists():
        return 0
    return _DOWNLOAD


def words(size: int) -> str:
    """A number of bytes for people: "3.2 GiB"."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
