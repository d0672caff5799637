"""Whether the data set is still the one that a session began with, before a resume: sooner than its trainer would say it.

The trainer is the judge. What is found here it would refuse too; what takes much reading is left to it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from fluxtui.persist.datasets import facts as dataset_facts
from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets import parts as dataset_parts
from fluxtui.persist.errors import FluxTUIError, RefusedError
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.settings.spec import DatasetSpec

MOST_FACTS = 8 << 20  # bytes of dataset.toml, about 40,000 files; looking at more takes long on a network disk
MOST_READ = 64 << 20  # bytes of files that were touched and may yet hold what they held


def refuse_changed(folder: SessionFolder, data: DatasetSpec) -> None:
    """Raises `RefusedError`, naming files, where the data set is seen to be another one."""
    found = changed(folder, data)
    if found:
        said = dataset_facts.said_of(found)
        raise RefusedError(
            f"{said[:1].upper()}{said[1:]}. Put the files back, or go on with them as they are: "
            f"fluxtui resume {folder.name} --accept-changes."
        )


def changed(folder: SessionFolder, data: DatasetSpec) -> Sequence[str]:
    """A clause for each file that is not as the first attempt read it, sorted by path; empty where nothing is known."""
    try:
        if folder.dataset_file.stat().st_size > MOST_FACTS:
            return ()
        before = dataset_facts.load(folder.dataset_file)
        held = dataset_parts.check_cheaply(data)
    except (OSError, FluxTUIError):
        return ()  # a session without one has nothing to be held against; a damaged one the trainer explains
    if before is None:
        return ()
    root = dataset_folder.resolve(data.path)
    files = [file for pairs in held for pair in pairs.items for file in (pair.image, pair.caption) if file is not None]
    now = {dataset_facts.relative_name(root, file): file for file in files}
    then = {fact.path: fact for fact in before.files}
    found, left = [], MOST_READ
    for name in sorted(then.keys() | now.keys()):
        fact, file = then.get(name), now.get(name, root / name)  # a mask is in no pair, and lies where it lay
        if fact is None:
            found.append(dataset_facts.clause(name, False, True))
        elif not os.path.lexists(file):
            found += [] if "\\" in name else [dataset_facts.clause(name, True, False)]  # such a name may be bytes of another
        else:
            differs, read = _differs(file, fact, left)
            left -= read
            found += [dataset_facts.clause(name, True, True)] if differs else []
    return found


def _differs(file: Path, fact: dataset_facts.FileFact, most: int) -> tuple[bool, int]:
    """Whether the file holds something else than it did, and how many bytes were read for that."""
    try:
        status = file.stat()
        is_as_it_was = (status.st_size, status.st_mtime_ns) == (fact.size, fact.mtime_ns)
        if is_as_it_was or status.st_size > most or not file.is_file():
            return False, 0
        data = file.read_bytes()
    except OSError:
        return False, 0  # the trainer meets it too, and says what to do
    return sha256(data).hexdigest() != fact.sha256, len(data)
