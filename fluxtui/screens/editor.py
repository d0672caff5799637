"""The user's own editor on a file, with the terminal to itself."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from textual.app import App


def problem_of_editing(app: App[int], path: Path) -> str:
    """Suspend the UI while $VISUAL or $EDITOR is at work on the file; what went wrong, or an empty text."""
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        with app.suspend():
            code = subprocess.call([*editor, str(path)])
    except OSError as error:
        return f"{editor[0]} cannot be started: {error.strerror}; set EDITOR"
    return f"{editor[0]} ended with code {code}; nothing is taken over" if code else ""
