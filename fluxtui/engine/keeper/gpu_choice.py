"""Which GPUs of this machine a session may train on, by its `hardware.gpus`: the alternatives, best first."""

from __future__ import annotations

from collections.abc import Mapping

from fluxtui.gpu.readings import Gpu, Gpus
from fluxtui.gpu.visible import SLURM, VISIBLE, uncertain, visible
from fluxtui.persist.errors import UsageError

_CHANGE = "change it by --set hardware.gpus=..."


def alternatives(gpus: str | list[int | str], readings: Gpus, environment: Mapping[str, str]) -> list[list[str]]:
    """Lists of UUIDs; a session takes the first whose devices are all free. `environment`: what CUDA and Slurm left there.

    Raises `UsageError` where the machine does not have, or does not leave to this process, what was asked for.
    """
    if words := uncertain(readings.devices, environment):
        raise UsageError(words)
    left, said = visible(readings.devices, environment), environment.get(VISIBLE)
    if isinstance(gpus, str) and not left:
        raise UsageError(f"{VISIBLE}={said} leaves none of this machine's GPUs ({_list(readings)}): unset it, or fix it")
    if gpus == "auto":
        free_first = sorted(left, key=lambda one: one.memory_used - one.memory_total)
        return [[one.uuid] for one in free_first]
    if isinstance(gpus, str):
        chosen = [one.uuid for one in left]
    elif SLURM in environment and said is not None and all(isinstance(one, int) for one in gpus):
        chosen = _given(gpus, left, said)
    else:
        chosen = [_named(str(one), left, readings, said) for one in gpus]
    chosen = list(dict.fromkeys(chosen))
    if len(chosen) > 1 and any(uuid.startswith("MIG-") for uuid in chosen):
        raise UsageError(
            f"CUDA shows a process one MIG instance and nothing beside it, so a session trains on one of {', '.join(chosen)}; "
            f"{_CHANGE}"
        )
    return [chosen]


def _given(gpus: list[int | str], left: list[Gpu], said: str) -> list[str]:
    """As many as are listed, of those that Slurm chose for this job: which ones is Slurm's to say."""
    named = [one.uuid for one in left if one.index in gpus]
    wanted = len(set(gpus))
    if len(left) < wanted:
        raise UsageError(
            f"Slurm gave this job {len(left)} GPUs ({VISIBLE}={said}), and hardware.gpus wants {wanted}: ask for as many "
            "(--slurm gpus_per_node), or set hardware.gpus=all"
        )
    return named if len(named) == wanted else [one.uuid for one in left[:wanted]]


def _named(name: str, left: list[Gpu], readings: Gpus, said: str | None) -> str:
    """The UUID of the one device that an index or a UUID names."""
    here = [one.uuid for one in readings.devices if name in (str(one.index), one.uuid)]
    found = [one.uuid for one in left if one.uuid in here]
    if len(found) > 1:
        raise UsageError(f"GPU {name} is cut into MIG instances: name one of them, {', '.join(found)}; {_CHANGE}")
    if found:
        return found[0]
    if here:
        raise UsageError(f"GPU {name} is not among those that {VISIBLE}={said} leaves to this session; {_CHANGE}")
    raise UsageError(f"this machine has no GPU {name}; it has: {_list(readings)}; {_CHANGE}")


def _list(readings: Gpus) -> str:
    return ", ".join(f"{one.index} ({one.uuid})" for one in readings.devices) or readings.why or "none"
