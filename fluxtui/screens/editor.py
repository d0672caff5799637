"""The user's own editor on a file, with the terminal to itself."""

from __future__ import annotations

from pathlib import Path

from textual.app import App

from fluxtui.control.editor import command, edit_file
from fluxtui.persist.errors import FluxTUIError


def problem_of_editing(app: App[int], path: Path) -> str:
    """Suspend the UI while $VISUAL or $EDITOR is at work on the file; what went wrong, or an empty text."""
    try:
        words = command()
        with app.suspend():
            edit_file(words, path)
    except FluxTUIError as error:
        return str(error).rstrip(".")
    return ""
