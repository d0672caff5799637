"""What is asked of sbatch for a session, in submitit's names: what the spec means, and over it what the user wants.

Slurm gives a job what was asked for and no more: no GPU that was not counted, one CPU a task where no number is said, and only
as much of a node's memory as its default. So the spec's GPUs are counted here, or the user is told to.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any

from fluxtui.persist.errors import UsageError
from fluxtui.persist.files.text import clean
from fluxtui.persist.settings.spec import Spec

_MINUTES = 240
_BEFORE_LIMIT = 240  # seconds for the last checkpoint; Slurm may send the signal up to a minute early
_START = 300  # seconds that a job must have before it is told to leave, or it would do nothing but come and go
_MEMORY = (8, 24)  # GiB of host memory: for the job on a node, and for each GPU: T5 on the CPU, or streamed blocks
_GPU_OPTIONS = ("gpus_per_node", "gpus_per_task", "num_gpus")
_CPU_OPTIONS = ("cpus_per_task", "cpus_per_gpu", "exclusive")
_MEMORY_OPTIONS = ("mem", "mem_per_cpu", "mem_per_gpu", "exclusive")
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def options(spec: Spec, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of `submitit.SlurmExecutor.update_parameters`: one task a node, which starts the ranks of that node itself.

    `wanted`: the user's. Raises `UsageError` where it cannot work with the spec, or Slurm would not know how many GPUs.
    """
    _check_shape(spec, wanted)
    found: dict[str, Any] = {
        "job_name": f"fluxtui-{spec.name}", "time": _MINUTES,
        "signal_delay_s": int(max(_BEFORE_LIMIT, 2 * spec.guard.stop)),
    }  # fmt: skip
    found |= wanted
    found |= {"nodes": spec.hardware.nodes, "ntasks_per_node": 1}
    found["time"] = _minutes(found["time"])
    _check_time(found["time"], found["signal_delay_s"])
    more = wanted.get("additional_parameters", {})
    if not isinstance(more, Mapping):
        raise UsageError("additional_parameters is a table of sbatch's options, like {reservation = 'mine'}.")
    more = {"requeue": True} | dict(more)
    found["additional_parameters"] = {name: value for name, value in more.items() if value is not False}
    if gpus := _gpus(spec, found):
        if not any(name in found for name in _CPU_OPTIONS):
            found["cpus_per_task"] = gpus * (2 + spec.hardware.workers)  # of each rank: its loop, a thread that writes, workers
        if not any(name in found for name in _MEMORY_OPTIONS):
            found["mem"] = f"{_MEMORY[0] + gpus * _MEMORY[1]}G"
    if cpus := found.get("cpus_per_task"):  # srun of Slurm 22.05 to 23.02 gives its task one CPU where it is not told again
        found["srun_args"] = [*found.get("srun_args", []), f"--cpus-per-task={cpus}"]
    return found


def _check_shape(spec: Spec, wanted: Mapping[str, Any]) -> None:
    own = spec.hardware.nodes
    asked = wanted.get("nodes", own)
    if asked != own:
        raise UsageError(f"this session trains on {own} nodes: --set hardware.nodes={clean(str(asked), 20)} changes that.")
    if wanted.get("ntasks_per_node", 1) != 1:
        raise UsageError("a node has one task, its keeper, which starts a rank for each GPU: leave ntasks_per_node out.")
    if wanted.get("use_srun", True) is not True:
        raise UsageError("Slurm's signals reach what srun starts, and no other process: leave use_srun out.")


def _gpus(spec: Spec, found: dict[str, Any]) -> int:
    """GPUs a node; counted into `found` where the user did not. 0: none, or as many as an option says that is not read here."""
    gpus = spec.hardware.gpus
    more = found["additional_parameters"]
    is_said = any(name in found for name in _GPU_OPTIONS) or any("gpu" in str(one.get("gres", "")) for one in (found, more))
    if gpus == []:
        return 0
    if not is_said and not any(name.startswith("gpus") for name in more):
        if gpus == "all":
            raise UsageError(
                "hardware.gpus = 'all' is all that Slurm gives, and Slurm wants their number: --slurm gpus_per_node=8, say, or "
                "gpus_per_node in [slurm] of config.toml."
            )
        found["gpus_per_node"] = len(gpus) if isinstance(gpus, list) else 1
    count = next((_last_number(found[name]) for name in _GPU_OPTIONS if name in found), 0)
    if isinstance(gpus, list) and 0 < count < len(gpus):
        raise UsageError(f"hardware.gpus wants {len(gpus)} GPUs on each node, and Slurm is asked for {count}: ask for as many.")
    return count


def _last_number(value: object) -> int:
    """`a100:4` is 4."""
    match = re.search(r"(\d+)\s*$", str(value))
    return int(match[1]) if match else 0


def _minutes(value: object) -> int:
    """Of sbatch's --time: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS. submitit reckons with a number."""
    if isinstance(value, int) and value > 0:
        return value
    match = _TIME.fullmatch(value.isoformat() if isinstance(value, datetime.time) else str(value))
    if match is None or (match[1] is None and match[3] is None and int(match[2]) < 1):
        raise UsageError(f"time is {clean(str(value), 40)}; give minutes (720), or as sbatch takes it (12:00:00, 1-12:00:00).")
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1] is not None:
        return days * 1440 + first * 60 + second + math.ceil(third / 60)
    if match[4] is not None:
        return first * 60 + second + math.ceil(third / 60)
    return first + math.ceil(second / 60)


def _check_time(minutes: int, before: object) -> None:
    if not isinstance(before, int) or before < 1:
        raise UsageError(f"signal_delay_s is {clean(str(before), 40)}; it is a number of seconds before the time limit.")
    if minutes * 60 < before + _START:
        raise UsageError(
            f"time is {minutes} minutes, and {before} s before its end the session has to leave (signal_delay_s): it would come "
            f"and go without a step; ask for {math.ceil((before + _START) / 60)} minutes or more."
        )
