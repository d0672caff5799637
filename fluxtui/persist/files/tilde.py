"""Paths as people type them: "~" and "~name" stand for a user's home."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with the home in the place of "~"; as it is where no such user, or no home of ours, is known.

    `Path.expanduser` raises RuntimeError there. So a name that is nobody's is a folder that is not there, and said as one.
    """
    return Path(os.path.expanduser(path))
