"""Sample prompts in a file of their own, given by hand or named by a configuration: kohya's lines, or tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fluxtui.persist.errors import FluxTUIError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.settings import keys, prompts

_LIMIT = 1 << 20  # bytes of a file of prompts
_ENDINGS = (".txt", ".json", ".toml")


def read_file(path: Path) -> tuple[list[str], list[str]]:
    """The prompts of a file, for `sample.prompts`, and a sentence for each that lost options which are not known here.

    Blank lines and those that begin with # are left out.
    Raises `NotFoundError`, `StorageError`, or `UsageError`, naming the line, where one does not fit.
    """
    found: list[str] = []
    left = []
    for number, line in enumerate(_lines(path), start=1):
        if not line or line.startswith("#"):
            continue
        known = prompts.without_unknown(line)
        if known != line:
            told = f"it is {keys.show(known)} here, behind a prompt stand {prompts.KNOWN}"
            left.append(f"{clean(path.name, 100)}, line {number}: {told}")
        try:
            found += keys.check("sample.prompts", [known])
        except UsageError as error:
            raise UsageError(f"In {clean(str(path), 300)}, line {number}: {error}") from None
    if not found:
        raise UsageError(f"{clean(str(path), 300)} holds no prompt; write one a line.")
    return list(keys.check("sample.prompts", found)), left


def read_named(value: object, beside: Path) -> object:
    """What a configuration says of its prompts; of a file's name, what stands in it (`UsageError` where it cannot be read)."""
    if not isinstance(value, str) or "\n" in value or not value.lower().endswith(_ENDINGS):
        return value
    path = beside / expanded(value)
    try:
        return _lines(path)
    except FluxTUIError as error:
        raise UsageError(f"{str(error).rstrip('.')}; give the prompts with --prompts FILE") from error


def _lines(path: Path) -> list[str]:
    data = toml.read_bytes(path, _LIMIT, follow_links=True)
    if path.suffix.lower() == ".txt":
        return [line.strip() for line in data.decode("utf-8-sig", "replace").splitlines()]
    try:
        document: Any = json.loads(data) if path.suffix.lower() == ".json" else toml.parse(data, path)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {clean(str(error), 200)}.") from error
    if isinstance(document, dict):  # sd-scripts' TOML: what all have in common, and the prompts
        common = {name: value for name, value in (document.get("prompt") or {}).items() if name != "subset"}
        document = [{**common, **one} for one in (document.get("prompt") or {}).get("subset") or []]
    if not isinstance(document, list):
        raise UsageError(f"{path} holds no list of prompts.")
    return [prompts.line_of(one) for one in document]
