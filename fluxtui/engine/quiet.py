"""The libraries' own chatter, switched off before they are imported: the log is for what a user can act on."""

from __future__ import annotations

import os
import sys

_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",  # its threads would warn at every fork of a data worker
}
_HEAVY = ("bitsandbytes",)  # loads torch's compiler, 1.3 s: diffusers and peft would do so in every process where it is installed


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
