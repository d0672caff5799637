"""Why a trainer will not go on: the sentence for the user, the change that helps, and the exit code. No torch."""

from __future__ import annotations

from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.errors import FluxTUIError


class Refusal(FluxTUIError):
    """Ends the trainer with `exit`; `str(refusal)` is the reason, `remedy` the one change or command that follows."""

    exit = TrainerExit.CONFIGURATION
    usual_remedy = ""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy or self.usual_remedy


class DataError(Refusal):
    """An image, a caption or a cache file cannot be used. `kind` is what the doctor files it under."""

    exit = TrainerExit.DATA
    usual_remedy = "fix what fluxtui check {data} names, then fluxtui resume {name}"

    def __init__(self, reason: str, remedy: str = "", kind: str = "unusable") -> None:
        super().__init__(reason, remedy)
        self.kind = kind

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, str]]:
        # the doctor's processes hand it over; the default would drop what is not in args
        return DataError, (str(self), self.remedy, self.kind)


class ChangedDataError(Refusal):
    """The data set is not the one that this session began with."""


class NoRoomError(Refusal):
    """The disk has not enough room for what the run will write."""

    exit = TrainerExit.STORAGE
    usual_remedy = "make room, or point FLUXTUI_HOME at a larger disk, then fluxtui resume {name}"


class DataWorkerError(Refusal):
    """A data worker died or hung."""

    exit = TrainerExit.DATA_WORKER
    usual_remedy = (
        "fluxtui resume {name}; where it happens again: fluxtui resume {name} --set hardware.workers=0"
    )


class HungReadError(Refusal):
    """A file does not answer: a dead network mount, a dying disk."""

    exit = TrainerExit.HUNG
    usual_remedy = "look at the disk or mount that holds the file, then fluxtui resume {name}"
