"""FLUXTUI_HOME and the session folders: every path, every permission, safe names."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

from fluxtui.persist.errors import RefusedError, StorageError, UsageError
from fluxtui.persist.files.durable import fsync_folder, make_folder, make_own_folder, must_be_own_folder, remove_tree
from fluxtui.persist.files.tilde import expanded

LONGEST = 64  # characters of a name
_SLUG = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{LONGEST - 1}}}")
_ATTEMPT = re.compile(r"([0-9]{4}|[1-9][0-9]{4,5})\.toml")
MAKING = ".new-"  # what a session is called while it is made
LAST_ATTEMPT = 999_999  # a file with a larger number is none of ours, or the next one would have a name that no listing knows


def safe_name(name: str) -> str:
    """`name`, where it is a safe slug; else UsageError with a name that would do.

    A safe slug is 1 to 64 of a-z, 0-9, dot, underscore and minus; it begins with a letter or a digit and holds no "..".
    """
    if _is_slug(name):
        return name
    rule = "use up to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first"
    raise UsageError(f"{name[:80]!a} cannot be a name: {rule}; for example {name_like(name)}")


def _is_slug(name: str) -> bool:
    return _SLUG.fullmatch(name) is not None and ".." not in name


def name_like(name: str) -> str:
    """A safe slug that reads as `name` does."""
    return re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9._-]+", "-", name[:200].lower())).strip(".-_")[:LONGEST] or "my-lora"


def next_name(stem: str, taken: Container[str]) -> str:
    """The first of `stem`, `stem-2`, `stem-3` … that is not taken; as long as a name may be."""
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem[: LONGEST - len(str(number)) - 1].rstrip('.-_')}-{number}"
    return name


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """The paths of one session. Nothing need exist. Who writes which file: docs/architecture.md."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def spec_file(self) -> Path:
        return self.path / "session.toml"

    @property
    def kept_spec_file(self) -> Path:
        """The keeper's copy of the spec; not named as the records beside it are, for whoever reads `attempts/*.toml`."""
        return self.attempts / "session.toml.copy"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def log_file(self) -> Path:
        return self.path / "training.log"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def result_file(self) -> Path:
        return self.path / "result.toml"

    @property
    def dataset_file(self) -> Path:
        return self.path / "dataset.toml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def checkpoints_lock(self) -> Path:
        """The trainer's own lock: whoever holds it may commit, sweep and retain."""
        return self.checkpoints / ".lock"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def product(self) -> Path:
        return self.path / f"{self.name}.safetensors"

    @property
    def card_file(self) -> Path:
        return self.path / "README.md"

    @property
    def reserve_file(self) -> Path:
        return self.path / ".reserve"

    def attempt_file(self, attempt: int) -> Path:
        """Raises StorageError past the last number that there is."""
        if attempt > LAST_ATTEMPT:
            names = f"{self.attempts / str(LAST_ATTEMPT)}.toml"
            raise StorageError(f"no attempt can follow {names}; move that file away if no attempt of yours made it")
        return self.attempts / f"{attempt:04d}.toml"

    def attempt_numbers(self) -> list[int]:
        """Numbers of the attempts that have a record, readable or not, ascending, 1 to 999,999. Raises StorageError."""
        matches = (_ATTEMPT.fullmatch(name) for name in _names(self.attempts))
        return sorted(number for match in matches if match and (number := int(match[1])))

    def exists(self) -> bool:
        """Whether the folder is there. Raises StorageError."""
        return stat.S_ISDIR(_mode(self.path))

    def create(self, fill: Callable[[SessionFolder], None] | None = None) -> None:
        """Make the session, durably, or nothing at all: `fill` puts in what it needs before anybody sees it.

        It is made under a name that no listing shows, and gets its own in one step. Raises RefusedError where that is taken,
        StorageError, or what `fill` raises.
        """
        if _mode(self.path):
            raise self._taken()
        place = self.path.with_name(f"{MAKING}{self.name}-{secrets.token_hex(4)}")
        try:
            make_folder(place, may_exist=False)
            making = SessionFolder(place)
            making.complete()
            if fill is not None:
                fill(making)
            self._name(place)
            place = self.path
            fsync_folder(self.path.parent)
        except BaseException:
            with contextlib.suppress(StorageError):  # the error that brought us here is the one to tell
                remove_tree(place)
            raise

    def _name(self, made: Path) -> None:
        try:
            os.rename(made, self.path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise self._taken() from error
            raise StorageError.of(error, "make the folder", self.path) from error

    def _taken(self) -> RefusedError:
        return RefusedError(f"a session {self.name} exists already; choose another name, or `fluxtui rm {self.name}`")

    def complete(self) -> None:
        """Make those folders that are missing, durably: somebody may have removed one.

        Raises StorageError; also where one of them, or the session's own, is a link or another user's.
        """
        must_be_own_folder(self.path)
        for folder in (self.attempts, self.control, self.checkpoints, self.samples):
            make_own_folder(folder)
        fsync_folder(self.path)


@dataclass(frozen=True, slots=True)
class Home:
    """Where FluxTUI keeps everything. `root` is absolute, ours and exists."""

    root: Path

    @staticmethod
    def open(root: Path | None = None) -> Home:
        """The home at `root`, else FLUXTUI_HOME, else the user data folder; made where it is missing.

        Raises StorageError where it cannot be made or belongs to somebody else, UsageError where its path is no text.
        """
        given = expanded(root or _default_root())
        if str(given).startswith("~"):  # below the present folder each would find sessions of its own
            raise UsageError(f"no home folder is known for {given.parts[0]}; point FLUXTUI_HOME at a folder by its full path")
        chosen = given.absolute()
        try:
            str(chosen).encode()
        except UnicodeEncodeError:  # jobs, records and JSON are UTF-8: no session could hold its own paths
            raise UsageError(f"the path of the home, {str(chosen)!a}, is not UTF-8; point FLUXTUI_HOME at one that is") from None
        try:
            if not chosen.is_dir():
                chosen.parent.mkdir(parents=True, exist_ok=True)
                make_folder(chosen)
            chosen = chosen.resolve()
        except FileExistsError as error:
            raise StorageError(f"{chosen.parent} is in the way of a folder of FluxTUI's; move it") from error
        except OSError as error:
            raise StorageError.of(error, "make the folder", chosen) from error
        _must_be_ours(chosen)
        home = Home(chosen)
        for folder in (home.sessions, home.cache, home.models):
            make_folder(folder)
            _must_be_ours(folder)
        return home

    @property
    def sessions(self) -> Path:
        return self.root / "sessions"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def cpu_lock(self) -> Path:
        """Held by the keeper whose trainer uses the CPU: one at a time in a home."""
        return self.root / "cpu.lock"

    def session(self, name: str) -> SessionFolder:
        """The folder of a session, which need not exist. Raises UsageError for a name that is not a safe slug."""
        path = self.sessions / safe_name(name)
        if stat.S_ISLNK(_mode(path)):
            raise UsageError(f"{path} is a link, and a session never leads out of its home; move the folder itself here")
        return SessionFolder(path)

    def session_names(self) -> list[str]:
        """Every session, sorted; a folder with nothing readable in it counts too, and one that the disk cannot look at.

        Raises StorageError where the folder of all of them cannot be listed.
        """
        names = [name for name in _names(self.sessions) if _is_slug(name)]
        sessions = str(self.sessions)  # a path object for each of a thousand would cost more than the look itself
        return sorted(name for name in names if _may_be_a_folder(f"{sessions}/{name}"))

    def misnamed(self) -> list[str]:
        """Session folders under a name that none can have, as somebody renamed them; sorted. Nothing else lists them."""
        found = [name for name in _names(self.sessions) if not name.startswith(".") and not _is_slug(name)]
        return sorted(name for name in found if os.path.isfile(self.sessions / name / "session.toml"))


def runtime_folder() -> Path:
    """The machine's own folder of this user: locks of GPUs, and of file systems that cannot lock. Gone after a reboot.

    FLUXTUI_RUNTIME, else /tmp/fluxtui-UID. Not XDG_RUNTIME_DIR: the system removes that one at the last log-out, while a
    training goes on, and two shells of one user may disagree about it. Raises StorageError where it is not ours.
    """
    given = os.environ.get("FLUXTUI_RUNTIME")
    path = Path(given).absolute() if given else Path(f"/tmp/fluxtui-{os.geteuid()}")
    try:
        make_folder(path)
        if stat.S_ISLNK(_mode(path)):
            raise StorageError(f"{path} is a link that somebody put there; remove it")
        _must_be_ours(path)
        try:
            os.chmod(path, 0o700)
        except OSError as error:
            raise StorageError.of(error, "make private", path) from error
    except StorageError as error:  # what is said of a disk names the home, which is another folder
        raise StorageError(str(error).replace("FLUXTUI_HOME", "FLUXTUI_RUNTIME"), error.errno) from error
    return path


def _default_root() -> Path:
    given = os.environ.get("FLUXTUI_HOME")
    if given:
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else Path("~/.local/share")) / "fluxtui"


def _mode(path: Path | str) -> int:
    """The mode of what lies at the path itself, links not followed; 0 where nothing does. Raises StorageError."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise StorageError.of(error, "look at", Path(path)) from error


def _may_be_a_folder(path: str) -> bool:
    """Whether it is one, or cannot be looked at: what is wrong with it is then said in its own line, and hides no other."""
    try:
        return stat.S_ISDIR(_mode(path))
    except StorageError:
        return True


def _must_be_ours(path: Path) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        raise StorageError.of(error, "look at", path) from error
    if not stat.S_ISDIR(found.st_mode):
        raise StorageError(f"{path} is not a folder; move it, or point FLUXTUI_HOME elsewhere")
    if found.st_uid != os.geteuid():
        raise StorageError(f"{path} belongs to user {found.st_uid}, not to you; point FLUXTUI_HOME at a folder of your own")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError.of(error, "list", folder) from error
