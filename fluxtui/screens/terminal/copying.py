"""Copying to the user's clipboard: through tmux where the UI runs in one, else by the terminal's own sequence."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from typing import Any

from textual.app import App

from fluxtui.screens.keys.dispatch import front_of

MOST = 100_000  # bytes: terminals drop what is longer
SECONDS = 3.0


def copy(app: App[Any], text: str, what: str) -> None:
    """Copy and say which way it went. A default tmux drops OSC 52 in silence, so there it goes through tmux itself."""
    if not text:
        front_of(app).say("there is nothing to copy here", "warn")
        return
    data = text.encode()
    if len(data) > MOST:
        data, what = data[:MOST].decode(errors="ignore").encode(), f"the first {MOST // 1000} kB of {what}"
    if os.environ.get("TMUX"):
        threading.Thread(target=_through_tmux, args=(app, data, what), daemon=True, name="copy").start()
    elif app._driver is not None and not app.is_headless:
        app._driver.write(f"\x1b]52;c;{base64.b64encode(data).decode()}\x07")
        front_of(app).say(f"copied {what} by the terminal (OSC 52)", "info")
    else:
        front_of(app).say("no clipboard can be reached here", "warn")


def _through_tmux(app: App[Any], data: bytes, what: str) -> None:
    try:
        done = subprocess.run(["tmux", "load-buffer", "-w", "-"], input=data, capture_output=True, timeout=SECONDS)
        said = done.stderr.decode("utf-8", "replace").strip()[:200]
        text, kind = (f"copied {what} by tmux", "info") if done.returncode == 0 else (f"tmux did not copy: {said}", "warn")
    except (OSError, subprocess.TimeoutExpired) as error:
        text, kind = f"tmux did not copy: {error}", "warn"
    app.call_from_thread(front_of(app).say, text, kind)
