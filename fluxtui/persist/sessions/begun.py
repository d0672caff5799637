"""Whether anything of a session was ever trained: until then its settings bind nothing, and may be changed."""

from __future__ import annotations

import os

from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import toml
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import TERMINAL, Record


def has_begun(folder: SessionFolder, newest: Record | None = None) -> bool:
    """Whether a trainer may ever have been started for it. In doubt (a record that cannot be read, a disk that does not answer)
    it has; so it has where there is anything that only a trainer writes, or where other machines train along. The record of the
    newest attempt, where it is at hand, spares the look at the disk in most cases.
    """
    if newest is not None and newest.started_at is not None:
        return True
    try:
        if commit.committed(folder.checkpoints):
            return True
        if any(os.path.lexists(path) for path in (folder.dataset_file, folder.metrics_file, folder.result_file, folder.product)):
            return True
        return any(_may_have(folder, number) for number in folder.attempt_numbers())
    except (FluxTUIError, OSError):
        return True


def _may_have(folder: SessionFolder, number: int) -> bool:
    record = toml.read(folder.attempt_file(number), Record)
    return record.started_at is not None or record.status not in TERMINAL or bool(record.nodes or record.resumed_from)
