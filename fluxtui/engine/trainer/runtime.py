"""The machine as the loop sees it: device, dtype, ranks, deterministic kernels. accelerate finds device and ranks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch

from fluxtui.engine.cards import misfit
from fluxtui.engine.trainer.exit_reason import first_line
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.wire import TrainJob

_UNKNOWN = 2**62  # more bytes than any card has
_RANKS_WAIT = timedelta(days=7)  # rank 0 draws and commits while the others wait; the keeper's guards know better when it hangs


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where this rank computes, and with how many others."""

    device: torch.device
    dtype: torch.dtype  # of the frozen base
    rank: int
    ranks: int
    card: int | None = None  # bytes of the smallest GPU of all ranks, so that all hold the same base; None: the CPU

    @property
    def is_first(self) -> bool:
        """Rank 0 writes; the others only compute."""
        return self.rank == 0

    def sum(self, flat: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place."""
        if self.ranks > 1:
            torch.distributed.all_reduce(flat)
        return flat

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Each flag, true where any rank has it."""
        if self.ranks == 1:
            return list(flags)
        return [value > 0 for value in self.sum(torch.tensor(flags, dtype=torch.float32, device=self.device)).tolist()]

    def agree(self, value: str | None) -> str | None:
        """Rank 0's value, on every rank."""
        if self.ranks == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def least(self, value: int | None) -> int | None:
        """The smallest value of all ranks; None where every rank has none."""
        if self.ranks == 1:
            return value
        known = torch.tensor(_UNKNOWN if value is None else value, device=self.device)
        torch.distributed.all_reduce(known, torch.distributed.ReduceOp.MIN)
        return None if known.item() == _UNKNOWN else int(known.item())

    def wait_for_all(self) -> None:
        """Until every rank is here."""
        if self.ranks > 1:
            torch.distributed.barrier()


def begin(job: TrainJob) -> Runtime:
    """Threads, deterministic kernels, device and process group, before anything is computed."""
    if job.spec.hardware.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so; read when it starts
    from accelerate import PartialState
    from accelerate.utils import check_cuda_p2p_ib_support

    torch.set_num_threads(max(1, job.threads))
    on_cpu = not job.devices
    if not on_cpu and (found := misfit(int(os.environ.get("LOCAL_RANK", "0")))) is not None:
        raise Refusal(found.found, found.remedy)  # before a model is loaded, in words instead of CUDA's
    # encoding and drawing may meet CUDA kernels without a deterministic form: a warning is better than nothing; see `exactly`
    torch.use_deterministic_algorithms(True, warn_only=not on_cpu)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a write more, for nothing
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # what is encoded in float32 is the same on every card that it is cached for
    if not on_cpu and not check_cuda_p2p_ib_support():  # GeForce 40s cannot, and old drivers do not say so: accelerate refuses
        for name in ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE"):
            os.environ.setdefault(name, "1")
    state = (
        PartialState(cpu=on_cpu, timeout=_RANKS_WAIT) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else PartialState(cpu=on_cpu)
    )
    device = torch.device(state.device)
    here = Runtime(device, _base_dtype(job.spec.model.precision, device), state.process_index, state.num_processes)
    return replace(here, card=here.least(own_card(job, device)))


def exactly(first: Callable[[], None], note: Callable[[str], None]) -> bool:
    """Take a first step of training with deterministic kernels alone, and keep to them from then on; whether that was possible.

    Only so is the backward pass of attention on a GPU the same each time: where torch may do no more than warn, flash and
    memory-efficient attention add up in whatever order, and cuDNN's may be chosen. Where another kernel of this torch has no
    such form the log names it, and training goes on as well as it can.
    """
    torch.use_deterministic_algorithms(True)
    try:
        first()
        return True
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        torch.use_deterministic_algorithms(True, warn_only=True)
        note(f"steps are not the same each time on this GPU, and a resume is not exact: {first_line(error)}")
        first()
        return False


def freely(first: Callable[[], None], note: Callable[[str], None]) -> bool:
    """The same with whatever kernels torch takes for the fastest, where `hardware.deterministic` is off: never exact."""
    torch.use_deterministic_algorithms(False)
    note("hardware.deterministic is off: steps are not the same each time on this GPU, and a resume is not exact by bytes")
    first()
    return False


@contextmanager
def loosely() -> Iterator[None]:
    """While inside, kernels without a deterministic form are only warned of: nothing that is trained depends on them."""
    is_on, is_loose = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_on, warn_only=is_loose)


def own_card(job: TrainJob, device: torch.device) -> int | None:
    """Bytes of this rank's GPU as the driver counts them, with which plans are made: torch counts less. None for the CPU."""
    if device.type != "cuda":
        return None
    return job.card_memory or int(torch.cuda.get_device_properties(device).total_memory)


def free_on(device: torch.device) -> Callable[[], int] | None:
    """What says how many bytes of this rank's GPU are free, or its own; None for the CPU."""
    if device.type != "cuda":
        return None
    return lambda: int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device))


def end() -> None:
    """Leave the other ranks in order."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _base_dtype(precision: str, device: torch.device) -> torch.dtype:
    match precision:
        case "bf16":
            return torch.bfloat16
        case "fp32":
            return torch.float32
    return torch.float32 if device.type == "cpu" else torch.bfloat16
