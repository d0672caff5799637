"""TensorBoard events beside metrics.jsonl, where `sample.tensorboard` asks for them: an extra, by torch's own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.checkpoints.commit import step_name
from fluxtui.persist.files.durable import make_own_folder
from fluxtui.persist.metrics import StepMetric

_SECONDS = 10  # between two writes of what has come together
_NAMES = ("loss", "preservation_loss", "validation_loss", "learning_rate", "gradient_norm", "seconds")


class Events:
    """Writes `tensorboard/` in a session's folder. A disk that refuses ends the events, with a note, and nothing else."""

    def __init__(self, folder: Path, step: int, reporter: Reporter) -> None:
        """From `step` on: what an earlier attempt wrote beyond it is told to be undone. Raises `Refusal` without the library."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise Refusal(
                "sample.tensorboard needs tensorboard, which is not installed", "pip install 'fluxtui[tensorboard]'"
            ) from None
        make_own_folder(folder)
        self._reporter = reporter
        self._writer: Any | None = SummaryWriter(str(folder), purge_step=step + 1, flush_secs=_SECONDS)

    def step(self, metric: StepMetric) -> None:
        """The scalars of an optimizer step."""
        for name in _NAMES:
            if (value := getattr(metric, name)) is not None:
                self._write("add_scalar", f"train/{name}", value, metric.step)

    def pictures(self, samples: Path, step: int) -> None:
        """The sample pictures of a step, as they were drawn."""
        if self._writer is None:
            return
        import torch
        from PIL import Image

        for path in sorted((samples / step_name(step)).glob("*.png")):
            with Image.open(path) as picture:
                flat = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
                self._write(
                    "add_image", f"samples/{path.stem}", flat.view(picture.height, picture.width, 3), step, dataformats="HWC"
                )

    def close(self) -> None:
        """Writes what is still held. May be called twice."""
        self._write("close")
        self._writer = None

    def _write(self, what: str, *values: Any, **how: Any) -> None:  # noqa: ANN401  (whatever the writer's method takes)
        if self._writer is None:
            return
        try:
            getattr(self._writer, what)(*values, **how)
        except OSError as error:
            self._writer = None
            self._reporter.note(f"TensorBoard events could not be written, and end here: {error}")
