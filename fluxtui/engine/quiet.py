"""The libraries' own chatter, switched off before they are imported: the log is for what a user can act on."""

from __future__ import annotations

import os

_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",  # its threads would warn at every fork of a data worker
}


def hush() -> None:
    """Sets what is not already set, so that a user's own wish for words is kept."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
