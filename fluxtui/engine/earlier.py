"""What earlier sessions measured that a plan can go by: a step's memory and its seconds. No torch."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from fluxtui.persist import metrics, recipe, toml
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.record import Record
from fluxtui.persist.spec import Spec

_STEPS = 200  # of a session, the newest
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Earlier:
    """None where nothing was measured."""

    peak: int | None  # bytes, of the newest probe of the same recipe with the same plan
    own_seconds: float | None  # a step of this session
    like_seconds: float | None  # a step of the newest other session that does the same work on the same card


def measured_by(home: Home, spec: Spec, own: SessionFolder | None, planned: int, card: str) -> Earlier:
    """`own`: the session's folder, where it is one. `planned`: bytes of the training phase. `card`: a GPU's name; "": the CPU."""
    own_records = _records(own) if own else []
    others = sorted(_like(home, spec, own), key=lambda found: found[1][0].started_at or _NEVER, reverse=True)
    peaks = (_peak(records, planned) for records in (own_records, *(records for _, records in others)))
    seconds = (_median(folder) for folder, records in others if any(_is_on(record, card) for record in records))
    return Earlier(
        next((peak for peak in peaks if peak), None),
        _median(own) if own else None,
        next((found for found in seconds if found), None),
    )


def _like(home: Home, spec: Spec, own: SessionFolder | None) -> Iterator[tuple[SessionFolder, list[Record]]]:
    """Other sessions that were started and do the same work a step; what cannot be read is none of them."""
    wanted = _work(spec)
    for name in home.session_names():
        if own is not None and name == own.name:
            continue
        with suppress(FluxTUIError):
            folder = home.session(name)
            if not folder.attempt_numbers() or not (records := _records(folder)):
                continue
            if _work(recipe.apply(recipe.load_spec(folder.spec_file), records[0].overrides)) == wanted:
                yield folder, records


def _records(folder: SessionFolder) -> list[Record]:
    """Those that can be read, the newest first."""
    found = []
    with suppress(FluxTUIError):
        for number in reversed(folder.attempt_numbers()):
            with suppress(FluxTUIError):
                found.append(toml.read(folder.attempt_file(number), Record))
    return found


def _work(spec: Spec) -> tuple[object, ...]:
    """What decides a step's time and memory on a given card."""
    train, hardware, lora = spec.train, spec.hardware, spec.lora
    return (
        spec.model, sorted(spec.dataset.resolution), bool(spec.dataset.class_word), lora.kind, lora.rank, lora.layers,
        lora.targets, train.batch_size, train.gradient_accumulation, train.gradient_checkpointing, train.optimizer,
        bool(train.clip_learning_rate), bool(train.ema_decay), hardware.preset, hardware.stream_blocks, hardware.compile,
    )  # fmt: skip


def _peak(records: list[Record], planned: int) -> int | None:
    """The plan names every part to the byte: the same sum is the same work."""
    return next((record.memory.probed for record in records if record.memory and record.memory.planned == planned), None)


def _is_on(record: Record, card: str) -> bool:
    if card:
        return record.memory is not None and record.memory.card == card
    return not record.gpus and record.host == socket.gethostname()


def _median(folder: SessionFolder) -> float | None:
    try:
        newest = metrics.read_tail(folder.metrics_file, _STEPS)
    except FluxTUIError:
        return None
    return median(metric.seconds for metric in newest) if newest else None
