"""How quick the front is: `fluxtui ls` beside the bare interpreter; a keeper's memory. The terminal UI: `bench/ui.py`.

python bench/front.py [--runs N]
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from _clock import row, side_by_side

from fluxtui.persist.files import toml
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import Phase, Proof, Record
from fluxtui.persist.settings import defaults, recipe

LS_LIMIT = 0.3  # seconds
KEEPER_LIMIT = 40.0  # MB
FLUXTUI = str(Path(sys.executable).with_name("fluxtui"))


def fabricate(root: Path, sessions: int) -> None:
    """A home of finished sessions, made by the product's own writers."""
    home = Home.open(root)
    now = datetime.datetime.now(datetime.UTC)
    for number in range(sessions):
        name = f"session-{number:04d}"
        folder = home.session(name)
        folder.create()
        recipe.save_spec(folder.spec_file, defaults.new_spec(name, "pico", "demo", "pico", 16, "", {}))
        spec = recipe.load_spec(folder.spec_file)
        folder.product.write_bytes(b"0" * 100)
        facts = folder.product.stat()
        record = Record(
            session_id=spec.id, attempt=1, nonce="n", status="completed", phase=Phase.PROVE, step=400, steps=400, loss=0.1,
            step_seconds=0.1, exit_code=0, queued_at=now, started_at=now, finished_at=now, beat_at=now, host="bench", boot_id="b",
            run_id="r", recipe_sha256=recipe.recipe_sha256(spec), output=str(folder.product),
            proof=Proof(
                ok=True, file=str(folder.product), size=100, sha256="0" * 64, tensors_sha256="0" * 64,
                mtime_ns=facts.st_mtime_ns, ctime_ns=facts.st_ctime_ns,
            ),
        )  # fmt: skip
        toml.write(folder.attempt_file(1), record)


def list_sessions(runs: int) -> bool:
    """Whether the limit holds for 20 sessions; a thousand are held to theirs in CPU seconds, by a test."""
    holds = True
    for sessions in (20, 1000):
        with tempfile.TemporaryDirectory() as folder:
            fabricate(Path(folder), sessions)
            environment = {**os.environ, "FLUXTUI_HOME": folder}
            names = {
                "python -c pass": [sys.executable, "-c", "pass"],
                f"fluxtui ls --json, {sessions} sessions": [FLUXTUI, "ls", "--json"],
            }
            for name, values in side_by_side(names, runs, environment).items():
                limit = LS_LIMIT if sessions == 20 and not name.startswith("python") else None
                print(row(name, values, limit))
                holds &= limit is None or statistics.median(values) <= limit
    return holds


def keeper_memory() -> bool:
    """Resident memory of a keeper while the pico model trains; whether the limit holds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "FLUXTUI_HOME": folder}
        subprocess.run([FLUXTUI, "new", "watched", "--model", "pico", "--dataset", "demo"], env=environment, check=True, stdout=2)
        subprocess.run([FLUXTUI, "start", "watched"], env=environment, check=True, stdout=2)
        home = Home.open(Path(folder))
        seen: list[float] = []
        try:
            for _ in range(20):
                record = toml.read(home.session("watched").attempt_file(1), Record)
                assert record.keeper is not None
                seen.append(psutil.Process(record.keeper.pid).memory_full_info().rss / 1e6)
                psutil.cpu_percent(0.5)
        finally:
            subprocess.run([FLUXTUI, "kill", "watched"], env=environment, check=True, stdout=2)
            subprocess.run([FLUXTUI, "wait", "watched", "--timeout", "30"], env=environment, stdout=2, stderr=subprocess.DEVNULL)
        print(row("keeper, resident memory", seen, KEEPER_LIMIT, "MB"))
        return max(seen) <= KEEPER_LIMIT


def main() -> int:
    """0 where every limit holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    held = [list_sessions(runs), keeper_memory()]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
