"""What of this machine will work, what not, and what to do. What only torch can say, a process of the engine does."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from fluxtui import __version__
from fluxtui.cli.out import size
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.files.text import clean
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.home import Home, runtime_folder

if TYPE_CHECKING:
    from fluxtui.gpu import Gpu, Gpus

LEAST_DISK = 2 * 2**30        # bytes; a pico demo takes 0.1 GiB, a FLUX.1 LoRA with its checkpoints 5
LEAST_MEMORY = 4 * 2**30      # bytes; what the pico model needs with torch
FLUX1_MEMORY = 16 * 2**30     # bytes; a shard of the transformer, torch and the encoders' passage
LEAST_SHM = 64 * 2**20        # bytes; data workers hand their batches over through it
LEAST_FILES = 256             # open files
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pillow")


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    subject: str
    level: Literal["good", "note", "bad"]
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything, in the order of importance. Never raises for what it finds."""
    _driver.cache_clear()
    looks: list[Callable[[], list[Finding]]] = [
        _python, _libraries, _home, _config, _disk, _memory, _shared_memory, _gpus, _torch, _models, _processor, _files,
        _terminal, _network,
    ]  # fmt: skip
    return [found for look in looks for found in look()]


def _python() -> list[Finding]:
    version = f"{platform.python_version()} at {sys.executable}, FluxTUI {__version__}"
    return [Finding("python", "good", version)]


def _libraries() -> list[Finding]:
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return [Finding("libraries", "bad", f"{', '.join(missing)} missing", "install FluxTUI again: make install")]
    return [Finding("libraries", "good", ", ".join(found))]


def _home() -> list[Finding]:
    """The home takes a real write and a real lock; so does the runtime folder."""
    try:
        home = Home.open()
        probe = home.root / ".doctor"
        write_file(probe, b"x")
        lock = Lock.take(probe)
        stand_in = lock is not None and not Lock.held(probe)
        if lock is not None:
            lock.release()
        probe.unlink()
    except (FluxTUIError, OSError) as error:
        return [Finding("home", "bad", clean(str(error), 300), "set FLUXTUI_HOME to a folder of yours")]
    try:
        runtime = runtime_folder()
    except (FluxTUIError, OSError) as error:
        return [Finding("runtime folder", "bad", clean(str(error), 300), "set FLUXTUI_RUNTIME to a folder of yours")]
    names = home.session_names()
    found = [Finding("home", "good", f"{home.root} with {len(names)} sessions, runtime folder {runtime}")]
    if lock is None or stand_in:
        told = f"{home.root} cannot lock; the runtime folder does"
        found.append(Finding("locks", "note", told, "start sessions from one machine only"))
    return found


def _config() -> list[Finding]:
    """What in config.toml nobody takes: it does nothing, and says nothing when it is meant to."""
    from fluxtui.screens.settings import read_settings

    try:
        path = Home.open().config
    except (FluxTUIError, OSError):
        return []  # told of the home
    if not path.exists():
        return []
    told = [clean(trouble.removeprefix("config.toml: "), 400) for trouble in read_settings(path).troubles]
    found = [Finding("config.toml", "note", words, f"fix {path}") for words in told]
    return found or [Finding("config.toml", "good", f"every setting in {path} is one")]


def _disk() -> list[Finding]:
    try:
        space = os.statvfs(Home.open().root)
    except (FluxTUIError, OSError):
        return []  # told of the home
    free = space.f_bavail * space.f_frsize
    text = f"{size(free)} free of {size(space.f_blocks * space.f_frsize)}"
    if free < LEAST_DISK:
        return [Finding("disk", "bad", text, "make room, or point FLUXTUI_HOME at a larger disk")]
    return [Finding("disk", "good", text)]


def _memory() -> list[Finding]:
    """What this process may use: a container's limit counts where it is below the machine's memory."""
    from fluxtui.gpu import host_gauges
    from fluxtui.gpu.host import machine_memory

    gauges = host_gauges()
    total, used = gauges.memory_total, gauges.memory_used
    text = f"{size(total - used)} free of {size(total)}"
    if total < machine_memory(Path("/proc/meminfo"))[1]:
        text += ", this container's limit"
    if total < LEAST_MEMORY:
        return [Finding("memory", "bad", text, "take a machine, or a container limit, of 4 GiB and more")]
    if total < FLUX1_MEMORY:
        fix = "enough for the demo; FLUX.1 wants 16 GiB of host memory and more beside the GPU"
        return [Finding("memory", "note", text, fix)]
    return [Finding("memory", "good", text)]


def _shared_memory() -> list[Finding]:
    try:
        space = os.statvfs("/dev/shm")
    except OSError as error:
        return [Finding("/dev/shm", "note", f"not there ({error.strerror})", "keep hardware.workers at 0")]
    free = space.f_bavail * space.f_frsize
    if free < LEAST_SHM:
        fix = "keep hardware.workers at 0, or start the container with --shm-size=1g"
        return [Finding("/dev/shm", "note", f"{size(free)} free", fix)]
    return [Finding("/dev/shm", "good", f"{size(free)} free")]


def _gpus() -> list[Finding]:
    from fluxtui.gpu.visible import ORDER, VISIBLE, uncertain

    seen = _driver()
    if not seen.devices:
        fix = "without a GPU the CPU trains: enough for the demo, not for FLUX.1"
        return [Finding("GPU", "note", clean(seen.why or "none", 300), fix)]
    found = [_gpu(gpu) for gpu in seen.devices]
    if seen.why:    # one of several is ill
        found.append(Finding("GPU", "bad", clean(seen.why, 300), "what the sentence says; fluxtui trains on the others"))
    if words := uncertain(seen.devices, os.environ):
        found.append(Finding(VISIBLE, "bad", clean(words, 400), f"{ORDER}=PCI_BUS_ID, or UUIDs"))
    return found


def _gpu(gpu: Gpu) -> Finding:
    """A card that others fill is a note: the keeper does not know their plans."""
    total, used = gpu.memory_total or 0, gpu.memory_used or 0
    text = f"{gpu.name}, {size(total)}, {gpu.uuid}"
    if total and used > total // 4:
        fix = "another program holds it: nvidia-smi names it"
        return Finding(f"GPU {gpu.index}", "note", f"{text}, {size(used)} in use", fix)
    return Finding(f"GPU {gpu.index}", "good", text)


@lru_cache(maxsize=1)
def _driver() -> Gpus:
    from fluxtui.gpu import list_gpus

    return list_gpus()


def _torch() -> list[Finding]:
    """What torch says, in a process of its own: it takes seconds to load, and a broken one takes its process with it."""
    from fluxtui.control.engine import last_object

    try:
        code, said, last = last_object("machine", ["--gpus", str(len(_driver().devices))])
        found = msgspec.convert((said or {}).get("findings", []), list[Finding])
    except (FluxTUIError, msgspec.ValidationError) as error:
        return [Finding("torch", "bad", clean(str(error), 300), "install FluxTUI again: make install")]
    if code or not found:
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        told = f"it ended {how} while it was loaded{f': {clean(last, 200)}' if last else ''}"
        return [Finding("torch", "bad", told, "install torch again, one for this machine's CUDA")]
    return [msgspec.structs.replace(one, found=clean(one.found, 400)) for one in found]


def _models() -> list[Finding]:
    """The folders of models in config.toml are there."""
    from fluxtui.persist.models.search import model_folders

    try:
        home = Home.open()
    except (FluxTUIError, OSError):
        return []  # told of the home
    try:
        folders = model_folders(home)[:-1]
    except (FluxTUIError, OSError) as error:
        return [Finding("models", "bad", clean(str(error), 300), "fix config.toml")]
    lost = [str(folder) for folder in folders if not folder.is_dir()]
    if lost:
        return [Finding("models", "note", f"{clean(', '.join(lost), 300)} is not there", "fix [models] folders in config.toml")]
    return [Finding("models", "good", f"{len(folders)} folders of models in config.toml")] if folders else []


def _processor() -> list[Finding]:
    cores = len(os.sched_getaffinity(0))
    return [Finding("processor", "good" if cores > 1 else "note", f"{cores} cores for us, {platform.machine()}")]


def _files() -> list[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        if most > soft:
            return [Finding("open files", "bad", f"at most {soft}", f"ulimit -n {most}")]
        remedy = "raise the hard limit: nofile in /etc/security/limits.conf, or docker run --ulimit nofile=4096"
        return [Finding("open files", "bad", f"at most {soft}, and no shell of yours may raise it", remedy)]
    return [Finding("open files", "good", f"at most {soft}")]


def _terminal() -> list[Finding]:
    found = []
    if os.environ.get("TMUX"):
        found.append(Finding("tmux", "good", "this is a tmux"))
    elif shutil.which("tmux"):
        found.append(Finding("tmux", "good", "installed; training outlives the terminal with or without it"))
    else:
        found.append(Finding("tmux", "note", "not installed", "not needed for training; handy for coming back to a screen"))
    encoding = (sys.stdout.encoding or "").lower()
    if encoding.replace("-", "") != "utf8":
        fix = "export LANG=C.UTF-8 for glyphs and curves"
        found.append(Finding("terminal", "note", f"encoding {encoding or 'unknown'}", fix))
    return found


def _network() -> list[Finding]:
    """Only what is set, never a value: a token is in no output of ours."""
    set_here = [name for name in ("HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "HTTPS_PROXY") if os.environ.get(name)]
    with contextlib.suppress(OSError, RuntimeError):
        if (expanded("~") / ".cache" / "huggingface" / "token").is_file():
            set_here.append("the hub's own login")
    told = f"set: {', '.join(set_here)}" if set_here else "no token and no login; open models need none"
    return [Finding("hub", "good", told)]
