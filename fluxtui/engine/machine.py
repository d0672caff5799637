"""`python -m fluxtui.engine machine --gpus N`: what torch and bitsandbytes say of the cards, as one JSON line for the doctor."""

from __future__ import annotations

import argparse
import sys

import msgspec

from fluxtui.engine import cards, quiet
from fluxtui.persist.errors import ExitCode


def main(argv: list[str]) -> int:
    """Prints `{"findings": [...]}`. `--gpus`: how many GPUs the driver counts."""
    parser = argparse.ArgumentParser(prog="fluxtui.engine machine")
    parser.add_argument("--gpus", type=int, default=0)
    words = parser.parse_args(argv)
    quiet.hush()
    quiet.let("bitsandbytes")  # it is what is looked at
    try:
        findings = cards.judge(cards.look(), words.gpus)
    except (ImportError, OSError) as error:
        why = (str(error).splitlines() or [""])[0][:300]
        findings = [cards.CardFinding("torch", "bad", f"it does not load: {why}", "install FluxTUI again: make install")]
    sys.stdout.write(msgspec.json.encode({"findings": findings}).decode() + "\n")
    return int(ExitCode.DONE)
