"""Opening what somebody may have swapped: never blocking, never through a link."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from fluxtui.persist import metrics
from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files.regular import open_for_writing, read_regular


def irregular(path: Path, what: str) -> None:
    match what:
        case "a FIFO":
            os.mkfifo(path)
        case "a FIFO that is read":
            os.mkfifo(path)
            os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        case "a link out of the home":
            (path.parent / "stranger").write_bytes(b"theirs")
            path.symlink_to(path.parent / "stranger")
        case "a link to nothing":
            path.symlink_to(path.parent / "nothing")
        case "a folder":
            path.mkdir()


@pytest.mark.parametrize("what", ["a FIFO", "a FIFO that is read", "a link out of the home", "a link to nothing", "a folder"])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR | os.O_APPEND])
def test_what_is_no_file_is_refused_in_a_sentence_and_nothing_waits_for_it(tmp_path: Path, what: str, flags: int) -> None:
    path = tmp_path / "file"
    irregular(path, what)
    listed = sorted(tmp_path.iterdir())
    for attempt in (lambda: open_for_writing(path, flags), lambda: metrics.open_append(path)):
        with pytest.raises(DamagedError, match="is not a regular file; move it away"):
            attempt()
    assert sorted(tmp_path.iterdir()) == listed
    assert all(entry.read_bytes() == b"theirs" for entry in listed if entry.name == "stranger")


def test_a_file_is_made_private_kept_and_written_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"two"):
        descriptor = open_for_writing(path, os.O_WRONLY | os.O_APPEND)
        assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK
        os.write(descriptor, data)
        os.close(descriptor)
    assert path.read_bytes() == b"onetwo"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_a_user_named_and_is_no_file_is_not_told_to_be_removed(path: str) -> None:
    with pytest.raises(DamagedError, match="is not a regular file; name one that is"):
        read_regular(Path(path), 10, follow_links=True)
