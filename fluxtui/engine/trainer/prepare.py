"""From a job to a run: model, caches, transformer, adapter, optimizer, checkpoint; each thing loaded when it is needed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from fluxtui import __version__
from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.family.flux1.targets import target_names
from fluxtui.engine.family.flux1.transformer import velocity
from fluxtui.engine.life import StopFlag
from fluxtui.engine.memory.base import check_float32, load_base, ready_blocks
from fluxtui.engine.memory.preflight import look_again, look_ahead
from fluxtui.engine.trainer import optim, runtime
from fluxtui.engine.trainer.adapter.clip import Clip, load_clip
from fluxtui.engine.trainer.adapter.ema import Ema
from fluxtui.engine.trainer.adapter.lora import Adapter, add_lora
from fluxtui.engine.trainer.checkpoint import committer as checkpoints
from fluxtui.engine.trainer.checkpoint.committer import Committer
from fluxtui.engine.trainer.checkpoint.resume import resume
from fluxtui.engine.trainer.checkpoint.state import LoopState
from fluxtui.engine.trainer.data.dataset import Dataset, steps_per_epoch
from fluxtui.engine.trainer.data.encode import fill_caches
from fluxtui.engine.trainer.events import Events
from fluxtui.engine.trainer.interludes import Interludes
from fluxtui.engine.trainer.objective import penalty_of
from fluxtui.engine.trainer.rank_agreement import must_agree_with_rank_0
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.requests import Requests
from fluxtui.engine.trainer.run import Run
from fluxtui.engine.trainer.runtime import Runtime, free_on
from fluxtui.engine.trainer.sample import Painter, Prompt
from fluxtui.engine.trainer.source import open_model
from fluxtui.engine.wire import TrainJob
from fluxtui.persist import metrics
from fluxtui.persist.errors import UsageError
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings.compatibility import only_read_by
from fluxtui.persist.settings.prompts import prompts_of
from fluxtui.persist.settings.spec import Spec, TrainSpec

_FULL = 0.7  # of the places in a step: below, several GPUs are too many for a data set


def prepare(job: TrainJob, folder: SessionFolder, dataset: Dataset, reporter: Reporter, signals: StopFlag) -> Run:
    """Everything that the loop works with. Encoders and transformer are never in memory together."""
    spec = job.spec
    reporter.progress(Phase.LOAD, versions=checkpoints.versions() | {"fluxtui": __version__})
    here = runtime.begin(job)
    requests = Requests.from_environment(signals, here)
    reporter.leave_early = requests.leave_early
    components = _open_components(job, folder, here, reporter)
    digest = checkpoints.dataset_digest(dataset.fingerprint)
    must_agree = partial(must_agree_with_rank_0, here, (digest, dataset.fingerprint), folder.dataset_file)
    must_agree({"the model": components.model_key, "FluxTUI": __version__} | checkpoints.versions())
    asked = prompts_of(spec.sample, spec.dataset.trigger)
    encoded = fill_caches(dataset, spec, components, reporter, here, Home(Path(job.home)).cache, [one.text for one in asked])

    transformer, weights = load_base(components, spec, here, partial(_loaded, reporter), reporter.say)
    must_agree({"the base's weights": weights})
    adapter, clip = _add_adapters(spec, transformer, components, here, reporter)
    optimizer, groups = _new_optimizer(spec, adapter, clip)
    named = {name: parameter for group in groups for name, parameter in group.named.items()}  # in the optimizer's order
    per_epoch = steps_per_epoch(dataset, spec.train, here.ranks)
    steps = spec.train.steps or spec.train.epochs * per_epoch
    if here.is_first and (doubt := optim.too_long_a_warmup(spec.train, steps)):
        reporter.say(f"warning: {doubt}")
    if here.is_first and (thin := _thin_batches(dataset, spec.train, here.ranks, per_epoch)):
        reporter.say(f"warning: {thin}")
    if here.is_first and (told := only_read_by(spec)):
        reporter.say(f"warning: {told}")

    ema = Ema(spec.train.ema_decay, named, partial(optim.evaluated, optimizer, [*named.values()]))
    committer = Committer(job, folder, reporter, here, digest, components.model_key, weights, named, optimizer, ema)
    state = resume(committer, [adapter, clip.adapter] if clip else [adapter])
    check_float32([*named.values()], optimizer)
    _place_in_plan(state, spec, steps, per_epoch)
    reporter.leave_early = None
    guidance = spec.train.guidance if components.guidance_embeds else None
    prompts = [Prompt(one, *(tensor.unsqueeze(0) for tensor in encoded.prompt(one.text))) for one in asked]
    return Run(
        job=job,
        folder=folder,
        reporter=reporter,
        runtime=here,
        requests=requests,
        components=components,
        dataset=dataset,
        encoded=encoded,
        adapter=adapter,
        clip=clip,
        parameters=[*named.values()],
        predict=partial(velocity, transformer, guidance=guidance, dtype=here.dtype),
        penalty=penalty_of(spec.train),
        optimizer=optimizer,
        ema=ema,
        rate=optim.schedule(spec.train, steps),
        shares=tuple(group.share for group in groups),
        steps=steps,
        steps_per_epoch=per_epoch,
        state=state,
        committer=committer,
        painter=Painter(components, transformer, prompts, folder.samples, reporter, clip),
        interludes=Interludes(spec, steps, per_epoch),
        metrics_fd=metrics.open_append(folder.metrics_file) if here.is_first else -1,
        events=Events(folder.path / "tensorboard", state.step, reporter) if spec.sample.tensorboard and here.is_first else None,
    )


def _open_components(job: TrainJob, folder: SessionFolder, here: Runtime, reporter: Reporter) -> Components:
    """The pipeline's parts on this disk, fetched if need be. Raises `Refusal` where they would not fit, before any are loaded."""
    spec, home = job.spec, Home(Path(job.home))
    ranks = max(1, len(job.devices))  # that share this machine's memory
    free = free_on(here.device)
    planned = look_ahead(spec, home, folder, here.card, ranks, reporter.note, free) if here.is_first else None
    components = open_model(spec.model, home.root, job.model_commit, reporter)
    look_again(spec, planned, components.folder, home, folder, here.card, ranks, reporter.note)
    return components


def _add_adapters(
    spec: Spec, transformer: nn.Module, components: Components, here: Runtime, reporter: Reporter
) -> tuple[Adapter, Clip | None]:
    """The adapter of the transformer, which is ready to train then, and that of CLIP where it is trained along.

    Raises `Refusal` where `lora.targets` means no layer: no resume changes it, so the remedy is a session with others.
    """
    try:
        names = target_names(transformer, spec.lora.targets)
    except UsageError as error:
        raise Refusal(str(error).rstrip("."), "set lora.targets=attention+mlp") from None
    adapter = add_lora(transformer, names, spec.lora, spec.train.seed)
    ready_blocks(transformer, components, spec, here, reporter.say)
    transformer.train()
    clip = load_clip(spec, components, here, adapter.place)
    if clip:
        reporter.note("CLIP is trained along: its pooled output is computed in every step, not taken from the caches")
    return adapter, clip


def _new_optimizer(spec: Spec, adapter: Adapter, clip: Clip | None) -> tuple[torch.optim.Optimizer, list[optim.Group]]:
    """The optimizer, and the groups of parameters that it has, each with its share of the learning rate."""
    of_clip = dict(clip.adapter.named_parameters()) if clip else None
    groups = optim.groups_of(spec.train, dict(adapter.named_parameters()), of_clip)
    return optim.new_optimizer(groups, spec.train), groups


def _thin_batches(dataset: Dataset, train: TrainSpec, ranks: int, per_epoch: int) -> str:
    """What is to be said where several GPUs find too few pictures of one shape to share; "" where they do."""
    uses, asked = sum(1 for _ in dataset.uses()), train.batch_size * train.gradient_accumulation * ranks
    if ranks == 1 or uses >= _FULL * per_epoch * asked:
        return ""
    return (
        f"a step is of one shape of pictures, and on average {uses / per_epoch:.1f} of the {asked} places in it are filled, "
        "so that GPUs stand idle: take fewer GPUs, a larger dataset.bucket_step, or more dataset.repeats"
    )


def _place_in_plan(state: LoopState, spec: Spec, steps: int, per_epoch: int) -> None:
    """The loaded state held against the plan of this attempt. Raises `Refusal` where it is beyond its last step."""
    if state.step > steps:
        why = f"{spec.name} is to end at step {steps}, and begins at step {state.step}, which the checkpoint has done already"
        raise Refusal(why, f"set train.steps={state.step + steps}")
    if state.position >= per_epoch:  # an accepted change made the epochs shorter: the next one begins
        state.epoch, state.position = state.epoch + 1, 0


def _loaded(reporter: Reporter, done: int, total: int) -> None:
    reporter.progress(Phase.LOAD, item=done, items=total, unit="bytes")
