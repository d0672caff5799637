"""Configurations of other trainers, written and read."""

from __future__ import annotations

import json
from pathlib import Path

from fluxtui.persist.imports import configuration as importers


def imported(tmp_path: Path, name: str, **said: object) -> importers.Imported:
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps({"kohya": {"train_data_dir": "/p"}, "ai": {}}[name] | said))
    return importers.read(path)


def read_text(tmp_path: Path, name: str, text: str) -> importers.Imported:
    path = tmp_path / name
    path.write_text(text)
    return importers.read(path)
