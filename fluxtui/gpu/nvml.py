"""One reading through NVML (the module `pynvml` of nvidia-ml-py). Runs only in the child process: any call may never return."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

from fluxtui.gpu.readings import Gpu, Gpus

T = TypeVar("T")

_NO_LIBRARY = (
    "no NVIDIA driver here (libnvidia-ml.so.1 is not installed); install it, or start the container with its GPUs"
)
_SENTENCES = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: _NO_LIBRARY,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA kernel driver is not loaded; run `nvidia-smi`",
    pynvml.NVML_ERROR_NO_PERMISSION: "no permission to use the NVIDIA driver; look at the owner of /dev/nvidia*",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver was updated under the running kernel module; reboot",
    pynvml.NVML_ERROR_GPU_IS_LOST: "it fell off the bus; reboot the machine or give it back",
    pynvml.NVML_ERROR_RESET_REQUIRED: "it needs a reset; reboot the machine or give it back",
    pynvml.NVML_ERROR_NOT_SUPPORTED: "this GPU or driver does not support it",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "the NVIDIA driver is too old for it",
    pynvml.NVML_ERROR_TIMEOUT: "the NVIDIA driver timed out",
    pynvml.NVML_ERROR_MEMORY: "the NVIDIA driver ran out of memory",
    pynvml.NVML_ERROR_NO_DATA: "the NVIDIA driver has no data",
    pynvml.NVML_ERROR_UNKNOWN: "the NVIDIA driver failed for an unknown reason; run `nvidia-smi` and look at `dmesg`",
}
_IN_MIG = "not told of a MIG instance; `nvidia-smi` on the host tells it of the whole GPU"
# NVML's bits, in words; an idle GPU's low clocks (bit 1) are no fault of anything
_SLOWED_BY = (
    (0x4, "power limit"),
    (0x40, "heat, by the hardware"),
    (0x20, "heat"),
    (0x80, "power supply brake"),
    (0x8, "hardware, for heat or power"),
    (0x10, "slowest GPU of its sync group"),
    (0x2, "clocks set by hand"),
    (0x100, "display clocks"),
)


def read() -> tuple[Gpus, bool]:
    """All GPUs, and whether there is a driver's library at all. Never raises an error of the driver: it becomes `why`."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus(why=sentence(error), at=time.monotonic()), error.value != pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    troubles: list[str] = []
    devices: list[Gpu] = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                devices += _one(index)
            except pynvml.NVMLError as error:
                troubles.append(f"GPU {index}: {sentence(error)}")
    except pynvml.NVMLError as error:
        troubles.append(sentence(error))
    if not devices and not troubles:
        troubles.append("the NVIDIA driver is there, but no GPU; start the container with GPUs")
    # the driver keeps its state between readings: a handle of a lost GPU or of a reloaded driver would stay bad for ever
    _shut_down()
    return Gpus(tuple(devices), "; ".join(troubles), time.monotonic()), True


def sentence(error: pynvml.NVMLError) -> str:
    """What NVML answered, in words that say what to do."""
    return _SENTENCES.get(error.value) or _plain(f"NVML error {error.value}: {error}")


def _shut_down() -> None:
    try:
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return  # it is gone already


def _one(index: int) -> list[Gpu]:
    """A GPU, or its MIG instances where it is cut up: CUDA then gives out only those."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        is_cut_up = bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
        count = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) if is_cut_up else 0
    except pynvml.NVMLError as error:
        if error.value not in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            raise
        is_cut_up, count = False, 0
    if not is_cut_up:
        return [_gpu(index, handle, is_instance=False)]
    instances = []
    for number in range(count):
        try:
            instances.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        except pynvml.NVMLError as error:
            if error.value not in (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT):
                raise  # not found: fewer instances are made than could be
    return [_gpu(index, instance, is_instance=True) for instance in instances]


def _gpu(index: int, handle: Any, *, is_instance: bool) -> Gpu:  # noqa: ANN401  (an opaque handle of NVML)
    """All figures of one device. Raises NVMLError only where it cannot even be named, or is lost."""
    missing: dict[str, str] = {}

    def figure(name: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except pynvml.NVMLError as error:
            if error.value in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED):
                raise
            in_mig = is_instance and error.value in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT)
            missing[name] = _IN_MIG if in_mig else sentence(error)
            return None

    memory = figure("memory", lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    rates = figure("utilisation", lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    power = figure("power_watts", lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    limit = figure("power_limit_watts", lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    celsius = figure("temperature_celsius", lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    slowed_by = figure("slowed_by", lambda: _slowed_by(handle))
    processes = figure("processes", lambda: _processes(handle)) or {}
    if 0 in processes.values():
        missing["processes"] = "the driver does not tell how much memory each process has"
    return Gpu(
        index=index,
        uuid=_plain(pynvml.nvmlDeviceGetUUID(handle)),
        name=_name(handle),
        memory_total=int(memory.total) if memory else 0,
        memory_used=int(memory.used) if memory else 0,
        utilisation=None if rates is None else float(rates.gpu),
        power_watts=None if power is None else power / 1000,
        power_limit_watts=None if limit is None else limit / 1000,
        temperature_celsius=None if celsius is None else float(celsius),
        slowed_by=slowed_by,
        processes=processes,
        missing=missing,
    )


def _slowed_by(handle: Any) -> tuple[str, ...]:  # noqa: ANN401
    """What holds its clocks down now, the plainest reason first: nvml.h's clocks event reasons, before R535 throttle reasons."""
    try:
        bits = int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except pynvml.NVMLError as error:
        if error.value != pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
        bits = int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    found = [words for bit, words in _SLOWED_BY if bits & bit]
    # the hardware's own slowdown is set beside the bit that says why
    return tuple(words for words in found if len(found) == 1 or not words.startswith("hardware, "))


def _processes(handle: Any) -> dict[int, int]:  # noqa: ANN401
    try:
        running = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    except pynvml.NVMLError as error:
        if error.value != pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
        running = pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)  # drivers before R510
    found: dict[int, int] = {}
    for process in running:
        found[int(process.pid)] = found.get(int(process.pid), 0) + int(process.usedGpuMemory or 0)
    return found


def _name(handle: Any) -> str:  # noqa: ANN401
    try:
        return _plain(pynvml.nvmlDeviceGetName(handle))
    except UnicodeDecodeError:
        return "a GPU with an unreadable name"


def _plain(text: str | bytes) -> str:
    """A text of the driver as one printable line of at most 200 characters."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return "".join(letter if letter.isprintable() else "?" for letter in decoded[:200])
