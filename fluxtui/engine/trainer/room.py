"""How much of the disk a run will need, by the model's JSON and the data set's sizes: the sum of `persist.room`. No torch."""

from __future__ import annotations

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.trainer.data.dataset import Dataset
from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import ModelSource
from fluxtui.persist.models.search import hub_caches
from fluxtui.persist.room import Shape, estimate, is_apart, lora_weights, words
from fluxtui.persist.settings.spec import Spec

__all__ = ["Shape", "estimate", "is_apart", "lora_weights", "of_caches", "of_download", "of_session", "shape_of", "words"]

_DOWNLOAD = 34 << 30        # bytes: transformer 23.8, T5 9.5, CLIP 0.25, VAE 0.17 GB


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


def of_session(spec: Spec, shape: Shape, held: int = 0) -> int:
    """Bytes still to be written beside the caches and the model; `held` bytes of checkpoints are there already."""
    return estimate(spec, shape, held).total


def of_caches(dataset: Dataset, shape: Shape, bytes_of_base: int) -> int:
    """Bytes of all latents and embeddings; a latent takes a byte a pixel (16 float32 for 8 x 8 of them)."""
    items = (*dataset.items, *dataset.held_out)
    pixels = sum(
        (2 if dataset.of(item).flip else 1) * place.bucket.width * place.bucket.height for item in items for place in item.places
    )
    captions = len({caption for item in items for caption in item.captions})
    return pixels + captions * shape.text_tokens * shape.text_width * bytes_of_base


def of_download(model: ModelSource, home: Home) -> int:
    """About how many bytes of a model are still to be fetched; 0 where it is here or was begun: then the hub's sizes decide."""
    folder = f"models--{model.hub_id.replace('/', '--')}"
    if not model.hub_id or any((cache / folder).exists() for cache in hub_caches(home)):
        return 0
    return _DOWNLOAD
