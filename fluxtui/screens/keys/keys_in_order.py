"""Keys one after the other: what is typed in one burst reaches what the keys before it have opened.

Textual hands every key to whatever has the focus when it arrives. Over a slow line "/fox" arrives at once: the three
letters would be commands of the list, `f`, `o` and `x`, before the line that they are typed into has the focus.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from textual.app import App
from textual.events import Event, Key, Paste
from textual.message_pump import MessagePump

from fluxtui.actions import MOVES

ROUNDS = 2  # through all queues: what a key did may itself post a message, as a line that closes does
PATIENCE = 60  # rounds that a screen which has just been opened may take until something has the focus
PAUSE = 0.005  # seconds between such rounds
LOST = 3.0  # seconds after which a key whose target went away is taken for done


class KeysInOrder(App[int]):
    """An app that passes a key on only after the one before has done all it does."""

    _typed: deque[Key | Paste]
    _serial = 0  # of the key that is at work
    _rescue: asyncio.TimerHandle | None = None

    @property
    def has_keys_waiting(self) -> bool:
        """Whether a key is still at work, or something waits for one that is."""
        return bool(self._typed)

    async def on_event(self, event: Event) -> None:
        if not isinstance(event, Key | Paste) or event.is_forwarded or (not self._typed and self._needs_no_turn(event)):
            await super().on_event(event)
            return
        self._typed.append(event)
        if len(self._typed) == 1:
            await self._pass_on()

    def _needs_no_turn(self, event: Key | Paste) -> bool:
        """Whether what comes next goes where this goes: a key held down must not wait for every line to be drawn."""
        if isinstance(event, Paste):
            return True
        for _, bindings in self.screen._modal_binding_chain:
            if found := bindings.key_to_bindings.get(event.key):
                return found[0].id in MOVES
        return False

    async def _pass_on(self) -> None:
        self._serial += 1
        target = self._target()
        await super().on_event(self._typed[0])
        self._follow(target, 1, self._serial)
        if self._rescue is not None:
            self._rescue.cancel()
        self._rescue = asyncio.get_running_loop().call_later(LOST, self.call_later, self._done, self._serial)

    def _target(self) -> MessagePump:
        return self.focused or self.screen

    def _follow(self, target: MessagePump, rounds: int, serial: int) -> None:
        """A message behind the key, through every queue that it goes through on its way up; behind what it did, at last."""
        path: list[MessagePump] = [target, *_parents(target), self]
        after: Callable[[], object] = partial(self._came_round, rounds, serial)
        for pump in reversed(path):
            after = partial(_behind, pump, after)
        after()

    def _came_round(self, rounds: int, serial: int) -> None:
        if serial != self._serial:
            return
        if rounds < ROUNDS:
            self._follow(self._target(), rounds + 1, serial)
        elif rounds < PATIENCE and (not self.screen.is_mounted or self.screen.focused is None):
            self.set_timer(PAUSE, partial(self._follow, self._target(), rounds + 1, serial))
        else:
            self.call_later(self._done, serial)

    async def _done(self, serial: int) -> None:
        if serial != self._serial or not self._typed:
            return
        self._serial += 1
        self._typed.popleft()
        if self._typed:
            await self._pass_on()


def _behind(pump: MessagePump, after: Callable[[], object]) -> None:
    """Do it after all that waits in a queue; at once where the queue is shut, as that of an editor that the key has closed."""
    if not pump.call_later(after):
        after()


def _parents(pump: MessagePump) -> list[MessagePump]:
    """From the one right above up to the app."""
    found: list[MessagePump] = []
    while (above := pump._parent) is not None:
        found.append(above)
        pump = above
    return found
