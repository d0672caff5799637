"""One picture, examined as the trainer would read it; and many of them, on all cores. PIL, no torch.

A picture is examined in a process of a pool: a decoder that crashes on a hostile file ends that process, and the file is named.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fluxtui.engine.trainer.check.likeness import Look, look_of
from fluxtui.engine.trainer.data.image import Header, decode, header_of, read_header, read_regular
from fluxtui.engine.trainer.refusal import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found in one file. Without `header`, `error` says why the trainer cannot use it."""

    name: str
    header: Header | None
    error: str = ""
    kind: str = ""              # what the error is filed under
    sha256: str = ""            # "" where only the header was read
    look: Look | None = None


def examine(path: Path, name: str, headers_only: bool) -> Examined:
    """The header of a picture and, unless `headers_only`, the whole of it, decoded."""
    try:
        if headers_only:
            return _still(Examined(name, read_header(path)))
        data = read_regular(path)
        header = header_of(io.BytesIO(data), name)
        picture = decode(data, name)
        return Examined(name, header, sha256=sha256(data).hexdigest(), look=look_of(picture))
    except DataError as error:
        return Examined(name, None, str(error), error.kind)


def examine_all(files: Iterable[tuple[Path, str]], processes: int, headers_only: bool, progress: Progress) -> list[Examined]:
    """Every (path, name), in their order, on `processes` cores. `progress` gets (done, of)."""
    tasks = list(files)
    found: dict[int, Examined] = {}
    rest = _in_a_pool(tasks, list(range(len(tasks))), processes, headers_only, found, progress)
    for number in rest:         # the pool broke on one of these: each by itself now, so that it can be told which
        if _in_a_pool(tasks, [number], 1, headers_only, found, progress):
            name = tasks[number][1]
            error = f"{name} makes the image decoder crash; replace or remove it"
            found[number] = Examined(name, None, error, "crash")
            progress(len(found), len(tasks))
    return [found[number] for number in range(len(tasks))]


def _in_a_pool(
    tasks: list[tuple[Path, str]], numbers: list[int], processes: int, headers_only: bool, found: dict[int, Examined],
    progress: Progress,
) -> list[int]:  # fmt: skip
    """Fills `found`; gives back the numbers that a broken pool left undone."""
    if not numbers:
        return []
    context = multiprocessing.get_context("forkserver")
    chunk = 64 if headers_only else 4
    with ProcessPoolExecutor(min(processes, len(numbers)), context) as pool:
        parts = [numbers[start : start + chunk] for start in range(0, len(numbers), chunk)] if len(numbers) > chunk else [numbers]
        futures: dict[Future[list[Examined]], list[int]] = {
            pool.submit(_examine_some, [tasks[number] for number in part], headers_only): part for part in parts
        }
        for future in as_completed(futures):
            try:
                found.update(zip(futures[future], future.result(), strict=True))
            except BrokenProcessPool:
                continue
            progress(len(found), len(tasks))
    return [number for number in numbers if number not in found]


def _examine_some(tasks: list[tuple[Path, str]], headers_only: bool) -> list[Examined]:
    return [examine(path, name, headers_only) for path, name in tasks]


def _still(examined: Examined) -> Examined:
    """As decoding would refuse it: an animation is known by its header."""
    assert examined.header is not None
    if examined.header.frames == 1:
        return examined
    error = f"{examined.name} has {examined.header.frames} frames; save the one to train on as a picture of its own"
    return Examined(examined.name, None, error, "animated")
