"""Verbs that the engine does itself: this process becomes the engine's, with its output and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def become_engine(verb: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `python -m fluxtui.engine VERB …`: Ctrl-C, pipes and exit code are the engine's own.

    `-P`: the folder somebody stands in, a downloaded data set perhaps, is not a place that modules are imported from.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ["FLUXTUI_SAID_BY"] = "fluxtui: "
    os.execv(sys.executable, [sys.executable, "-P", "-m", "fluxtui.engine", verb, *arguments])
