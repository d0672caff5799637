"""What earlier sessions measured that a plan can go by: a step's memory and its seconds. No torch."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from fluxtui.persist import metrics
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import Record
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec

_STEPS = 200  # of a session, the newest
_NEVER = datetime.min.replace(tzinfo=UTC)


Session = tuple[SessionFolder, list[Record]]  # its attempts, the newest first


@dataclass(frozen=True, slots=True)
class Earlier:
    """None where nothing was measured."""

    peak: int | None  # bytes, of the newest probe of the same recipe with the same plan
    own_seconds: float | None  # a step of this session
    like_seconds: float | None  # a step of the newest other session that does the same work on the same card


def measured_by(home: Home, spec: Spec, own: SessionFolder | None, planned: int, card: str) -> Earlier:
    """`own`: the session's folder, where it is one. `planned`: bytes of the training phase. `card`: a GPU's name; "": the CPU."""
    others = _like(home, spec, own)
    seconds = (_median(folder) for folder, records in others if any(_is_on(record, card) for record in records))
    return Earlier(
        _newest_peak(spec, own, others, planned),
        _median(own) if own else None,
        next((found for found in seconds if found), None),
    )


def probed_by(home: Home, spec: Spec, own: SessionFolder | None, planned: int) -> int | None:
    """The peak alone."""
    return _newest_peak(spec, own, _like(home, spec, own), planned)


def _newest_peak(spec: Spec, own: SessionFolder | None, others: Sequence[Session], planned: int) -> int | None:
    """Of the same recipe, its pictures included; a plan names every part to the byte, so the same sum is held the same way."""
    digest = recipe.recipe_sha256(spec)
    for records in (_records(own) if own else [], *(records for _, records in others)):
        for record in records:
            if record.memory and record.recipe_sha256 == digest and record.memory.planned == planned:
                return record.memory.probed
    return None


def _like(home: Home, spec: Spec, own: SessionFolder | None) -> list[Session]:
    """Other sessions that were started and do the same work a step, the newest first."""
    return sorted(_alike(home, spec, own), key=lambda found: found[1][0].started_at or _NEVER, reverse=True)


def _alike(home: Home, spec: Spec, own: SessionFolder | None) -> Iterator[Session]:
    """What cannot be read is none of them."""
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


def _is_on(record: Record, card: str) -> bool:
    if card:
        return record.memory is not None and record.memory.card == card
    return not record.gpus and record.host == socket.gethostname()


def _median(folder: SessionFolder) -> float | None:
    try:
        newest = metrics.read_tail(folder.metrics_file, _STEPS)
    except FluxTUIError:
        return None
    took = [metric.seconds for metric in newest if metric.step > 0]  # at step 0 there is a held-out loss and no step
    return median(took) if took else None
