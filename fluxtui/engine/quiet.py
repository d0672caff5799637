"""The libraries' own chatter, switched off before they are imported: the log is for what a user can act on."""

from __future__ import annotations

import os
import sys

SAID_BY = "FLUXTUI_SAID_BY"  # what errors begin with where a command line became this process
_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",  # its threads would warn at every fork of a data worker
}
_HEAVY = ("bitsandbytes",)  # loads torch's compiler, 1.3 s: diffusers and peft would do so in every process where it is installed


def refuse(sentence: str) -> None:
    """An error of a verb on standard error: to a user's terminal as every verb says it, to a front that waits as it is."""
    print(f"{os.environ.get(SAID_BY, '')}{sentence}", file=sys.stderr)


def hush() -> None:
    """Sets what is not already set, so that a user's own wish for words is kept."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in _HEAVY:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # find_spec then says None, import ModuleNotFoundError



def let(name: str) -> None:
    """Makes a library that `hush` keeps out importable, for who really uses it."""
    if name in _HEAVY and name in sys.modules and sys.modules[name] is None:
        del sys.modules[name]
