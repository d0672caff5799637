"""How a trainer ends: which exit code an error means, and the sentence and remedy that go with it."""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass

from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.errors import FluxTUIError, StorageError

CRASHED = 1     # any other error: the keeper tries again, within its limit


class NonFiniteError(FluxTUIError):
    """A loss, gradient or weight is NaN or infinite."""


class DataError(FluxTUIError):
    """An image or caption cannot be used."""


class DataWorkerError(FluxTUIError):
    """A data worker died, or hangs."""


class GPULostError(FluxTUIError):
    """The GPU no longer answers."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a trainer leaves."""

    code: int
    error: str      # one sentence
    remedy: str     # the one change or command that follows; "" where none is known


_STORAGE_NUMBERS = frozenset({errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG})


def ending_of(error: BaseException) -> Ending:
    """The ending that an error means. Works without torch; where torch is loaded, its errors are known too."""
    match error:
        case NonFiniteError():
            return Ending(TrainerExit.NON_FINITE, str(error), "lower train.learning_rate, then resume from the last checkpoint")
        case DataError():
            return Ending(TrainerExit.DATA, str(error), "mend the data set, then resume")
        case DataWorkerError():
            return Ending(TrainerExit.DATA_WORKER, str(error), "resume with --set hardware.workers=0")
        case GPULostError():
            return Ending(TrainerExit.GPU_LOST, str(error), "resume once `nvidia-smi` lists the GPU again")
        case StorageError():
            return Ending(TrainerExit.STORAGE, str(error), "make room or mend the disk, then resume")
        case FluxTUIError():
            return Ending(TrainerExit.CONFIGURATION, str(error), "")
        case OSError() if error.errno in _STORAGE_NUMBERS:
            where = f" ({error.filename})" if error.filename else ""
            return Ending(TrainerExit.STORAGE, f"the disk refused a write: {error.strerror}{where}", "make room or mend the disk, then resume")
        case MemoryError():
            return Ending(CRASHED, "this machine has not enough memory", "use a smaller batch or resolution")
    return _of_torch(error) or Ending(CRASHED, f"{type(error).__name__}: {_first_line(error)}", "see the log; resume goes on from the last checkpoint")


def _of_torch(error: BaseException) -> Ending | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if isinstance(error, torch.OutOfMemoryError):
        return Ending(TrainerExit.GPU_MEMORY, f"the GPU's memory is used up{_peak(torch)}", _LESS_MEMORY)
    accelerator_error = getattr(torch, "AcceleratorError", ())
    if isinstance(error, accelerator_error) or (isinstance(error, RuntimeError) and "CUDA error" in str(error)):
        return Ending(TrainerExit.GPU_LOST, f"the GPU failed: {_first_line(error)}", "resume once `nvidia-smi` lists the GPU again")
    return None


_LESS_MEMORY = (
    "set train.gradient_checkpointing=true, train.batch_size=1 with more gradient_accumulation, or a smaller dataset.resolution"
)


def _peak(torch: object) -> str:
    cuda = torch.cuda  # type: ignore[attr-defined]
    if not cuda.is_available():
        return ""
    return f" (peak {cuda.max_memory_allocated() / 2**30:.1f} GiB of {cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB)"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:400]
