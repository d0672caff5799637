"""What the fault tests share: a folder in memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: a sweep syncs some thousand times, and what is swept is calls, not disks."""
    memory = Path("/dev/shm")
    found = Path(tempfile.mkdtemp(prefix="fluxtui-sweep-", dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield found
    shutil.rmtree(found)
