"""The one table of actions: bindings, footer, help, palette and `docs/tour.md` all come from it.

An action names the contexts it works in; a screen takes the bindings of its contexts from here. `refuses` says in one
sentence why a key does nothing now: the sentence is what the user reads. Names are fixed: `config.toml` remaps by them
(`[keys]`, `stop = "S"`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fluxtui import refusals as why
from fluxtui.refusals import Situation

Refusal = Callable[[Situation], str]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a key does."""

    name: str
    keys: str  # "j,down"; the first one is shown
    label: str  # one or two words, for the footer
    help: str  # one sentence
    group: str
    contexts: frozenset[str]
    footer: int = 0  # smaller stands further left; 0: not in the footer
    refuses: Refusal | None = None
    verb: str = ""  # the command that does the same

    def refusal(self, situation: Situation) -> str:
        """Why it cannot be done now; empty where it can."""
        return self.refuses(situation) if self.refuses else ""


Row = tuple[Any, ...]  # name, keys, label, help, then, where there are any: place in the footer, refusal, verb


def _rows(group: str, contexts: str, *rows: Row) -> list[Action]:
    places = frozenset(contexts.split())
    return [Action(row[0], row[1], row[2], row[3], group, places, *row[4:]) for row in rows]


# fmt: off
TABLE: tuple[Action, ...] = (
    *_rows("Sessions", "board",
        ("new", "n", "new", "Make a session: a form with defaults that train as they stand.", 1, None, "new NAME"),
        ("demo", "D", "demo", "Make and start a demo session: a pocket FLUX, two minutes on a CPU.", 2, why.demo, "demo"),
    ),
    *_rows("Sessions", "board session",
        ("start", "s", "start", "Start the selected session; it goes on when this window closes.", 3, why.start, "start NAME"),
        ("stop", "x", "stop", "Finish the step, write a checkpoint, stop.", 4, why.stop, "stop NAME"),
        ("stop-after-epoch", "X", "stop after epoch",
         "Finish the epoch, write a checkpoint, stop.", 0, why.stop, "stop NAME --after-epoch"),
        ("resume", "r", "resume", "Go on from the newest verified checkpoint, exactly.", 5, why.resume, "resume NAME"),
        ("kill", "K", "kill", "End it at once; what was trained since the last checkpoint is lost.", 6, why.kill, "kill NAME"),
        ("checkpoint", "c", "checkpoint", "Write a checkpoint after this step.", 13, why.while_training, "checkpoint NAME"),
        ("sample", "p", "sample", "Draw the sample pictures after this step.", 14, why.while_training, "sample NAME"),
        ("sooner", "<", "sooner", "Start it before all other waiting sessions.", 0, why.waits, "queue NAME --priority N"),
        ("later", ">", "later", "Start it after all other waiting sessions.", 0, why.waits, "queue NAME --priority N"),
        ("verify", "v", "verify",
         "Prove the finished file again: hashes, keys, numbers, and that diffusers loads it.", 15, why.verify, "verify NAME"),
        ("clone", "N", "clone",
         "Make a session with the settings of the selected one.", 0, why.needs_session, "new NAME --from OTHER"),
        ("edit", "e", "edit",
         "Edit its settings before it first trains, its captions afterwards.", 0, why.needs_session, "edit NAME"),
        ("delete", "d", "delete", "Delete the session's folder; asks first.", 0, why.delete, "rm NAME"),
    ),
    *_rows("Look", "board",
        ("open", "enter", "open", "Everything about the selected session.", 7, why.needs_session, "show NAME"),
    ),
    *_rows("Look", "board session",
        ("log", "l,L", "log", "The log, full screen.", 8, why.needs_session, "logs NAME -f"),
    ),
    *_rows("Look", "board",
        ("filter", "/", "filter", "Show only sessions whose name, state or reason contains this text.", 9),
        ("filter-state", "a", "filter by state",
         "All sessions, only active ones, only those that need attention, only finished ones."),
        ("sort", "o", "sort", "Sort by activity, name, state, progress or loss."),
        ("zoom-in", "+", "zoom", "Give the panel in focus more room.", 16),
        ("zoom-out", "_,-", "zoom out", "Give it less."),
    ),
    *_rows("Look", "board session log",
        ("copy", "y", "copy", "Copy the name, path or values shown; in a log, the visible lines or the marked ones."),
        ("dismiss", "space", "dismiss", "Dismiss the newest notice."),
    ),
    *_rows("Session", "session",
        ("tab-overview", "1", "overview", "Attempts, their reasons, times and files.", 0, None, "show NAME"),
        ("tab-metrics", "2", "metrics", "Loss, learning rate, gradient norm, seconds a step.", 0, None, "metrics NAME"),
        ("tab-samples", "3", "samples", "The sample pictures drawn during training."),
        ("tab-checkpoints", "4", "checkpoints", "Checkpoints: resume from one, delete one.", 0, None, "checkpoints NAME"),
        ("tab-spec", "5", "spec", "The settings, with what differs from the defaults."),
        ("tab-log", "6", "log", "The log of all attempts.", 0, None, "logs NAME"),
        ("tab-captions", "7", "captions", "Pictures and captions, edited in place."),
        ("next-tab", "tab,right_square_bracket", "next page", "The next page of the session.", 1),
        ("previous-tab", "shift+tab,left_square_bracket", "previous page", "The previous page of the session."),
    ),
    *_rows("Metrics", "metrics",
        ("metric-next", "m", "curve", "The next curve: loss, learning rate, gradient norm, seconds a step.", 2),
        ("metric-left", "h,left", "cursor left", "Move the cursor to earlier steps."),
        ("metric-right", "l,right", "cursor right", "Move the cursor to later steps."),
        ("metric-zoom-in", "+,=", "zoom", "Show fewer steps around the cursor.", 3),
        ("metric-zoom-out", "_,-", "zoom out", "Show more steps.", 4),
        ("metric-whole", "0", "whole run", "Show all steps."),
        ("metric-log", "g", "log scale", "Logarithmic axis, or linear again.", 5),
        ("metric-overlay", "O", "overlay", "Lay the curves of other sessions over this one, chosen from a list.", 6),
    ),
    *_rows("Samples", "samples",
        ("sample-left", "h,left", "earlier step", "The pictures of the previous step.", 2),
        ("sample-right", "l,right", "later step", "The pictures of the next step.", 3),
        ("sample-prompt", "j,down", "next prompt", "The next prompt.", 4),
        ("sample-prompt-back", "k,up", "previous prompt", "The previous prompt."),
        ("sample-layout", "m", "layout", "One step with all prompts, or one prompt over all steps.", 5),
    ),
    *_rows("Checkpoints", "checkpoints",
        ("checkpoint-resume", "enter", "resume from",
         "Resume from this checkpoint; newer ones are set aside.", 2, why.resume, "resume NAME --checkpoint C"),
        ("checkpoint-export", "E", "export",
         "Write this checkpoint as a LoRA file: for which program, as trained or averaged.", 3, None,
         "export NAME --checkpoint C -o FILE"),
        ("checkpoint-delete", "backspace,delete", "delete",
         "Delete this checkpoint; asks first.", 4, None, "checkpoints NAME --rm C"),
    ),
    *_rows("Spec", "spec",
        ("spec-changed", "m", "only changes", "All settings, or only those that differ.", 2),
        ("spec-editor", "E", "$EDITOR", "Open the settings in $EDITOR, before the first start.", 4, why.edit_spec, "edit NAME"),
        ("spec-other", "O", "compare", "Compare with another session; again for the next, and with the defaults.", 3),
    ),
    *_rows("Captions", "captions",
        ("caption-edit", "enter,i", "edit", "Edit the caption.", 2),
        ("caption-trigger", "t", "trigger", "Put the trigger word before the caption.", 3),
        ("caption-undo", "u", "undo", "Undo the last change.", 4),
        ("caption-editor", "E", "$EDITOR", "Open the caption in $EDITOR.", 5),
    ),
    *_rows("Form", "form",
        ("form-start", "ctrl+s", "create and start", "Make the session and start it.", 1, None, "new NAME, start NAME"),
        ("form-all", "f3", "every setting", "Show every setting, or only the most important ones.", 3),
        ("form-check", "f4", "examine pictures", "Look for damaged or missing pictures and captions before the start.", 4,
         None, "check DATASET"),
        ("form-report", "f5", "report", "Read the report beside the questions, and back.", 5),
        ("form-leave", "escape,ctrl+g", "leave", "Back to the dashboard; the answers are kept.", 2),
    ),
    *_rows("Log", "log reader",
        ("follow", "f,G,end", "follow", "Go to the end and follow the log.", 2),
    ),
    *_rows("Log", "log",
        ("log-search", "/", "search", "Search with a regular expression.", 3),
        ("log-filter", "&", "filter", "Show only lines that match a regular expression.", 4),
        ("log-next", "n", "next match", "The next match.", 5),
        ("log-previous", "N", "previous match", "The previous match."),
        ("log-marker", "m", "next marker", "The next marker: attempt, error, checkpoint.", 6),
        ("log-marker-back", "M", "previous marker", "The previous marker."),
        ("log-choose", "v", "mark lines", "Mark lines from here: j and k extend, y copies, v or q cancels.", 8),
        ("log-older", "o", "older part", "The older part of a rotated log, training.log.1; again: back."),
    ),
    *_rows("Log", "log reader",
        ("wrap", "w", "wrap", "Wrap long lines, or not.", 7),
    ),
    *_rows("Log", "log",
        ("log-left", "h,left", "left", "Scroll left."),
        ("log-right", "l,right", "right", "Scroll right."),
    ),
    *_rows("Move", "list reader",
        ("down", "j,down", "down", "One down."),
        ("up", "k,up", "up", "One up."),
        ("page-down", "ctrl+d,pagedown", "page down", "A page down."),
        ("page-up", "ctrl+u,pageup", "page up", "A page up."),
        ("top", "g,home", "top", "To the first."),
    ),
    *_rows("Move", "list",
        ("bottom", "G,end", "bottom", "To the last."),
    ),
    *_rows("Move", "board",
        ("focus-next", "tab", "panel", "The next panel.", 12),
        ("focus-previous", "shift+tab", "previous panel", "The previous panel."),
    ),
    *_rows("FluxTUI", "session log captions help",
        ("back", "q,escape,b", "back", "Back to where you came from.", 10),
    ),
    *_rows("FluxTUI", "board session log",
        ("palette", "ctrl+p,:", "commands", "Every action by name."),
        ("theme", "T", "theme", "The next theme, light and dark."),
    ),
    *_rows("FluxTUI", "anywhere",
        ("redraw", "ctrl+l", "redraw", "Draw the screen again."),
        ("put-away", "ctrl+x", "put away", "Dismiss the newest notice, also while typing."),
    ),
    *_rows("FluxTUI", "board session log captions",
        ("help", "?", "help", "What every key does.", 11),
    ),
    *_rows("FluxTUI", "board",
        ("quit", "q,ctrl+q,ctrl+c", "quit", "Leave; training continues.", 10),
    ),
    *_rows("FluxTUI", "anywhere",
        ("leave", "ctrl+q,ctrl+c", "quit", "Leave from anywhere; training continues."),
    ),
)
# fmt: on

BY_NAME: Mapping[str, Action] = {action.name: action for action in TABLE}


# What only moves something in the pane that has the focus: whatever is typed after it goes to the same place.
MOVES = {action.name for action in TABLE if action.contexts & {"list", "reader"} and action.name != "wrap"} | {
    "metric-left", "metric-right", "sample-left", "sample-right", "sample-prompt", "sample-prompt-back", "log-left", "log-right",
}  # fmt: skip


def of_contexts(contexts: Iterable[str]) -> Sequence[Action]:
    """The actions of these contexts, in the table's order."""
    return _of_contexts(frozenset(contexts))


@cache  # asked for each key of a footer, at each change of what the keys act on
def _of_contexts(wanted: frozenset[str]) -> Sequence[Action]:
    return tuple(action for action in TABLE if action.contexts & wanted)


Chain = tuple[str, ...]

# Contexts that are live together, the nearest first: a key goes to the first of them that has it.
CHAINS: tuple[Chain, ...] = (
    ("list", "board", "anywhere"),
    ("reader", "board", "anywhere"),
    ("reader", "session", "anywhere"),  # overview and log
    ("metrics", "session", "anywhere"),
    ("samples", "session", "anywhere"),
    ("checkpoints", "list", "session", "anywhere"),
    ("spec", "reader", "session", "anywhere"),
    ("captions", "list", "session", "anywhere"),
    ("reader", "log", "anywhere"),
    ("reader", "help", "anywhere"),
    ("form", "anywhere"),
)


def keys_of(action: Action, keys: Mapping[str, str]) -> list[str]:
    """The keys of an action, remapped where the user remapped it."""
    return [key.strip() for key in keys.get(action.name, action.keys).split(",")]


def live_keys(action: Action, chains: Iterable[Chain], keys: Mapping[str, str]) -> list[str]:
    """Those keys of an action that reach it in one of these chains: no nearer context has them."""
    reached: set[str] = set()
    for chain in chains:
        place = next((at for at, context in enumerate(chain) if context in action.contexts), None)
        if place is not None:
            nearer = {key for other in of_contexts(chain[:place]) if other is not action for key in keys_of(other, keys)}
            reached |= set(keys_of(action, keys)) - nearer
    return [key for key in keys_of(action, keys) if key in reached]


def _collisions(keys: Mapping[str, str]) -> dict[tuple[str, str, str], None]:
    """Key, the action that gets it and the one that does not, wherever two that are live together have it."""
    found: dict[tuple[str, str, str], None] = {}
    for chain in CHAINS:
        seen: dict[str, str] = {}
        for action in (action for context in chain for action in of_contexts([context])):
            for key in keys_of(action, keys):
                first = seen.setdefault(key, action.name)
                if first != action.name:
                    found[key, first, action.name] = None
    return found


def clashes(keys: Mapping[str, str]) -> list[str]:
    """One sentence for each unknown name, and for each key that a remapping gives to two actions that are live together.

    Where the table itself lets a nearer context take a key, as the cursor of the curves takes `l`, that is meant.
    """
    sentences = [f"config.toml remaps {name!r}, which is no action" for name in keys if name not in BY_NAME]
    meant = _collisions({})
    for key, first, second in _collisions(keys):
        if (key, first, second) not in meant:
            sentences.append(f"config.toml gives the key {key!r} to both {first!r} and {second!r}")
    return sentences


_SHOWN = {
    "enter": "⏎",
    "escape": "esc",
    "space": "space",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "shift+tab": "⇧tab",
    "backspace": "⌫",
}
_SHOWN_IN_ASCII = {
    "enter": "enter",
    "up": "up",
    "down": "down",
    "left": "left",
    "right": "right",
    "shift+tab": "S-tab",
    "backspace": "bksp",
}


def shown_key(key: str, is_ascii: bool = False) -> str:
    """A key as people read it: "⏎", "^p", "x"."""
    key = key.strip()
    if is_ascii and key in _SHOWN_IN_ASCII:
        return _SHOWN_IN_ASCII[key]
    if key.startswith("ctrl+"):
        return "^" + key.removeprefix("ctrl+")
    return _SHOWN.get(key, key)
