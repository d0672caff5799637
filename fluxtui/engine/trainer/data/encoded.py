"""What the loop trains on: latents and text embeddings, from memory where they fit, else from the caches, read ahead.

The order in which micro-batches come, and every number in them, is the same with memory, reader threads or data workers.
"""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from fluxtui.engine.trainer.data.buckets import Place
from fluxtui.engine.trainer.data.cache import Buffer, Entry, EntryKey, key_of
from fluxtui.engine.trainer.data.data_worker import Read, Wanted, read_one
from fluxtui.engine.trainer.data.dataset import Item, Slot
from fluxtui.engine.trainer.data.reading import Readers
from fluxtui.engine.trainer.refusal import DataError

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "U8": torch.uint8}
DTYPE_WORDS = {dtype: word for word, dtype in DTYPES.items()}
# of entries: raised when what is computed for the same caption, or the same picture, changes
TEXT_LAYOUT = 1
PICTURE_LAYOUT = 2
_WINDOW = 2     # micro-batches read ahead where there are no workers
_REMEMBERED = 65_536    # keys of entries, of each kind

Tensors = dict[str, torch.Tensor]
Fetch = Callable[[Iterable[Sequence[Wanted]]], Iterator[list[Read]]]    # a list of entries in, what they held out, in order


@dataclass(frozen=True, slots=True)
class LatentBatch:
    """A micro-batch on the CPU."""

    slots: tuple[Slot, ...]
    latents: torch.Tensor           # (batch, 16, height / 8, width / 8) float32: the VAE's mean, neither shifted nor scaled
    prompt_embeds: torch.Tensor     # (batch, tokens, channels), dtype of the text encoders
    pooled: torch.Tensor            # (batch, channels)
    weights: torch.Tensor | None    # (batch, 1, height / 8, width / 8) float32, of the loss; None without masks
    class_embeds: torch.Tensor | None = None    # as prompt_embeds, of each sample's class caption; None without a class word
    class_pooled: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the entries are of: what their tensors depend on besides the picture or the caption."""

    vae: str            # key of the VAE's weights and configuration
    text: str           # key of both encoders, tokenizers and the text length
    text_dtype: str
    machine: str        # "cuda", or "cpu/2": convolutions and matrix products round by the number of threads

    def latents(self, item: Item, place: Place, is_mirrored: bool = False) -> EntryKey:
        """Where the latents of a picture at one place are found."""
        bucket = (place.bucket.width, place.bucket.height)
        return _latents_key(item.image_sha256, place.box, bucket, self.vae, self.machine, is_mirrored)

    def mask(self, item: Item, place: Place, is_mirrored: bool) -> EntryKey:
        """Where the mask of a picture at one place is found."""
        source = item.mask_sha256 or (f"alpha of {item.image_sha256}" if item.has_alpha_mask else "none")
        bucket = (place.bucket.width, place.bucket.height)
        return key_of("masks", layout=PICTURE_LAYOUT, source=source, box=place.box, bucket=bucket, mirrored=is_mirrored)

    def caption(self, caption: str) -> EntryKey:
        """Where the embeddings of a caption or prompt are found."""
        return _caption_key(caption, self.text, self.text_dtype, self.machine)


# Asked for at every step of every epoch: remembered, a hash of JSON each would cost a small model's step a hundredth.
@lru_cache(_REMEMBERED)
def _latents_key(
    image: str, box: tuple[float, ...], bucket: tuple[int, int], vae: str, machine: str, is_mirrored: bool
) -> EntryKey:
    identity: dict[str, object] = {
        "layout": PICTURE_LAYOUT, "image": image, "box": box, "bucket": bucket, "vae": vae, "machine": machine,
    }  # fmt: skip
    if is_mirrored:     # not said where it is not: entries of before there was a choice stay good
        identity["mirrored"] = True
    return key_of("latents", **identity)


@lru_cache(_REMEMBERED)
def _caption_key(caption: str, encoders: str, dtype: str, machine: str) -> EntryKey:
    return key_of("text", layout=TEXT_LAYOUT, text=caption, encoders=encoders, dtype=dtype, machine=machine)


def identity_of(vae: str, text: str, text_dtype: torch.dtype, device: torch.device) -> Identity:
    """The identity for this device, as torch stands now."""
    machine = f"cpu/{torch.get_num_threads()}" if device.type == "cpu" else device.type
    return Identity(vae, text, DTYPE_WORDS[text_dtype], machine)


class Encoded:
    """All latents and embeddings of a data set. Made by `encode.fill_caches`."""

    def __init__(
        self, identity: Identity, held: dict[EntryKey, Tensors], fetch: Fetch, closes: Sequence[Callable[[], None]] = (),
        outside: float | None = None,
    ) -> None:  # fmt: skip
        self._identity = identity
        self._held = held               # what fits into memory
        self._fetch = fetch             # reads the rest
        self._closes = closes
        self._outside = outside         # weight of the loss outside of a mask; None without masks

    def load(self, slots: Sequence[Slot]) -> LatentBatch:
        """One micro-batch, now. Raises as `batches` does."""
        return next(self.batches([tuple(slots)]))

    def batches(self, micro_batches: Sequence[tuple[Slot, ...]]) -> Iterator[LatentBatch]:
        """Each micro-batch (none empty) in turn, read ahead.

        Raises DataError where the caches no longer hold a part of it, DataWorkerError, HungReadError.
        """
        looked, looked_ahead = itertools.tee((slots, self._missing(slots)) for slots in micro_batches)
        reads = self._fetch([Wanted(entry.kind, entry.key) for entry in entries] for _, entries in looked_ahead if entries)
        for slots, entries in looked:
            found = dict(zip(entries, map(_tensors, next(reads)), strict=True)) if entries else {}
            yield self._assemble(slots, ChainMap(found, self._held) if found else self._held)

    def prompt(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings `(tokens, channels)` and pooled `(channels,)` of a prompt that `fill_caches` was told of."""
        entry = self._identity.caption(text)
        found = self._held.get(entry) or _tensors(next(self._fetch([[Wanted(entry.kind, entry.key)]]))[0])
        return found["prompt_embeds"], found["pooled"]

    def close(self) -> None:
        """Ends data workers and lets the caches evict what this run used. May be called twice."""
        for close in self._closes:
            close()

    def _missing(self, slots: Sequence[Slot]) -> list[EntryKey]:
        """Entries of a micro-batch that are not in memory, each once."""
        wanted = (entry for slot in slots for entry in (*self._entries(slot), self._class_entry(slot), *self._masks(slot)))
        return list(dict.fromkeys(entry for entry in wanted if entry not in self._held))

    def _entries(self, slot: Slot) -> tuple[EntryKey, EntryKey]:
        return self._identity.latents(slot.item, slot.place, slot.is_mirrored), self._identity.caption(slot.caption)

    def _class_entry(self, slot: Slot) -> EntryKey:
        """Of a sample that preserves nothing: its own caption, so that a batch stays whole; its weight is 0."""
        return self._identity.caption(slot.caption if slot.class_caption is None else slot.class_caption)

    def _masks(self, slot: Slot) -> tuple[EntryKey, ...]:
        return () if self._outside is None else (self._identity.mask(slot.item, slot.place, slot.is_mirrored),)

    def _weights(self, slots: Sequence[Slot], found: Mapping[EntryKey, Tensors]) -> torch.Tensor | None:
        if self._outside is None:
            return None
        inside = torch.stack([found[entry]["mask"] for slot in slots for entry in self._masks(slot)])
        return self._outside + (1.0 - self._outside) * (inside.to(torch.float32) / 255.0)

    def _assemble(self, slots: tuple[Slot, ...], found: Mapping[EntryKey, Tensors]) -> LatentBatch:
        parts = [self._entries(slot) for slot in slots]
        has_class = any(slot.class_caption is not None for slot in slots)
        classes = [found[self._class_entry(slot)] for slot in slots] if has_class else []
        return LatentBatch(
            slots=slots,
            latents=torch.stack([found[latents]["latents"] for latents, _ in parts]),
            prompt_embeds=torch.stack([found[text]["prompt_embeds"] for _, text in parts]),
            pooled=torch.stack([found[text]["pooled"] for _, text in parts]),
            weights=self._weights(slots, found),
            class_embeds=torch.stack([text["prompt_embeds"] for text in classes]) if classes else None,
            class_pooled=torch.stack([text["pooled"] for text in classes]) if classes else None,
        )


def fetch_by(readers: Readers, folder: Path) -> Fetch:
    """Reading by threads of this process, a little ahead of who asks."""

    def fetch(requests: Iterable[Sequence[Wanted]]) -> Iterator[list[Read]]:
        return readers.ahead(((f"the cache in {folder}", _reading(folder, request)) for request in requests), _WINDOW)

    return fetch


def to_tensors(entry: Entry) -> Tensors:
    """The tensors of an entry as read."""
    return {name: _tensor(*found) for name, found in entry.items()}


def to_entry(tensors: Tensors) -> Entry:
    """The bytes of tensors, as a cache keeps them."""
    return {name: _bytes(tensor.detach().cpu().contiguous()) for name, tensor in tensors.items()}


def _reading(folder: Path, request: Sequence[Wanted]) -> Callable[[], list[Read]]:
    return lambda: [read_one(folder, wanted) for wanted in request]


def _tensors(read: Read) -> Tensors:
    if read.damage or not read.tensors:
        why = read.damage or "a cache file that this run needs was removed while it ran"
        raise DataError(why, "fluxtui resume {name} first makes again what is missing from the caches")
    return {name: _tensor(*found) for name, found in read.tensors.items()}


def _tensor(dtype: str, shape: tuple[int, ...], data: Buffer) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]).view(shape)


def _bytes(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], bytes]:
    return DTYPE_WORDS[tensor.dtype], tuple(tensor.shape), tensor.view(torch.uint8).numpy().tobytes()
