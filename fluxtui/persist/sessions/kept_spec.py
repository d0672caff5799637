"""The copy of its settings that a session's keeper keeps, so that a session is not lost with its `session.toml`.

Written when an attempt begins, and taken where `session.toml` is gone, is no file, or no longer says whose settings it holds:
empty after a power cut, another file. One in which somebody mistyped a line is not of those: there the user's word counts.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import DamagedError, FluxTUIError, NotFoundError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record_cache import read_head
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec


def load(folder: SessionFolder) -> Spec:
    """The session's spec, by its file or, where that one is lost, by the copy. Raises as `recipe.load_spec` of the file."""
    return recipe.load_spec(folder.kept_spec_file if is_lost(folder) and is_there(folder) else folder.spec_file)


def is_lost(folder: SessionFolder) -> bool:
    """Whether `session.toml` no longer says whose settings it holds. Raises StorageError where the disk does not say."""
    try:
        read_head(folder.spec_file)
    except (NotFoundError, DamagedError):
        return True
    return False


def is_there(folder: SessionFolder) -> bool:
    """Whether there is a copy that could be taken."""
    with contextlib.suppress(FluxTUIError):
        return bool(read_head(folder.kept_spec_file).id)
    return False


def keep(folder: SessionFolder) -> None:
    """Copy the settings, where the copy is not like them already. Raises `FluxTUIError` where that cannot be."""
    now = toml.read_bytes(folder.spec_file)
    with contextlib.suppress(FluxTUIError):
        if toml.read_bytes(folder.kept_spec_file) == now:
            return
    write_file(folder.kept_spec_file, now)


def put_back(folder: SessionFolder) -> Path | None:
    """Make a lost `session.toml` again from the copy; what lay in its place is set aside, and its new path returned.

    Only under the session's lock, and once `load` has answered. Raises StorageError.
    """
    aside = None
    if os.path.lexists(folder.spec_file):
        aside = commit.set_aside(folder.path, folder.spec_file.name)
    write_file(folder.spec_file, toml.read_bytes(folder.kept_spec_file))
    return aside
