"""The time before a trainer may start: the pause after a failed attempt, then the queue for a device."""

from __future__ import annotations

from dataclasses import dataclass

from fluxtui.engine.keeper.classify import Verdict
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.loop import TICK
from fluxtui.engine.keeper.queue import Lease, Queue
from fluxtui.persist.sessions.requests import Request

_ASK = 1.0  # seconds between two looks at the queue


@dataclass(frozen=True, slots=True)
class Pause:
    """Not before this moment of the keeper's watch."""

    until: float = 0.0


def wait(duties: Duties, pause: Pause, queue: Queue, held: Lease | None) -> Lease | Verdict:
    """Until the devices are ours, or the user withdraws the session. Devices held from the attempt before stay held."""
    next_ask, longest = 0.0, 0.0  # the first look at once: whoever started it waits to hear whether it goes
    while True:
        _ready, requests = duties.turn(longest)
        longest = TICK
        withdrawn = obey(duties, requests)
        if withdrawn is not None:
            return withdrawn
        now = duties.loop.watch.now()
        if now < pause.until:
            continue
        if held is not None:
            return held
        if now >= next_ask:
            next_ask = now + _ASK
            turn = queue.ask(duties.journal.record)
            if turn.lease is not None:
                return turn.lease
            duties.journal.update(waiting_for=turn.waiting_for)


def obey(duties: Duties, requests: list[Request]) -> Verdict | None:
    """What is asked of a session that does not train yet; a verdict where it is withdrawn."""
    if duties.loop.asked_by:
        return Verdict("stopped", f"stopped by {duties.loop.asked_by} while it waited", "fluxtui resume {name}")
    withdrawn: Verdict | None = None
    for request in requests:
        outcome = "accepted"
        if request.verb in ("stop", "kill", "stop-after-epoch"):
            retries = duties.journal.record.retry > 0
            why = "stopped by you while it waited for its next try" if retries else "taken out of the queue"
            withdrawn = Verdict("stopped", why, "fluxtui resume {name}")
        elif request.verb == "priority" and isinstance(request.value, int) and abs(request.value) <= 10**6:
            duties.journal.update(priority=request.value)
        else:
            why = "that is no priority" if request.verb == "priority" else "it is still waiting, and nothing is trained yet"
            outcome = f"dropped: {why}"
        duties.journal.acknowledge(request.id, request.verb, outcome)
    return withdrawn
