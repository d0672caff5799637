"""What each error of a trainer comes to: its exit code, its sentence, its remedy."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._inductor.exc import InductorError

from fluxtui.engine.trainer.exit_reason import CRASHED, NonFiniteError, ending_of
from fluxtui.engine.trainer.refusal import DataError, DataWorkerError, HungReadError
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.errors import DamagedError, RefusedError, StorageError, UsageError

NO_SHM = "Last error:\nError while creating shared memory segment /dev/shm/nccl-kXzPQ4 (size 9637888)"
FromDriver = getattr(torch, "AcceleratorError", RuntimeError)  # before torch 2.8 a plain RuntimeError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NonFiniteError("the loss of step 3 is not finite"), TrainerExit.NON_FINITE),
        (DataError("a.png is truncated"), TrainerExit.DATA),
        (DataWorkerError("a worker died"), TrainerExit.DATA_WORKER),
        (HungReadError("a.png did not answer"), TrainerExit.HUNG),
        (StorageError("the disk is full"), TrainerExit.STORAGE),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl"), TrainerExit.STORAGE),
        (OSError(errno.EIO, os.strerror(errno.EIO)), TrainerExit.STORAGE),
        (UsageError("a sentence"), TrainerExit.CONFIGURATION),
        (RefusedError("a sentence"), TrainerExit.CONFIGURATION),
        (DamagedError("a sentence"), TrainerExit.CONFIGURATION),
        (ImportError("no module named torch"), TrainerExit.CONFIGURATION),
        (MemoryError(), TrainerExit.CONFIGURATION),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), TrainerExit.CONFIGURATION),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), TrainerExit.GPU_MEMORY),
        (FromDriver("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"), TrainerExit.GPU_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), TrainerExit.GPU_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), TrainerExit.GPU_MEMORY),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), TrainerExit.GPU_LOST),
        (FromDriver("CUDA error: unspecified launch failure"), TrainerExit.GPU_LOST),
        (RuntimeError("[/a/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:3230"), TrainerExit.PEER),
        (torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"), TrainerExit.PEER),
        (torch.distributed.DistBackendError(f"NCCL error in: a.cpp:1\n{NO_SHM}"), TrainerExit.CONFIGURATION),
        (torch.distributed.DistBackendError("NCCL error\nCuda failure 2 'out of memory'"), TrainerExit.GPU_MEMORY),
        (InductorError(RuntimeError("Failed to find C compiler. Please specify via CC"), None), TrainerExit.CONFIGURATION),
        (OSError(errno.ENOENT, "No such file"), CRASHED),
        (RuntimeError("can't start new thread"), CRASHED),
        (PermissionError(errno.EACCES, "Permission denied", "/a/model.safetensors"), TrainerExit.CONFIGURATION),
        (RuntimeError("shapes do not match\nand many lines more"), CRASHED),
    ],
)
def test_every_error_has_its_code_and_one_sentence(error: Exception, code: int) -> None:
    ending = ending_of(error)
    assert ending.code == code
    assert ending.error
    assert "\n" not in ending.error


def test_a_rank_that_runs_out_of_memory_tells_the_peak_of_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {0: (70, 80), 1: (23, 24)}  # GiB: at the peak, in all
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)  # of rank 1
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda card: cards[card][0] << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda card: SimpleNamespace(total_memory=cards[card][1] << 30))
    ending = ending_of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert ending.error == "the GPU's memory is used up (peak 23.0 GiB of 24.0 GiB)"


def test_what_to_change_is_said_where_it_is_known() -> None:
    assert "learning_rate" in ending_of(NonFiniteError("the loss of step 3 is not finite")).remedy
    assert "gradient_checkpointing" in ending_of(torch.OutOfMemoryError("CUDA out of memory")).remedy
    assert "`ulimit -u`" in ending_of(RuntimeError("can't start new thread")).error
    assert "metrics.jsonl" in ending_of(OSError(errno.ENOSPC, "No space left", "metrics.jsonl")).error


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EFBIG, errno.EISDIR, errno.ENOTDIR, errno.EMFILE])
def test_where_room_is_not_what_lacks_nobody_is_sent_to_make_some(number: int) -> None:
    ending = ending_of(StorageError.of(OSError(number, os.strerror(number)), "write", "a"))
    assert (ending.code, ending.remedy) == (TrainerExit.STORAGE, "do what the reason says, then fluxtui resume {name}")
    full = ending_of(StorageError.of(OSError(errno.ENOSPC, "No space left"), "write", "a"))
    assert full.remedy.startswith("make room")


def test_a_limit_on_the_process_is_not_called_the_machines_memory() -> None:
    """`ulimit -v 2000000` on a machine with 20 GiB free: closing other programs would not help."""
    code = (
        "import resource; from fluxtui.engine.trainer.exit_reason import ending_of\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "try: bytearray(2**31)\n"
        "except MemoryError as error: print(ending_of(error).error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "a process may have 1.0 GiB of address space here (`ulimit -v`), too little for the trainer\n"
