"""A trainer that is killed where the environment says: `python tests/trainer/killed.py`, with KILL_AT=STEP:MICRO_STEP.

SIGKILL comes from itself, so that it comes at the same place on every machine: when STEP optimizer steps are done and
MICRO_STEP micro-batches of the next one were computed. What was committed by then is durable.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from fluxtui.engine.trainer.run import Run
    from fluxtui.engine.trainer.train import main

    step, micro_step = map(int, os.environ["KILL_AT"].split(":"))
    loads = {"step": -1, "count": 0}
    load = Run.load

    def load_or_die(run: Run, slots: Any) -> Any:
        if loads["step"] != run.state.step:
            loads.update(step=run.state.step, count=0)
        if (run.state.step, loads["count"]) == (step, micro_step):
            run.committer.settle()
            os.kill(os.getpid(), signal.SIGKILL)
        loads["count"] += 1
        return load(run, slots)

    Run.load = load_or_die  # type: ignore[method-assign]
    sys.exit(main([]))
