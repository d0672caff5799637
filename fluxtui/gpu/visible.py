"""Which GPUs CUDA_VISIBLE_DEVICES leaves to this process. Slurm and people set it; NVML does not read it."""

from __future__ import annotations

from collections.abc import Sequence

from fluxtui.gpu.readings import Gpu

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible(devices: Sequence[Gpu], said: str | None) -> list[Gpu]:
    """Those that `said`, the variable's value, names by index, UUID or the beginning of one; all where it is not set.

    As CUDA reads it: what comes after a name that is none is not seen. An index is NVML's, which is CUDA's too under
    CUDA_DEVICE_ORDER=PCI_BUS_ID and wherever all cards are alike.
    """
    if said is None:
        return list(devices)
    found: dict[str, Gpu] = {}
    for name in map(str.strip, said.split(",")):
        named = [one for one in devices if _is_named(one, name)]
        if not named:
            break
        found |= {one.uuid: one for one in named}
    return list(found.values())


def _is_named(device: Gpu, name: str) -> bool:
    return str(device.index) == name or (name.startswith(("GPU-", "MIG-")) and device.uuid.startswith(name))
