"""The record that the keeper of a node other than node 0 writes of its part in an attempt."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from fluxtui.engine.keeper.classify import RankExit, Verdict
from fluxtui.engine.keeper.clock import wall
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.machines.messages import Call, NodeRecord, RankLeft
from fluxtui.persist import process


def first_record(call: Call, node: int, slots: int, gpus: list[str]) -> NodeRecord:
    """The answer to a call. With no slots yet it is none that node 0 counts: it waits for devices."""
    assert call.job is not None
    return NodeRecord(
        session_id=call.job.spec.id,
        attempt=call.attempt,
        nonce=call.job.nonce,
        status="queued",
        queued_at=wall(),
        host=socket.gethostname(),
        boot_id=process.boot_id(),
        run_id=call.run_id if slots else "",
        keeper=process.identify(os.getpid()),
        threads=call.job.threads,
        gpus=gpus,
        node=node,
        slots=slots,
    )


def conclude(duties: Duties, call: Call | None, verdict: Verdict, exits: Sequence[RankExit]) -> None:
    """The last word of this machine on the attempt. Nothing is called completed here: that is node 0's, with proof."""
    journal, left = duties.journal, verdict.culprit
    reason = verdict.reason
    if left is not None and left.ended_by_keeper and call is not None:
        reason = f"ended: {call.why or 'node 0 is gone'}"
    changes: dict[str, Any] = {
        "run_id": call.run_id if call is not None else journal.record.run_id,
        "end": verdict.end,
        "reason": reason,
        "remedy": verdict.remedy,
        "is_retried": verdict.is_retried,
        "exits": [RankLeft.of(one) for one in exits],
        "culprit": None if left is None else RankLeft.of(left),
        "exit_code": left.code if left else None,
        "signal": left.signal_name if left else "",
        "finished_at": journal.today(),
        "amber": "",
    }
    if journal.record.status == "running" and verdict.end != "failed":
        journal.transition("stopping", exits=changes["exits"])
    journal.transition("failed" if verdict.end == "failed" else "stopped", **changes)
    duties.log.line(f"attempt {journal.record.attempt}: {verdict.end}{f', {reason}' if reason else ''}")
