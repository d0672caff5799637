"""What data-parallel LoRA training costs on the wire: gradient bytes a step against the time of a step. Arithmetic, no network.

    python bench/wire.py [RANK]        the tables of docs/scale.md
"""

from __future__ import annotations

import sys

# FLUX.1's default targets: sides of the adapted layers' matrices, in units of the width 3072, over 19 double and 38 single blocks
PARAMETERS_A_RANK = (36 * 19 + 17 * 38) * 3072
LINKS = (1, 10, 25, 100, 200)  # Gbit/s
USABLE = 0.8  # of the line rate: headers, and one TCP stream's share
GPUS = (2, 4, 8, 16, 32, 64)
STEPS = (("H100 512 px", 0.15), ("H100 1024 px", 0.55), ("4090 1024 px", 2.0))  # seconds at batch 1, estimates of the field
ACCUMULATION = (1, 4, 16)


def gradient_bytes(rank: int) -> int:
    """Of one all-reduce: the gradients of A and B in float32."""
    return PARAMETERS_A_RANK * rank * 4


def wire_seconds(rank: int, gpus: int, gigabits: float) -> float:
    """Of a ring all-reduce, in which each GPU sends and receives 2 (n - 1) / n of the bytes."""
    return gradient_bytes(rank) * 2 * (gpus - 1) / gpus / (gigabits * 1e9 / 8 * USABLE)


def efficiency(step: float, micro_steps: int, wire: float) -> float:
    """Share of the time that is computed in: nothing overlaps the all-reduce, which follows the last micro-step."""
    return step * micro_steps / (step * micro_steps + wire)


def main() -> None:
    rank = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    print(f"rank {rank}: {gradient_bytes(rank) / 1e6:.0f} MB a step\n")
    print("| Gbit/s | " + " | ".join(f"{gpus} GPUs" for gpus in GPUS) + " |\n|" + " --- |" * (len(GPUS) + 1))
    for link in LINKS:
        print(f"| {link} | " + " | ".join(f"{wire_seconds(rank, gpus, link):.3f} s" for gpus in GPUS) + " |")
    for name, step in STEPS:
        print(f"\n{name}, {step} s a micro-step\n")
        print("| Gbit/s | " + " | ".join(f"{gpus} GPUs" for gpus in GPUS) + " |\n|" + " --- |" * (len(GPUS) + 1))
        for link in LINKS:
            cells = [
                " / ".join(f"{efficiency(step, micro, wire_seconds(rank, gpus, link)):.0%}" for micro in ACCUMULATION)
                for gpus in GPUS
            ]
            print(f"| {link} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
