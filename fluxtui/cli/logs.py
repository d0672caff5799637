"""logs: the tail of a log, and following it through growth, truncation and rotation."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from fluxtui.cli import out
from fluxtui.persist import logfile
from fluxtui.persist.errors import ExitCode, NotFoundError
from fluxtui.persist.home import Home
from fluxtui.persist.logfile import LogIndex
from fluxtui.persist.sessions import overview

_POLL = 0.2  # seconds


def logs_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing as the log grows")
    parser.add_argument("-n", type=how_many, default=50, dest="count", metavar="N", help="number of lines to start with (50)")


def how_many(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text} is not how many there may be: give 0 or more")
    return int(text)


def logs_verb(arguments: Namespace) -> int:
    home = Home.open()
    overview.look(home, arguments.name)
    path = home.session(arguments.name).log_file
    if arguments.follow:
        return _follow(path_index=LogIndex(path), count=arguments.count)
    limit = max(logfile.TAIL_LIMIT, min(64 * 2**20, arguments.count * 400))
    try:
        lines = logfile.tail(path, arguments.count, limit)
    except NotFoundError:
        out.say(f"{arguments.name} has written no log yet.")
        return int(ExitCode.DONE)
    for line in lines:
        out.data(line)
    return int(ExitCode.DONE)


def _follow(path_index: LogIndex, count: int) -> int:
    """Print the last lines, then each new one once it is whole, until interrupted."""
    while path_index.update():
        pass
    whole = path_index.count - path_index.has_partial
    shown = max(0, whole - count)
    generation, is_behind = path_index.generation, False
    while True:
        if path_index.generation != generation:
            generation, shown = path_index.generation, 0
        whole = path_index.count - path_index.has_partial
        while shown < whole and (lines := path_index.read(shown, min(500, whole - shown))):  # none: it was cut meanwhile
            for line in lines:
                out.data(line)
            shown += len(lines)
            sys.stdout.flush()
        if not is_behind:
            time.sleep(_POLL)
        is_behind = path_index.update()
