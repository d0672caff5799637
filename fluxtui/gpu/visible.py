"""Which GPUs CUDA_VISIBLE_DEVICES leaves to this process. Slurm and people set it; NVML does not read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fluxtui.gpu.readings import Gpu

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
SLURM = "SLURM_JOB_ID"  # Slurm counts as the driver does, whatever CUDA would make of its numbers


def visible(devices: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """Those that the variable names by index, UUID or the beginning of one; all where it is not set.

    As CUDA reads it: what comes after a name that is none is not seen. An index is NVML's: see `uncertain`.
    """
    said = environment.get(VISIBLE)
    if said is None:
        return list(devices)
    found: dict[str, Gpu] = {}
    for name in map(str.strip, said.split(",")):
        named = [one for one in devices if _is_named(one, name)]
        if not named:
            break
        found |= {one.uuid: one for one in named}
    return list(found.values())


def uncertain(devices: Sequence[Gpu], environment: Mapping[str, str]) -> str:
    """Why nobody can say which GPUs the variable's indices mean, and what to do, in a sentence; empty where it is plain.

    CUDA counts the fastest card first, by a rule of its own, NVML and nvidia-smi by the PCI bus; CUDA too where it is told to.
    """
    indices = [name for name in map(str.strip, environment.get(VISIBLE, "").split(",")) if name.isdecimal()]
    if not indices or environment.get(ORDER) == "PCI_BUS_ID" or SLURM in environment:
        return ""
    if len({one.index for one in devices}) < 2 or len({one.name for one in devices}) < 2:
        return ""
    return (
        f"{VISIBLE}={environment[VISIBLE]} counts this machine's unlike GPUs, and CUDA counts the fastest first where nvidia-smi "
        f"goes by the PCI bus: set {ORDER}=PCI_BUS_ID beside it (then it is nvidia-smi's count), or name them by UUID"
    )


def _is_named(device: Gpu, name: str) -> bool:
    return str(device.index) == name or (name.startswith(("GPU-", "MIG-")) and device.uuid.startswith(name))
