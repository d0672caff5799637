"""From a key to its action: bindings from the table of actions, and the one way in which an action is carried out or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from textual.binding import Binding, BindingType

from fluxtui.actions import BY_NAME, Chain, keys_of, live_keys, of_contexts, shown_key
from fluxtui.refusals import Situation

if TYPE_CHECKING:
    from pathlib import Path

    from textual.message_pump import MessagePump as _Pump

    from fluxtui.persist.sessions.overview import Overview
else:
    _Pump = object


class Front(Protocol):
    """What the app offers to screens and panes."""

    keys: dict[str, str]  # action -> the user's own keys
    sessions: dict[str, Overview]  # by name, as seen last

    def situation(self, name: str = "") -> Situation: ...
    def say(self, text: str, kind: str = "info", stays: bool = False) -> None: ...
    def run_quietly(self, work: Callable[[], None]) -> None: ...
    def follow_beside(self, names: Sequence[str]) -> None: ...
    def resume_from(self, name: str, checkpoint: str, newest: bool) -> None: ...
    def edit_settings(self) -> None: ...
    def edit_in_editor(self, name: str) -> None: ...
    def opened_in_editor(self, path: Path) -> bool: ...
    def export(self, name: str, checkpoint: str, has_average: bool) -> None: ...
    def delete_checkpoint(self, name: str, checkpoint: str) -> None: ...


def front_of(app: object) -> Front:
    return cast(Front, app)


def bindings_for(*contexts: str) -> list[BindingType]:
    """The bindings of some contexts. Each is remappable by its action's name."""
    return [
        Binding(action.keys, f"do('{action.name}')", action.label, show=False, id=action.name) for action in of_contexts(contexts)
    ]


def first_key(app: object, name: str, is_ascii: bool = False, chains: Sequence[Chain] = ()) -> str:
    """The key that is shown for an action, remapped where the user remapped it; one that reaches it in these chains."""
    action, own = BY_NAME[name], front_of(app).keys
    return shown_key((live_keys(action, chains, own) or keys_of(action, own))[0], is_ascii)


class Dispatcher(_Pump):
    """Mixed into whatever has bindings: `do('stop')` ends in `do_stop()`, or in a sentence why not."""

    def situation(self, name: str = "") -> Situation:
        """What refusals look at; panes leave it to the app."""
        return front_of(self.app).situation(name)

    def action_do(self, name: str) -> None:
        """Carry out an action of the table, or say why it cannot be done."""
        why = BY_NAME[name].refusal(self.situation())
        if why:
            front_of(self.app).say(f"{first_key(self.app, name)} {BY_NAME[name].label}: {why}", "warn")
            return
        method = "do_" + name.replace("-", "_")
        places = (self, getattr(self, "screen", None), self.app)  # a page leaves to its screen what is the screen's
        next(getattr(place, method) for place in places if hasattr(place, method))()
