"""Caption files as the keys left them, whatever the disk has so far: written in the order of the keys, undone one by one."""

from __future__ import annotations

import stat
from collections import deque
from pathlib import Path
from threading import Lock

from fluxtui.persist.errors import UsageError
from fluxtui.persist.files.text import clean

MOST = 64 << 10  # bytes of a caption that is edited here

Content = bytes | None  # None: there is no such file


class CaptionFiles:
    """The screen changes them and goes on; a thread of its own writes each change: it calls `write_next`."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Path, Content]] = deque()  # until they are written, the oldest first
        self._writing = Lock()
        self._changed: list[tuple[Path, Content]] = []  # what each file held before, the newest change last

    def text(self, path: Path) -> str:
        """The caption; "" where there is none. Raises `UsageError` where it is not to be edited here."""
        content = self._content(path) or b""
        try:
            if len(content) > MOST:
                raise UsageError(f"{clean(path.name, 100)} is too long to be edited here; E opens it in your editor.")
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"{clean(path.name, 100)} is not UTF-8; E opens it in your editor.") from None

    def change(self, path: Path, text: str) -> None:
        self._changed.append((path, self._content(path)))
        self._waiting.append((path, text.encode()))

    def undo(self) -> Path | None:
        """Take the newest change back; the file that it was made to, None where there is none."""
        if not self._changed:
            return None
        path, before = self._changed.pop()
        self._waiting.append((path, before))
        return path

    def write_next(self) -> None:
        """Runs in a thread: the oldest change, whole, with the mode that the file had."""
        from fluxtui.persist.files.durable import write_file

        with self._writing:
            path, content = self._waiting[0]
            try:
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    write_file(path, content, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)
            finally:
                self._waiting.popleft()  # only now: until then the disk has an older one

    def _content(self, path: Path) -> Content:
        for waiting, content in reversed(tuple(self._waiting)):
            if waiting == path:
                return content
        try:
            with path.open("rb") as file:
                return file.read(MOST + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{clean(path.name, 100)} cannot be read: {error.strerror}.") from error
