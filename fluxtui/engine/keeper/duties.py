"""What the keeper owes every second, whatever stage it is in: its lock, the record, the log's cap, the control folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fluxtui.engine.keeper.journal import Journal
from fluxtui.engine.keeper.loop import TICK, Loop
from fluxtui.engine.keeper.session_log import Log
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions import requests
from fluxtui.persist.sessions.requests import Request
from fluxtui.persist.settings.spec import Spec

EVERY = 0.5  # seconds between two looks into the control folder
_REMEMBERED = 4096
_GARBAGE_LINES = 5  # said in the log at one look; the rest is counted


@dataclass(slots=True)
class Duties:
    """Everything that a stage of an attempt needs at hand, and the chores between its turns."""

    home: Home
    folder: SessionFolder
    spec: Spec  # with the overrides of this start
    loop: Loop
    log: Log
    journal: Journal
    each_turn: list[Callable[[], None]] = field(default_factory=list)  # what else must go on whatever the stage
    _looked: float = field(default=-EVERY)
    _seen: dict[str, None] = field(default_factory=dict)  # ids consumed: on a read-only disk the files stay
    _pending: list[Request] = field(default_factory=list)  # taken while nobody could obey them
    has_late_stop: bool = False  # one came when the attempt was over
    stop_after_epoch: str = ""  # id of such a request that was accepted: it holds for the trainers of retries too

    def turn(self, longest: float = TICK) -> tuple[set[int], list[Request]]:
        """One turn of the loop and what is due: ready descriptors, and the requests meant for this attempt.

        Whoever calls it obeys and acknowledges what it gives; where nothing can be obeyed, `breathe` is called instead.

        Raises `SessionGoneError` where the session's folder is gone: the stage then ends what it started, at once.
        """
        ready = self.loop.turn(longest)
        self.journal.check_lock()
        self.journal.tick()
        for chore in self.each_turn:
            chore()
        now, requests = self.loop.watch.now(), self._pending
        self._pending = []
        if now - self._looked >= EVERY:
            self._looked = now
            self.log.keep_short()
            requests = requests + self._requests()
        self.loop.catch_up()  # before anyone is judged: a disk may have held us in a write of our own
        if self.loop.missed:
            self.log.line(f"the keeper stood still for {self.loop.missed:.1f} s; all limits are extended by that")
        return ready, requests

    def breathe(self, longest: float = 0.0) -> None:
        """A turn in the middle of something else: the beat goes on, and what is asked meanwhile is kept for who comes next."""
        _ready, requests = self.turn(longest)
        self._pending += requests

    @property
    def is_called_off(self) -> bool:
        """Whether no other attempt follows: a stop came when this one was over, or a signal."""
        return self.has_late_stop or bool(self.loop.asked_by)

    def take_pending(self) -> list[Request]:
        """What was asked while nobody could obey it."""
        taken, self._pending = self._pending, []
        return taken

    def _requests(self) -> list[Request]:
        taken, rejected = requests.take_requests(self.folder)
        for sentence in rejected[:_GARBAGE_LINES]:
            self.log.line(f"a control request was ignored: {sentence}")
        if len(rejected) > _GARBAGE_LINES:
            self.log.line(f"{len(rejected) - _GARBAGE_LINES} more control requests were ignored")
        taken = [request for request in taken if request.id not in self._seen]
        self._seen |= dict.fromkeys(request.id for request in taken)
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        attempt = self.journal.record.attempt
        for request in taken:
            if request.attempt != attempt:
                outcome = f"dropped: it was for attempt {request.attempt}, this is attempt {attempt}"
                self.journal.acknowledge(request.id, request.verb, outcome)
        return [request for request in taken if request.attempt == attempt]
