"""The table of verbs: help, near misses and dispatch all come from it."""

from __future__ import annotations

import argparse
import difflib
import importlib
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from fluxtui.persist import output
from fluxtui.persist.errors import ExitCode, UsageError
from fluxtui.persist.files.text import clean

_WIDE = 127  # columns that the table of verbs takes with their arguments


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb. Its module has `NAME_arguments(parser)` and `NAME_verb(arguments) -> int`."""

    name: str
    module: str
    usage: str  # behind the name
    help: str  # one line

    def _of_module(self, suffix: str) -> object:
        module = importlib.import_module(f"fluxtui.cli.{self.module}")
        return getattr(module, self.name + suffix)

    def parser(self) -> _Parser:
        parser = _Parser(prog=f"fluxtui {self.name}", description=self.help, allow_abbrev=False)
        cast(Callable[[argparse.ArgumentParser], None], self._of_module("_arguments"))(parser)
        return parser

    def run(self, words: Sequence[str]) -> int:
        arguments = self.parser().parse_args(words)
        return cast(Callable[[argparse.Namespace], int], self._of_module("_verb"))(arguments)


_UNKNOWN = "unrecognized arguments: "  # as argparse begins it


class _Parser(argparse.ArgumentParser):
    """Errors in one sentence, by the way that all errors go."""

    def error(self, message: str) -> NoReturn:
        hint = self._near_options(message.removeprefix(_UNKNOWN)) if message.startswith(_UNKNOWN) else ""
        raise UsageError(f"{clean(message, 400)}; {hint}{self.prog} --help shows how.")

    def _near_options(self, words: str) -> str:
        """ "did you mean --json? ", for words that begin with an option that is near one of ours."""
        near = difflib.get_close_matches(words.split()[0].partition("=")[0], self._option_string_actions, n=1, cutoff=0.7)
        return f"did you mean {near[0]}? " if near else ""


GROUPS: tuple[tuple[str, tuple[Verb, ...]], ...] = (
    (
        "Make",
        (
            Verb("demo", "make", "[--headless]", "train the bundled pico FLUX on the bundled images, start to proof"),
            Verb("new", "make", "NAME --dataset DIR [--model M] [--set K=V …]", "make a session, ready to start"),
            Verb("import", "make", "NAME FILE", "make a session from a FluxGym, kohya or ai-toolkit configuration"),
            Verb("edit", "edit", "NAME [--set K=V …]", "change a session before its first start, in $EDITOR or by --set"),
            Verb("rm", "make", "NAME [--yes]", "remove a session"),
        ),
    ),
    (
        "Run",
        (
            Verb("start", "run", "NAME | SPEC.toml", "start a session; it keeps running when you leave"),
            Verb("submit", "run", "NAME [--slurm K=V …]", "start or resume it as a Slurm job (docs/scale.md)"),
            Verb("join", "run", "NAME --node K", "on another machine: train along as node K (docs/scale.md)"),
            Verb("stop", "run", "NAME [--after-epoch]", "write a checkpoint, then stop"),
            Verb("kill", "run", "NAME", "end it at once, without a checkpoint"),
            Verb("resume", "run", "NAME [--checkpoint C] | --lost", "continue exactly from a checkpoint, by default the newest"),
            Verb("wait", "run", "NAME [--timeout S]", "wait until it ends; exit code 0 only if completed"),
            Verb("checkpoint", "run", "NAME", "write a checkpoint now"),
            Verb("sample", "run", "NAME", "draw the sample pictures now"),
            Verb("queue", "run", "NAME --priority N", "change its place in the queue"),
        ),
    ),
    (
        "See",
        (
            Verb("ls", "show", "[--json]", "list the sessions"),
            Verb("show", "show", "NAME [--json]", "everything about one session"),
            Verb("logs", "logs", "NAME [-f] [-n N]", "print or follow its log"),
            Verb("metrics", "show", "NAME [--json]", "loss, learning rate and speed of each step"),
            Verb("checkpoints", "checkpoints", "NAME [--rm C]", "list its checkpoints, or remove one"),
        ),
    ),
    (
        "Prove and export",
        (
            Verb("verify", "product", "NAME", "prove the finished file again"),
            Verb("export", "product", "NAME --format F -o FILE", "write the LoRA for another program, or from a checkpoint"),
            Verb("publish", "product", "NAME --repo R", "upload it to the Hugging Face hub"),
        ),
    ),
    (
        "Look ahead",
        (
            Verb("check", "preview", "DATASET", "what is wrong with a data set, before any GPU time"),
            Verb("plan", "preview", "NAME | SPEC.toml | -", "memory, disk space and time that a session will need"),
            Verb("keys", "preview", "[WORD]", "what --set takes: every key, its range and meaning"),
            Verb("cache", "preview", "[--prune]", "size of the caches, and their limit"),
            Verb("doctor", "preview", "", "what works on this machine, what does not, and what to do"),
            Verb("completion", "completion", "[bash | zsh]", "tab completion: source <(fluxtui completion) in ~/.bashrc"),
        ),
    ),
)
_BY_NAME = {verb.name: verb for _, group in GROUPS for verb in group}

# What other programs call it, where no likeness of letters leads to ours.
_SAID_ELSEWHERE = {
    "ls": ("list", "ps", "sessions", "jobs"),
    "show": ("status", "info", "inspect", "describe", "progress"),
    "logs": ("tail", "follow", "watch", "monitor", "attach"),
    "start": ("run", "train", "launch", "begin"),
    "stop": ("cancel", "pause", "end", "halt", "interrupt"),
    "resume": ("continue", "restart", "retry"),
    "rm": ("delete", "del", "remove", "clean"),
    "new": ("create", "add", "init", "clone", "copy"),
    "edit": ("set", "config", "configure"),
    "check": ("validate", "dataset", "lint"),
    "export": ("convert", "save"),
    "publish": ("upload", "push"),
    "plan": ("estimate", "vram", "memory"),
    "keys": ("options", "settings", "params"),
    "--version": ("version",),
}
_OURS = {theirs: name for name, words in _SAID_ELSEWHERE.items() for theirs in words}


def find(name: str) -> Verb:
    """The verb; `UsageError` names the nearest."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = [_OURS[name]] if name in _OURS else difflib.get_close_matches(name, _BY_NAME, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "fluxtui help lists them."
    raise UsageError(f"There is no verb {clean(name, 40)}; {hint}")


def run(name: str, words: Sequence[str]) -> int:
    """Run a verb with its arguments; its exit code."""
    try:
        return find(name).run(words)
    except SystemExit as ended:  # argparse, after --help
        return int(ended.code or 0)


def help_of(words: Sequence[str]) -> int:
    """`fluxtui --help`, or `fluxtui help VERB`."""
    if words:
        find(words[0]).parser().print_help()
        return int(ExitCode.DONE)
    width = shutil.get_terminal_size((_WIDE, 24)).columns
    usage = 58 if width >= _WIDE else 11  # on a narrow terminal the verbs alone: each one's own help has its arguments
    lines = ["Train FLUX LoRAs from a terminal: detached, watched and proven.", "", f"  {'fluxtui':<{usage}} the terminal UI"]
    for title, group in GROUPS:
        lines += ["", f"{title}:"]
        for verb in group:
            shown = f"fluxtui {verb.name} {verb.usage}" if width >= _WIDE else verb.name
            lines.append(f"  {shown:<{usage}} {verb.help}")
    more = "fluxtui VERB --help says more. Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 timed out."
    lines += ["", *textwrap.wrap(more, width)]
    output.write("\n".join(lines) + "\n")
    return int(ExitCode.DONE)
