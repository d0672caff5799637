"""The pass that fills the caches: captions first, then pictures; each network is loaded only for what is missing, and freed.

Every caption and picture is encoded by itself, so that an entry never depends on what else was missing at the time: made
again after a loss, it has the same bytes.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from fluxtui.engine.family.flux1.encode import are_slow_in_bf16, compute_in_float32, encode_image_mean, encode_prompts, pixels_of
from fluxtui.engine.memory.presets import is_text_on_cpu
from fluxtui.engine.trainer.data.cache import Cache, EntryKey
from fluxtui.engine.trainer.data.dataset import Dataset, class_caption
from fluxtui.engine.trainer.data.encoded import Encoded, Fetch, Tensors, fetch_by, identity_of, to_entry, to_tensors
from fluxtui.engine.trainer.data.image import crop, decode
from fluxtui.engine.trainer.data.masks import make_masks
from fluxtui.engine.trainer.data.reading import Readers
from fluxtui.engine.trainer.data.views import View, by_picture, read_unchanged, views_of
from fluxtui.engine.trainer.data.workers import Workers
from fluxtui.engine.trainer.refusal import DataError
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.gpu import host_gauges
from fluxtui.persist.errors import DamagedError, FluxTUIError
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings.spec import Spec

if TYPE_CHECKING:
    from fluxtui.engine.family.flux1.components import Components
    from fluxtui.engine.trainer.runtime import Runtime

MEMORY_SHARE = 0.25     # of the free memory: as much of the encoded data set is kept there
_THREADS = min(4, os.cpu_count() or 1)
_WINDOW = 2 * _THREADS  # pictures decoded ahead of the VAE

What = TypeVar("What")


def fill_caches(
    dataset: Dataset, spec: Spec, components: Components, reporter: Reporter, runtime: Runtime, folder: Path,
    prompts: Sequence[str] = (),
) -> Encoded:  # fmt: skip
    """Encodes what the caches in `folder` lack of the data set, of `prompts`, and of "" where captions are dropped.

    With several ranks each encodes the entries that fall to it, then all wait for each other. Raises DataError,
    HungReadError, StorageError.
    """
    identity = identity_of(components.vae_key, components.text_key, runtime.dtype, runtime.device)
    captions = {identity.caption(text): text for text in _texts(dataset, prompts)}
    views = {identity.latents(view.item, view.place, view.is_mirrored): view for view in views_of(dataset)}
    masked = views.values() if any(part.masks for part in dataset.parts) else ()
    masks = {identity.mask(view.item, view.place, view.is_mirrored): view for view in masked}
    readers = Readers(spec.guard.file_read, _THREADS)
    cache = Cache(folder, readers)
    lease = cache.lease((*captions, *views, *masks))
    store = _Store(cache, reporter, _budget(runtime.ranks), is_holding=spec.hardware.workers == 0)
    missing_captions = store.missing(_mine(captions, runtime), "captions")
    missing_views = store.missing(_mine(views, runtime), "images")
    missing_masks = store.missing(_mine(masks, runtime), "masks")
    _say_hits(reporter, captions, missing_captions, views, missing_views)
    if missing_captions:
        _encode_captions(missing_captions, components, runtime, store)
    if missing_views:
        _encode_views(missing_views, components, runtime, store, readers)
    if missing_masks:
        _make_masks(missing_masks, spec.dataset.mask_outside, store, readers)
    runtime.wait_for_all()
    if lost := store.missing(_others({**captions, **views, **masks}, runtime), "entries"):
        why = f"{len(lost)} cache entries that another rank wrote are not there"
        raise DataError(why, "give all ranks one disk, then fluxtui resume {name}")
    _evict(cache, reporter, is_due=runtime.is_first and bool(missing_captions or missing_views or missing_masks))
    fetch, closes = _reading(spec, folder, readers)
    return Encoded(identity, store.held, fetch, [lease.release, *closes], spec.dataset.mask_outside if masks else None)


@dataclass(slots=True)
class _Store:
    """The caches, and what of them is kept in memory."""

    cache: Cache
    reporter: Reporter
    room: int                       # bytes left for what is kept, or read to be verified
    is_holding: bool                # False where data workers read everything
    held: dict[EntryKey, Tensors] = field(default_factory=dict)

    def missing(self, wanted: Mapping[EntryKey, What], unit: str) -> dict[EntryKey, What]:
        """What the caches lack. What they have is verified, byte for byte as far as memory goes, and kept."""
        lacking: dict[EntryKey, What] = {}
        entries = list(wanted)
        read = self.cache.load_all(entries)
        for number, entry in enumerate(entries, start=1):
            found = self._keep_read(entry, next(read)) if self.room > 0 else self.cache.is_whole(entry)
            if found:
                self.cache.touch(entry)
            else:
                lacking[entry] = wanted[entry]
            self.reporter.progress(Phase.CACHE, item=number, items=len(entries), unit=unit)
        return lacking

    def put(self, entry: EntryKey, tensors: Tensors) -> None:
        """Into the cache, and into memory where there is room."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self.cache.save(entry, to_entry(tensors))
        self._keep(entry, tensors)

    def _keep_read(self, entry: EntryKey, found: object) -> bool:
        if isinstance(found, DamagedError):
            self.reporter.note(f"{found}; it is made again")
            return False
        if not isinstance(found, dict):
            return False
        self._keep(entry, to_tensors(found))
        return True

    def _keep(self, entry: EntryKey, tensors: Tensors) -> None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self.room > 0 and self.is_holding:
            self.held[entry] = tensors
        self.room -= size


def _encode_captions(missing: Mapping[EntryKey, str], components: Components, runtime: Runtime, store: _Store) -> None:
    store.reporter.progress(Phase.LOAD)
    is_apart = is_text_on_cpu(runtime.card)
    if is_apart:
        store.reporter.say("the text encoders run on the CPU: this GPU has no room for T5; seconds a caption")
    encoders = components.load_text_encoders(runtime.dtype, "cpu" if is_apart else runtime.device)
    if is_apart and runtime.dtype == torch.bfloat16 and are_slow_in_bf16():
        compute_in_float32(encoders.t5)
    for number, (entry, caption) in enumerate(missing.items(), start=1):
        states, pooled = encode_prompts(encoders, [caption])
        store.put(entry, {"prompt_embeds": states[0].to(runtime.dtype), "pooled": pooled[0]})
        store.reporter.progress(Phase.ENCODE, item=number, items=len(missing), unit="captions")
    del encoders
    _free(runtime.device)


def _encode_views(
    missing: Mapping[EntryKey, View], components: Components, runtime: Runtime, store: _Store, readers: Readers
) -> None:
    """The VAE computes in float32 whatever the base does: once a picture, and half precision would blur it for good."""
    store.reporter.progress(Phase.LOAD)
    vae = components.load_vae(torch.float32, runtime.device)
    done = 0
    for pixels in readers.ahead(map(_cutting, by_picture(missing)), _WINDOW):
        for entry, picture in pixels:
            store.put(entry, {"latents": encode_image_mean(vae, picture)[0]})
            done += 1
            store.reporter.progress(Phase.ENCODE, item=done, items=len(missing), unit="images")
    del vae
    _free(runtime.device)


def _make_masks(missing: Mapping[EntryKey, View], outside: float, store: _Store, readers: Readers) -> None:
    for number, (entry, mask) in enumerate(make_masks(missing, outside, readers), start=1):
        store.put(entry, {"mask": mask})
        store.reporter.progress(Phase.ENCODE, item=number, items=len(missing), unit="masks")


def _cutting(views: Mapping[EntryKey, View]) -> tuple[str, Callable[[], list[tuple[EntryKey, torch.Tensor]]]]:
    """The job of a reader thread: one picture, read and decoded once, cut to each of its views."""
    item = next(iter(views.values())).item

    def cut() -> list[tuple[EntryKey, torch.Tensor]]:
        picture = decode(read_unchanged(item.image, item.image_sha256), item.name)
        return [(entry, pixels_of(crop(picture, view.place, view.is_mirrored))) for entry, view in views.items()]

    return item.name, cut


def _texts(dataset: Dataset, prompts: Sequence[str]) -> Iterator[str]:
    for item in (*dataset.items, *dataset.held_out):
        yield from item.captions
    for item in dataset.items:
        yield from (found for text in item.captions if (found := class_caption(item, text, dataset.of(item))) is not None)
    if any(part.caption_dropout > 0 for part in dataset.parts):
        yield ""
    yield from prompts


def _mine(entries: Mapping[EntryKey, What], runtime: Runtime) -> dict[EntryKey, What]:
    """What falls to this rank, by key: not by what is missing, which changes while other ranks fill it."""
    return {entry: what for entry, what in entries.items() if int(entry.key[:8], 16) % runtime.ranks == runtime.rank}


def _others(entries: Mapping[EntryKey, object], runtime: Runtime) -> dict[EntryKey, object]:
    mine = _mine(entries, runtime)
    return {entry: what for entry, what in entries.items() if entry not in mine}


def _budget(ranks: int) -> int:
    """Bytes of memory that this rank may keep encoded data in: of what is free in this container, where that is less."""
    host = host_gauges()
    return int((host.memory_total - host.memory_used) * MEMORY_SHARE / ranks)


def _reading(spec: Spec, folder: Path, readers: Readers) -> tuple[Fetch, list[Callable[[], None]]]:
    if spec.hardware.workers == 0:
        return fetch_by(readers, folder), []
    workers = Workers(folder, spec.hardware.workers, spec.guard.worker_batch)
    return workers.read, [workers.end]


def _say_hits(
    reporter: Reporter, captions: Mapping[EntryKey, str], lacking: Mapping[EntryKey, str], views: Mapping[EntryKey, object],
    lacking_views: Mapping[EntryKey, object],
) -> None:
    found, found_views = len(captions) - len(lacking), len(views) - len(lacking_views)
    reporter.say(f"caches: {found_views} of {len(views)} latents and {found} of {len(captions)} captions are there")


def _evict(cache: Cache, reporter: Reporter, is_due: bool) -> None:
    if not is_due:
        return
    try:
        removed = cache.prune()
    except FluxTUIError as error:
        reporter.say(f"the caches were not tidied: {error}")
        return
    if removed.entries:
        reporter.say(f"caches: {removed.entries} entries unused for longest were removed ({removed.bytes >> 20} MiB)")


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
