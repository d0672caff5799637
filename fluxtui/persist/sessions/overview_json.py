"""An overview as JSON: the object of `ls --json` and `show --json`, which scripts may rely on. Its keys: docs/command-line.md."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import Record

SCHEMA = 1  # a key may be added at any time, none changes its meaning


def to_json(overview: Overview) -> dict[str, Any]:
    """The stable object of `ls --json` and `show --json`; times in ISO 8601 with their zone, null where not known."""
    record = overview.record
    return {
        "schema": SCHEMA,
        "name": overview.name,
        "title": overview.title,
        "id": overview.id,
        "kind": overview.kind or None,
        "path": str(overview.path),
        "status": overview.status or None,
        "state": overview.state,
        "reason": overview.reason,
        "remedy": overview.remedy,
        "next": overview.next,
        "phase": overview.phase,
        "inner": overview.inner,
        "attempt": overview.attempt,
        "step": overview.step,
        "standing": overview.standing,
        "steps": overview.steps,
        "epoch": overview.epoch,
        "epochs": overview.epochs,
        "stops_after_epoch": overview.stops_after_epoch or None,
        "loss": _finite(overview.loss),
        "step_seconds": _finite(overview.step_seconds),
        "eta_seconds": _finite(overview.eta_seconds),
        "queued_at": _time(overview.queued_at),
        "started_at": _time(overview.started_at),
        "finished_at": _time(overview.finished_at),
        "beat_at": _time(record.beat_at if record else None),
        "exit_code": overview.exit_code,
        "signal": overview.signal or None,
        "gpus": overview.gpus,
        "host": record.host if record else None,
        "nodes": record.nodes if record else [],
        "priority": record.priority if record else None,
        "waiting_for": (record.waiting_for if record else "") or None,
        "amber": (record.amber if record else "") or None,
        "gpu_hint": (record.gpu_hint if record else "") or None,
        "memory": _memory(record),
        "retry": record.retry if record else 0,
        "resumed_from": (record.resumed_from if record else "") or None,
        "inexact_since": record.inexact_since if record else None,
        "recipe_sha256": (record.recipe_sha256 if record else "") or None,
        "checkpoint": overview.checkpoint or None,
        "output": overview.output or None,
        "tensors_sha256": overview.tensors_sha256 or None,
        "resumable": overview.is_resumable,
    }


def _memory(record: Record | None) -> dict[str, Any] | None:
    seen = record.memory if record else None
    if seen is None:
        return None
    return {"planned": seen.planned, "probed": seen.probed, "step_seconds": _finite(seen.step_seconds), "card": seen.card}


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
