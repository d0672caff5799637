"""How a trainer ends: which exit code an error means, and the sentence and remedy that go with it. No torch."""

from __future__ import annotations

import errno
import os
import re
import resource
import sys
from dataclasses import dataclass
from typing import Any

from fluxtui.engine.remedies import LOWER_RATE, TAKES_LESS
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.wire import ECHO, TrainerExit
from fluxtui.persist.errors import FluxTUIError, StorageError
from fluxtui.persist.files.text import clean

CRASHED = 1  # any other error: the keeper tries again, within its limit

_STORAGE_NUMBERS = frozenset({errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG})
_ROOM = "make room or fix the disk, then fluxtui resume {name}"
_MORE = "raise it or close other programs, then fluxtui resume {name}"
_NAMED = "do what the reason says, then fluxtui resume {name}"  # it is no matter of room
_SHARED_MEMORY = re.compile(r"[^\n]*(/dev/shm|shared memory segment)[^\n]*")
_MORE_SHARED = (
    "give the container a larger /dev/shm (docker run --shm-size=8g), or set NCCL_SHM_DISABLE=1, then fluxtui resume {name}"
)
# what CUDA, cuBLAS and cuDNN say of memory that torch's allocator was not asked for: a context, a handle, a workspace
_USED_UP = re.compile(
    r"CUDA error: out of memory|CU(BLAS|DNN|SOLVER|FFT)_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED|"
    r"Cuda failure.{0,9}out of memory"
)
_NO_COMPILER = (
    "install what it names (a C compiler: apt install build-essential), then fluxtui resume {name}; or without compiling: "
    "fluxtui resume {name} --set hardware.compile=false"
)
_LOOK = "see the log; fluxtui resume {name} goes on from the last checkpoint"
_GPU = "fluxtui resume {name} once `nvidia-smi` lists the GPU again"
LESS_MEMORY = (  # what helps most for least first
    "make one that takes less (more hardware.stream_blocks, train.batch_size=1 with more gradient_accumulation, "
    f"train.gradient_checkpointing=true, model.precision=int8, a smaller dataset.resolution): {TAKES_LESS}"
)


class NonFiniteError(Refusal):
    """A loss, gradient or weight is NaN or infinite. Nothing of that step is committed."""

    exit = TrainerExit.NON_FINITE

    def __init__(self, reason: str) -> None:
        super().__init__(reason, LOWER_RATE)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a trainer leaves."""

    code: int
    error: str  # one sentence
    remedy: str  # the one change or command that follows; "" where none is known


def ending_of(error: BaseException) -> Ending:
    """The ending that an error means. Where torch is loaded, its errors are known too."""
    match error:
        case Refusal():
            return Ending(error.exit, str(error), error.remedy)
        case StorageError():
            is_disks = error.errno is None or (error.errno in _STORAGE_NUMBERS and error.errno != errno.EFBIG)
            return Ending(TrainerExit.STORAGE, str(error), _ROOM if is_disks else _NAMED)
        case FluxTUIError():
            return Ending(TrainerExit.CONFIGURATION, str(error), "")
        case OSError() if error.errno in _STORAGE_NUMBERS:
            where = f" ({error.filename})" if error.filename else ""
            return Ending(TrainerExit.STORAGE, f"the disk refused a write: {error.strerror}{where}", _ROOM)
        case PermissionError() if error.filename:  # a model's or a user's file; it would end the same way again
            why = f"you may not read or write {clean(str(error.filename), 300)}"
            return Ending(TrainerExit.CONFIGURATION, why, "let yourself (chmod, chown), then fluxtui resume {name}")
        case ImportError():
            return Ending(
                TrainerExit.CONFIGURATION, f"the trainer cannot be imported: {first_line(error)}", "install FluxTUI again"
            )
        case MemoryError():
            return _host_memory()
        case RuntimeError() if str(error) == "can't start new thread":  # Python's own words
            why = "no thread can be started: the limit on processes is reached (`ulimit -u`, or a container's pids limit)"
            return Ending(CRASHED, why, _MORE)
    return _of_torch(error) or Ending(CRASHED, f"{type(error).__name__}: {first_line(error)}", _LOOK)


def _host_memory() -> Ending:
    """Not tried again: it would end the same way. A limit of the process below the machine's memory is what ran out first."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        return Ending(
            TrainerExit.CONFIGURATION,
            f"a process may have {limit / 2**30:.1f} GiB of address space here (`ulimit -v`), too little for the trainer",
            "`ulimit -v unlimited`, then fluxtui resume {name}; where the shell refuses it, whoever set the limit can raise it",
        )
    return Ending(
        TrainerExit.CONFIGURATION,
        "this machine has not enough memory",
        f"close other programs, then fluxtui resume {{name}}; where that is not enough: {TAKES_LESS}",
    )


def first_line(error: BaseException) -> str:
    """What the error says, without the pages that libraries add."""
    return (str(error).strip().splitlines() or ["no message"])[0][:400]


def _of_torch(error: BaseException) -> Ending | None:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return None
    if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and _USED_UP.search(str(error))):
        return Ending(TrainerExit.GPU_MEMORY, f"the GPU's memory is used up{_peak(torch)}", LESS_MEMORY)
    compiler: Any = sys.modules.get("torch._dynamo.exc")
    if compiler is not None and isinstance(error, compiler.TorchDynamoException):  # would end the same way again
        return Ending(TrainerExit.CONFIGURATION, f"the blocks cannot be compiled: {first_line(error)}", _NO_COMPILER)
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
        return _host_memory()
    is_nccls = isinstance(error, getattr(torch.distributed, "DistError", ()))
    if is_nccls and (full := _SHARED_MEMORY.search(str(error))):
        return Ending(TrainerExit.CONFIGURATION, f"the ranks cannot speak through shared memory: {full[0]}", _MORE_SHARED)
    is_gloos = isinstance(error, RuntimeError) and "gloo/" in str(error)
    if is_gloos or is_nccls:
        said = first_line(error).partition(". This is typically")[0]
        why = said.partition("] ")[2] or said if is_gloos else said
        return Ending(TrainerExit.PEER, f"{ECHO}: {why}", _LOOK)
    lost = isinstance(error, getattr(torch, "AcceleratorError", ())) or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )
    return Ending(TrainerExit.GPU_LOST, f"the GPU failed: {first_line(error)}", _GPU) if lost else None


def _peak(torch: Any) -> str:  # noqa: ANN401  (a module)
    if not torch.cuda.is_available():
        return ""
    own = torch.cuda.current_device()
    peak, total = torch.cuda.max_memory_allocated(own), torch.cuda.get_device_properties(own).total_memory
    return f" (peak {peak / 2**30:.1f} GiB of {total / 2**30:.1f} GiB)"
