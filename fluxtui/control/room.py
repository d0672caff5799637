"""Whether the disk has room for what a session will write, estimated before it is made or started; the sum is `persist.room`'s.

The trainer looks again, with what it then knows, before it begins and before each checkpoint.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from fluxtui.persist import cache_folder, room
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError, StorageError
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import ModelSource
from fluxtui.persist.room import Need, Shape
from fluxtui.persist.settings.spec import Spec

_BASE_BYTES = 2  # of an embedding's number: bfloat16, at the least


def estimate(spec: Spec, source: ModelSource, images: int = 0, held: int = 0, cached: int = 0) -> Need:
    """What the session will write at the most, with that many images; `held` and `cached` bytes are there already."""
    shape = _shape(source)
    caches = room.caches_at_most(spec.dataset, images, shape, _BASE_BYTES)
    return room.estimate(spec, shape, held, max(0, caches - cached))


def check(home: Home, spec: Spec, source: ModelSource, images: int = 0) -> None:
    """Raises `StorageError` with the sum where the disk of the home has less free than the session needs, or the checkpoints' own
    disk less than those do."""
    checkpoints = home.session(spec.name).checkpoints
    need = estimate(spec, source, images, commit.held_bytes(checkpoints), cache_folder.usage(home.cache).bytes)
    if room.is_apart(checkpoints, home.root):
        _must_fit(spec, checkpoints, Need(need.checkpoints, 0, 0))
        need = replace(need, checkpoints=0)
    _must_fit(spec, home.root, need)


def _must_fit(spec: Spec, place: Path, need: Need) -> None:
    try:
        disk = os.statvfs(place)
    except OSError as error:
        raise StorageError.of(error, "look at", place) from error
    free = disk.f_bavail * disk.f_frsize
    if free < need.total:
        raise StorageError(
            f"{room.words(free)} are free at {place}, and {spec.name} needs {room.words(need.total)}: "
            f"{need.parts(spec.checkpoint.keep)}; "
            "make room, lower checkpoint.keep, or point FLUXTUI_HOME at a larger disk."
        )


def _shape(source: ModelSource) -> Shape:
    """Of a model that is not here yet, or cannot be read: FLUX.1's."""
    if source.path is None:
        return Shape()
    try:
        config = json.loads(toml.read_bytes(source.path / "transformer" / "config.json", follow_links=True))
        heads, head = int(config.get("num_attention_heads", 24)), int(config.get("attention_head_dim", 128))
        return Shape(
            double_blocks=int(config.get("num_layers", 19)), single_blocks=int(config.get("num_single_layers", 38)),
            width=heads * head, text_width=int(config.get("joint_attention_dim", 4096)),
        )  # fmt: skip
    except (FluxTUIError, ValueError, TypeError):
        return Shape()
