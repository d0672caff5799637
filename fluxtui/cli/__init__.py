"""The command line: everything the UI can do. Data on stdout, the rest on stderr; exit codes of `persist.errors.ExitCode`.

Each verb's module is imported when it is called, so that `fluxtui ls` stays a blink.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from fluxtui.persist import inherited, output
from fluxtui.persist.errors import ExitCode, FluxTUIError

INTERRUPTED = 130  # of a shell: ended by Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code. An error is one sentence on stderr, never a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    inherited.put_right()
    output.ready()
    gc.disable()  # a verb lives for a moment; those that live long switch it on again
    try:
        code = _dispatch(words)
        output.finish()
        return code
    except FluxTUIError as error:
        print(f"fluxtui: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        output.drop()
        return output.PIPE_CLOSED
    except Exception as error:  # noqa: BLE001  (the outer edge of this process: recorded)
        print(f"fluxtui: {_said_of(words, error)}", file=sys.stderr)
        return int(ExitCode.FAILED)


def _said_of(words: list[str], error: Exception) -> str:
    """The sentence for what nobody foresaw."""
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        return "the folder that this shell is in was removed; cd into one that exists, and say it again"
    try:
        from fluxtui.persist.fault import record_fault
    except (ImportError, OSError):  # the disk or the limit that brought us here holds against this import too
        return f"{type(error).__name__}: {error}"
    return record_fault(words, error)


def _is_nowhere() -> bool:
    """Whether the working folder of this process was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _dispatch(words: list[str]) -> int:
    from fluxtui.cli import verbs

    if not words:
        return _open_ui()
    if words[0] in ("-h", "--help", "help"):
        return verbs.help_of(words[1:])
    if words[0] in ("-V", "--version"):
        from fluxtui import __version__

        print(f"fluxtui {__version__}")
        return int(ExitCode.DONE)
    return verbs.run(words[0], words[1:])


def _open_ui(focus: str | None = None) -> int:
    """The terminal UI, with a session selected where one is named."""
    from fluxtui.persist.home import Home
    from fluxtui.screens.watching.sessions_watch import FirstLook

    home = Home.open()
    first = FirstLook.begin(home) if sys.__stdin__ is not None and sys.__stdin__.isatty() else None
    from fluxtui.app import run  # half a second of imports, beside which the sessions are read

    return run(home, focus, first)
