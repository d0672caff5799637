"""Names, paths and permissions: nothing a user types leads out of the home, nobody else reads it."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxtui.persist.errors import RefusedError, StorageError, UsageError
from fluxtui.persist.home import LAST_ATTEMPT, Home, SessionFolder, next_name, runtime_folder, safe_name
from fluxtui.persist.sessions import overview

HOSTILE = [
    "", ".", "..", "../x", "a/../b", "/etc/passwd", "a/b", "a\\b", "a..b", "-rf", ".hidden", "_x", "A", "Ä", "a b",
    "a\n", "a\0b", "\n", "a" * 65, "a" * 255,
    "😀", "x\u202etxt.exe", "a\x1b]52;c;aGk=\x07", "[@click=app.quit]x", "٣", "ⅷ", "ſ", "con\t",
]  # fmt: skip


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_with_a_name_that_would_do(name: str) -> None:
    with pytest.raises(UsageError) as refusal:
        safe_name(name)
    sentence = str(refusal.value)
    assert safe_name(sentence.rpartition("for example ")[2])
    assert sentence.isascii()
    assert sentence.isprintable()


@pytest.mark.parametrize("name", ["a", "0", "my-lora", "flux.1_dev-2", "a" * 64, "a.b"])
def test_a_slug_is_a_name(name: str) -> None:
    assert safe_name(name) == name


@given(st.text())
def test_every_text_is_either_refused_or_one_plain_component_below_the_sessions(name: str) -> None:
    home = Home(Path("/nowhere"))
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name) or ".." in name:
        with pytest.raises(UsageError) as refusal:
            home.session(name)
        assert safe_name(str(refusal.value).rpartition("for example ")[2])
        return
    folder = home.session(name)
    assert folder.path.parent == home.sessions
    assert os.path.normpath(folder.path) == str(folder.path)
    assert folder.name == name


def test_case_twins_cannot_be_two_sessions() -> None:
    with pytest.raises(UsageError, match="for example dog"):
        safe_name("Dog")


def test_the_home_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        os.umask(0)
        home = Home.open(tmp_path / "deep" / "home")
        os.umask(0o277)
        session = home.session("a")
        session.create()
    finally:
        os.umask(before)
    made = [home.root, home.sessions, home.cache, home.models]
    made += [session.path, session.attempts, session.control, session.checkpoints, session.samples]
    assert {mode(path) for path in made} == {0o700}


def test_a_home_whose_path_is_no_text_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A session there was made and started, and then its keeper failed: UnicodeEncodeError."""
    with pytest.raises(UsageError, match="not UTF-8"):
        Home.open(tmp_path / os.fsdecode(b"h\xff"))
    assert not list(tmp_path.iterdir())


def test_where_no_home_of_the_user_is_known_a_folder_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user without a name, HOME unset: "a fault of FluxTUI, please report it"."""
    monkeypatch.chdir(tmp_path)
    for name in ("FLUXTUI_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", os.fspath)
    with pytest.raises(UsageError, match="point FLUXTUI_HOME at a folder"):
        Home.open()
    with pytest.raises(UsageError, match="no home folder is known for ~nobody-here"):
        Home.open(Path("~nobody-here/fluxtui"))
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_with_the_runtime_folder_names_the_variable_of_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "run"))
    monkeypatch.setattr(os, "chmod", read_only)
    with pytest.raises(StorageError, match="point FLUXTUI_RUNTIME at another disk"):
        runtime_folder()


def test_the_home_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXTUI_HOME", str(tmp_path / "chosen"))
    assert Home.open().root == tmp_path / "chosen"
    monkeypatch.delenv("FLUXTUI_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert Home.open().root == tmp_path / "data" / "fluxtui"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert Home.open().root == tmp_path / "me" / ".local" / "share" / "fluxtui"


def test_a_file_in_the_way_of_the_home_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("mine")
    with pytest.raises(StorageError, match="in the way"):
        Home.open(tmp_path / "home")
    with pytest.raises(StorageError, match="in the way"):
        Home.open(tmp_path / "home" / "below")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_a_foreign_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", 12345, 12345)
    with pytest.raises(StorageError, match="belongs to user 12345"):
        Home.open(tmp_path / "home")
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "home"))
    with pytest.raises(StorageError, match="belongs to user 12345"):
        runtime_folder()


def test_the_runtime_folder_is_ours_and_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "run"))
    assert mode(runtime_folder()) == 0o700
    (tmp_path / "run").chmod(0o777)
    assert mode(runtime_folder()) == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "link"))
    with pytest.raises(StorageError, match="link"):
        runtime_folder()


def test_the_runtime_folder_does_not_follow_the_login_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLUXTUI_RUNTIME", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_folder() == Path(f"/tmp/fluxtui-{os.geteuid()}")


def test_a_name_is_given_once(tmp_path: Path) -> None:
    session = Home.open(tmp_path / "home").session("dog")
    assert not session.exists()
    session.create()
    assert session.exists()
    with pytest.raises(RefusedError, match="exists already"):
        session.create()


def test_a_session_is_seen_whole_or_not_at_all_and_of_two_makers_one_wins(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    seen: list[list[str]] = []

    def first(making: SessionFolder) -> None:
        home.session("dog").create(second)
        making.spec_file.write_text("the first's")

    def second(making: SessionFolder) -> None:
        seen.append(home.session_names())
        making.spec_file.write_text("the second's")

    with pytest.raises(RefusedError, match="exists already"):
        home.session("dog").create(first)
    assert seen == [[]]
    assert home.session("dog").spec_file.read_text() == "the second's"
    assert os.listdir(home.sessions) == ["dog"]


def test_what_fails_while_a_session_is_filled_leaves_nothing(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")

    def fill(making: SessionFolder) -> None:
        making.spec_file.write_text("half")
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="full"):
        home.session("dog").create(fill)
    assert os.listdir(home.sessions) == []


def test_a_session_that_is_a_link_is_refused_and_not_listed(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    (home.sessions / "out").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is a link"):
        home.session("out")
    assert home.session_names() == []


def test_every_folder_is_listed_broken_ones_too(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    for name in ("b", "a", "empty-one"):
        home.session(name).create()
    (home.sessions / "empty-one" / "attempts").rmdir()
    (home.sessions / "a-file").write_text("no session")
    (home.sessions / ".removed-x").mkdir()
    assert home.session_names() == ["a", "b", "empty-one"]


def test_attempts_are_counted_by_their_names_alone(tmp_path: Path) -> None:
    session = SessionFolder(tmp_path / "s")
    assert session.attempt_numbers() == []
    session.create()
    for name in ("0002.toml", "0001.toml", "0010.toml", ".tmp-1-x", "0003.toml.bak", "x.toml", "12.toml"):
        (session.attempts / name).write_bytes(b"\0garbage")
    assert session.attempt_numbers() == [1, 2, 10]
    assert session.attempt_file(3).name == "0003.toml"
    assert session.product.name == "s.safetensors"


@pytest.mark.parametrize("which", ["attempts", "control", "checkpoints", "samples"])
def test_a_folder_of_a_session_that_is_a_link_is_refused(tmp_path: Path, which: str) -> None:
    session = SessionFolder(tmp_path / "s")
    session.create()
    (tmp_path / "stranger").mkdir()
    (session.path / which).rmdir()
    (session.path / which).symlink_to(tmp_path / "stranger")
    with pytest.raises(StorageError, match=f"{which} is a link"):
        session.complete()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
@pytest.mark.parametrize("which", ["", "attempts", "control", "checkpoints", "samples"])
def test_a_session_of_another_user_is_refused(tmp_path: Path, which: str) -> None:
    session = SessionFolder(tmp_path / "s")
    session.create()
    os.chown(session.path / which, 12345, 12345)
    with pytest.raises(StorageError, match="belongs to user 12345"):
        session.complete()


def test_a_number_that_no_attempt_has_is_passed_over_and_hides_no_record(tmp_path: Path) -> None:
    session = SessionFolder(tmp_path / "s")
    session.create()
    for name in ("0001.toml", "0000.toml", "000002.toml", "10000.toml", "1000000.toml", "999999999.toml"):
        (session.attempts / name).write_bytes(b"")
    assert session.attempt_numbers() == [1, 10000]
    assert session.attempt_file(LAST_ATTEMPT).name == "999999.toml"
    with pytest.raises(StorageError, match="no attempt can follow"):
        session.attempt_file(LAST_ATTEMPT + 1)


def test_a_session_that_the_disk_cannot_look_at_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.open(tmp_path / "home")
    for name in ("a", "b", "c"):
        home.session(name).create()
    broken, real = home.sessions / "b", os.lstat

    def fails(path: str | Path, **more: Any) -> os.stat_result:
        if str(path).startswith(str(broken)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, **more)

    monkeypatch.setattr(os, "lstat", fails)
    assert home.session_names() == ["a", "b", "c"]
    monkeypatch.setattr(os, "open", lambda path, *more, real=os.open, **named: fails(path) and real(path, *more, **named))
    assert ["the disk failed" in seen.reason for seen in overview.look_all(home)] == [False, True, False]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_session_that_the_full_disk_cannot_take_leaves_no_half_of_it(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=4", "tmpfs", mount], check=True)
    try:
        with pytest.raises(StorageError, match="the disk can hold no more files"):
            SessionFolder(mount / "s").create()
        assert os.listdir(mount) == []
    finally:
        subprocess.run(["umount", mount], check=True)


def test_the_next_name_is_free_and_a_name_however_long_the_first_one_is() -> None:
    assert next_name("a", []) == "a"
    assert next_name("a", ["a", "a-3"]) == "a-2"
    taken: list[str] = []
    for _ in range(12):
        name = safe_name(next_name("a" * 63 + "b", taken))
        assert name not in taken
        taken.append(name)
