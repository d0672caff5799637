"""A run: everything that the loop works with, and what it does besides stepping."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median

import torch
from torch import nn

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.family.flux1.lora_metadata import describe
from fluxtui.engine.family.flux1.transformer import scale_latents
from fluxtui.engine.send import send
from fluxtui.engine.trainer import claim, product
from fluxtui.engine.trainer.adapter.clip import Clip
from fluxtui.engine.trainer.adapter.ema import Ema
from fluxtui.engine.trainer.adapter.lora import Adapter
from fluxtui.engine.trainer.checkpoint.committer import Committer
from fluxtui.engine.trainer.checkpoint.state import LoopState
from fluxtui.engine.trainer.data.dataset import Batch, Dataset, Slot, plan_epoch
from fluxtui.engine.trainer.data.encoded import Encoded, LatentBatch
from fluxtui.engine.trainer.events import Events
from fluxtui.engine.trainer.interludes import Interludes
from fluxtui.engine.trainer.objective import ClassText, Penalty, Predict, Samples
from fluxtui.engine.trainer.optim import applied_rate, evaluated
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.requests import Requested, Requests, StopAsked
from fluxtui.engine.trainer.runtime import Runtime
from fluxtui.engine.trainer.sample import Painter
from fluxtui.engine.trainer.validate import validation_loss
from fluxtui.engine.wire import TrainJob
from fluxtui.persist import metrics
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Phase

_RECENT = 50  # steps that the shown loss and speed are of
_SAY_SECONDS = 2.0  # between two step lines in the log


@dataclass(frozen=True, slots=True)
class Took:
    """What an optimizer step came to."""

    loss: float  # mean over the samples of the global batch
    preservation: float | None  # of what dataset.class_word draws, weighted; None without one
    gradient_norm: float  # before clipping
    learning_rate: float  # as the optimizer applied it
    seconds: float


@dataclass(slots=True)
class Run:
    """Made once by `prepare`. Rank 0 alone writes; on the others `commit`, `draw` and `export` do nothing."""

    job: TrainJob
    folder: SessionFolder
    reporter: Reporter
    runtime: Runtime
    requests: Requests
    components: Components
    dataset: Dataset
    encoded: Encoded
    adapter: Adapter
    clip: Clip | None  # trained along, or None
    parameters: list[nn.Parameter]
    predict: Predict
    penalty: Penalty
    optimizer: torch.optim.Optimizer
    ema: Ema
    rate: Callable[[int], float]  # learning rate of a step
    shares: tuple[float, ...]  # of it, for each group of the optimizer
    steps: int  # optimizer steps planned, over all attempts
    steps_per_epoch: int
    state: LoopState
    committer: Committer
    painter: Painter
    interludes: Interludes
    metrics_fd: int
    events: Events | None  # for TensorBoard, where they are asked for
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _said_at: float = -1e9
    _planned: tuple[int, tuple[Batch, ...]] = (-1, ())
    _stream: Iterator[LatentBatch] = field(default_factory=lambda: iter(()))

    @property
    def epochs(self) -> int:
        """Epochs begun by the time the last step is done."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def epoch_end(self) -> int:
        """The step with which the epoch of the last step ends, or ended."""
        left = self.steps_per_epoch - self.state.position if self.state.position else 0
        return min(self.steps, self.state.step + left)

    def begin(self) -> None:
        """Samples and held-out loss before the first step, and the first word of training."""
        if self.state.step == 0 and self.job.spec.sample.at_start:
            self.draw()
        if self.state.step == 0:
            self._validate_at_start()
        epoch = min(self.state.epoch + 1, self.epochs)
        end = min(self.steps, self.state.step - self.state.position + self.steps_per_epoch)
        counts = {"step": self.state.step, "steps": self.steps, "epoch": epoch, "epochs": self.epochs, "epoch_end": end}
        self.reporter.progress(Phase.TRAIN, **counts)

    def is_inexact_from_now_on(self) -> None:
        """The record and every checkpoint say so from here on; a resume keeps the first such step."""
        if self.state.inexact_since is None:
            self.state.inexact_since = self.state.step
        self.reporter.progress(inexact_since=self.state.inexact_since)

    def plan(self, epoch: int) -> tuple[Batch, ...]:
        """The global batches of an epoch; from here on `load` gives its micro-batches in order, read ahead."""
        if self._planned[0] != epoch:
            batches = plan_epoch(
                self.dataset, self.job.spec.train, epoch, self.runtime.ranks, self.state.step - self.state.position
            )
            self._planned = (epoch, batches)
            size, ranks, rank = self.job.spec.train.batch_size, self.runtime.ranks, self.runtime.rank
            ahead = [
                slots for batch in batches[self.state.position :] for slots in batch.micro_batches(size, ranks, rank) if slots
            ]
            self._stream = self.encoded.batches(ahead)
        return self._planned[1]

    def load(self, slots: tuple[Slot, ...]) -> Samples:
        """The next micro-batch, on the device."""
        if self.job.spec.hardware.workers:
            self.reporter.progress(Phase.TRAIN, waiting="batch")
        batch = next(self._stream)
        if self.job.spec.hardware.workers:
            self.reporter.progress(Phase.TRAIN)
        assert batch.slots == slots
        return self.to_device(batch)

    def to_device(self, batch: LatentBatch) -> Samples:
        """Raw means to x0, everything to where it is computed."""
        device = self.runtime.device
        latents = scale_latents(send(batch.latents, device), self.components.vae_config)
        weights = None if batch.weights is None else send(batch.weights, device)
        pooled = self.clip.pooled([slot.caption for slot in batch.slots]) if self.clip else send(batch.pooled, device)
        return Samples(latents, send(batch.prompt_embeds, device), pooled, weights, self._class_text(batch))

    def _class_text(self, batch: LatentBatch) -> ClassText | None:
        if batch.class_embeds is None or batch.class_pooled is None:
            return None
        embeds = send(batch.class_embeds, self.runtime.device)
        if self.clip is None:
            pooled = send(batch.class_pooled, self.runtime.device)
            return ClassText(embeds, pooled, pooled)
        texts = [slot.class_caption or slot.caption for slot in batch.slots]
        return ClassText(embeds, self.clip.pooled(texts), self.clip.pooled(texts, is_base=True))

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The transformer's, and CLIP's where it is trained along."""
        return (self.adapter, self.clip.adapter) if self.clip else (self.adapter,)

    def predict_base(self, *inputs: torch.Tensor) -> torch.Tensor:
        """`predict` by the model as it was before training."""
        with self.adapter.off():
            return self.predict(*inputs)

    def acknowledge(self, requested: Requested) -> None:
        """The requests were carried out, or will be at the end of the epoch."""
        for request in requested.ids:
            self.reporter.progress(Phase.TRAIN, acknowledged=request)

    def record(self, took: Took, validation_loss: float | None) -> None:
        """The step that was just done: a line of metrics, a progress line, now and then a line in the log."""
        if not self.runtime.is_first:
            self.reporter.progress(Phase.TRAIN, step=self.state.step)
            return
        self._losses.append(took.loss)
        self._seconds.append(took.seconds)
        epoch = self.state.epoch + (self.state.position > 0)
        metric = metrics.StepMetric(
            attempt=self.job.attempt, step=self.state.step, epoch=epoch, loss=took.loss, learning_rate=took.learning_rate,
            gradient_norm=took.gradient_norm, seconds=took.seconds, at=datetime.now(UTC), validation_loss=validation_loss,
            preservation_loss=took.preservation,
        )  # fmt: skip
        self._measured(metric)
        speed = median(self._seconds) if len(self._seconds) > 1 else None
        counts = {"step": self.state.step, "epoch": epoch, "epoch_end": self.epoch_end}
        self.reporter.progress(Phase.TRAIN, **counts, loss=fmean(self._losses), step_seconds=speed)
        if time.monotonic() - self._said_at >= _SAY_SECONDS or self.state.step == self.steps:
            self._said_at = time.monotonic()
            self.reporter.say(
                f"step {self.state.step}/{self.steps}  epoch {epoch}/{self.epochs}  loss {fmean(self._losses):.4f}  "
                f"lr {took.learning_rate:.2e}  grad {took.gradient_norm:.3f}  {took.seconds:.3f} s"
            )

    def _measured(self, metric: metrics.StepMetric) -> None:
        metrics.append(self.metrics_fd, metric)
        if self.events:
            self.events.step(metric)

    def commit(self) -> None:
        """A checkpoint of this step, unless there is one; durable after return."""
        if self.runtime.is_first:
            self.committer.commit(self.state)
            self.committer.settle()

    def commit_if_due(self, epoch_ended: bool) -> None:
        """A checkpoint where one is due, written while training goes on; and a word of the one that was being written."""
        if not self.runtime.is_first:
            return
        self.committer.look()
        if self.committer.is_due(self.state, epoch_ended):
            self.committer.commit(self.state)

    def draw(self, is_last: bool = False) -> None:
        """The sample pictures of this step. They keep no stop waiting: pictures take minutes, and steps may not be saved yet.

        The last ones (`is_last`) come after the last checkpoint, and are drawn anew where they were cut off.
        """
        if self.runtime.is_first:
            try:
                with self.interludes.timed("samples"), evaluated(self.optimizer, self.parameters):
                    self.painter.draw(self.state.step, None if is_last else self.requests.leave_drawing)
            except StopAsked:
                self.reporter.say(f"a stop was asked: the samples of step {self.state.step} are left as they are")
            if self.events:
                self.events.pictures(self.painter.folder, self.state.step)
            self._tell_what_is_left(is_last)

    def draw_if_due(self, epoch_ended: bool) -> None:
        if self.interludes.draws(self.state.step, self.state.epoch, epoch_ended):
            self.draw()

    def validate_if_due(self, epoch_ended: bool) -> float | None:
        """The held-out loss, where this step ended an epoch that it is due after."""
        if not (self.runtime.is_first and self.interludes.validates(self.state.epoch, epoch_ended)):
            return None
        loss = self.validation_loss()
        self._tell_what_is_left()
        return loss

    def _tell_what_is_left(self, is_last: bool = False) -> None:
        """Samples and held-out losses still to come are part of the time left; known anew after each of them."""
        state = self.state
        left = 0.0 if is_last else self.interludes.seconds_left(state.step, state.epoch, state.position)
        self.reporter.progress(interlude_seconds=left)

    def _validate_at_start(self) -> None:
        """The held-out loss of what training begins with, as a line of step 0: all later ones are read against it."""
        if not (self.runtime.is_first and self.interludes.holds_out):
            return
        loss = self.validation_loss()
        self._measured(
            metrics.StepMetric(
                attempt=self.job.attempt, step=0, epoch=0, loss=None, seconds=0.0, at=datetime.now(UTC), validation_loss=loss,
                learning_rate=applied_rate(self.optimizer, self.rate(0)),
            )
        )  # fmt: skip
        self._tell_what_is_left()
        self.reporter.say(f"held-out loss before the first step: {loss:.4f}")

    def validation_loss(self) -> float:
        """The held-out loss of the weights as they are."""
        slots = self.dataset.validation_slots()
        held_out = ((slot.index, self.to_device(self.encoded.load([slot]))) for slot in slots)
        models = [adapter.model for adapter in self.adapters]
        with self.interludes.timed("validation"), evaluated(self.optimizer, self.parameters):
            return validation_loss(self.predict, models, held_out, len(slots), self.job.spec.train.seed, self.reporter)

    def finish(self) -> None:
        """The last samples, the product, and the claim."""
        self.draw(is_last=True)
        if not self.runtime.is_first:
            return
        self.reporter.progress(Phase.EXPORT, step=self.state.step)
        with evaluated(self.optimizer, self.parameters):
            tensors = product.folded(self.adapters)
        described = describe(
            self.job.spec, tensors, self.state.step,
            form="diffusers", has_guidance=bool(self.components.guidance_embeds), base=self._base(),
        )  # fmt: skip
        made = product.write_product(self.folder.product, tensors, described)
        claim.claim(self.job, self.folder, self.state.step, made)
        self.reporter.say(f"{self.folder.product.name} written: {made.size} bytes, tensors {made.tensors_sha256[:16]}")
        self.reporter.progress(Phase.EXPORT, step=self.state.step)

    def close(self) -> None:
        """Lets go of the data workers and the caches; a checkpoint that is being written is finished first."""
        try:
            self.committer.settle()
        finally:
            if self.events:
                self.events.close()
            self.encoded.close()

    def _base(self) -> str:
        """The base's name: no path of this machine goes into a file that is passed on."""
        source = self.job.spec.model.source
        name = Path(source).name if Path(source).is_absolute() else source
        return f"{name}@{self.components.commit}" if self.components.commit else name
