"""The user's own editor on a file."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from fluxtui.persist.errors import FluxTUIError, NotFoundError, UsageError
from fluxtui.persist.files.text import clean

USUAL = ("vi", "nano", "vim", "micro", "emacs")  # where none is named, the first that is here


def command() -> list[str]:
    """$VISUAL, $EDITOR, or a usual one, in words. Raises `UsageError` or `NotFoundError` where that is none that is here."""
    named = (os.environ.get("VISUAL") or "").strip() or (os.environ.get("EDITOR") or "").strip()
    here = [name for name in USUAL if shutil.which(name)]
    example = f"such as {here[0]}" if here else "(apt-get install nano)"
    if not named and not here:
        raise NotFoundError("There is no editor here; install one (apt-get install nano), or name yours in EDITOR.")
    try:
        words = shlex.split(named) or here[:1]
    except ValueError:
        raise UsageError(f"The quotes in EDITOR, {clean(named, 100)}, do not match; set it to an editor {example}.") from None
    if shutil.which(words[0]) is None:
        wrong = f"{clean(words[0], 100)} cannot be started, it is not here"
        raise NotFoundError(f"{wrong}; set EDITOR to an editor that is, {example}.")
    return words


def edit_file(words: list[str], path: Path) -> None:
    """Until it ends. Raises `FluxTUIError` where it cannot be started, or ends with an error."""
    try:
        code = subprocess.call([*words, str(path)])
    except OSError as error:
        raise FluxTUIError(f"{words[0]} cannot be started: {error.strerror}; set EDITOR to another.") from None
    if code:
        raise FluxTUIError(f"{words[0]} ended with code {code}; nothing was changed.")
