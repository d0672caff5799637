"""The spec of a session: what `session.toml` holds, and the one schema behind form, checks, `--set` and docs.

A spec is complete: `fluxtui new` fills every field, from the defaults of the model's kind (`defaults.py`) and what
the user set, and writes it once. The *recipe* (model, dataset, lora, train, validate) decides what is trained; its
hash stands in every record and checkpoint. The other tables may change from attempt to attempt.

A default here is what a spec without the key means, and is never changed: the hash leaves out what equals it, so that
a key added later does not change the hash of specs written before. What is recommended stands in `defaults.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

RECIPE_TABLES = ("model", "dataset", "lora", "train", "validate")

Precision = Literal["auto", "bf16", "fp32", "int8", "fp8", "nf4"]
MemoryPreset = Literal["auto", "8GB", "10GB", "12GB", "16GB", "24GB", "32GB", "48GB", "80GB"]
TimestepSampling = Literal["uniform", "sigmoid", "flux_shift", "shift", "logit_normal", "uniform_shift", "uniform_flux_shift"]
Optimizer = Literal["adamw", "adamw8bit", "adafactor", "lion", "prodigy", "schedule_free"]
AdapterKind = Literal["lora", "dora", "lokr"]
Loss = Literal["mse", "l1", "huber", "pseudo_huber"]
LossWeighting = Literal["none", "sigma_sqrt", "cosmap", "bell"]
Scheduler = Literal[
    "constant_with_decay", "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
]

Seconds = Annotated[float, Meta(ge=0.0, description="seconds; 0 means never kill, amber still shows")]


class Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the spec: frozen, and an unknown key is an error."""


class ModelSpec(Table, frozen=True):
    """Which FLUX.1 pipeline is adapted."""

    source: Annotated[
        str, Meta(min_length=1, description="'pico', a hub id, a folder in diffusers layout, or single files (docs/models.md)")
    ]
    revision: Annotated[str, Meta(description="hub commit, tag or branch; empty: the newest, fixed at the first attempt")] = ""
    base: Annotated[
        str,
        Meta(
            max_length=4096,
            description="FLUX.1 that gives a hub id which is a transformer alone its encoders and VAE; empty: FLUX.1-dev",
        ),
    ] = ""
    precision: Annotated[
        Precision, Meta(description="of the frozen base; auto: fp32 on the CPU, else by hardware.preset: bf16 or int8")
    ] = "auto"
    start_from: Annotated[
        str,
        Meta(
            pattern=r"^$|^[a-z0-9][a-z0-9._-]{0,63}/step-[0-9]{9}$",
            examples=["other-session/step-000000480"],
            description="'SESSION/step-000000480': weights, optimizer and counters to begin with; made by new --from",
        ),
    ] = ""


class DatasetSpec(Table, frozen=True):
    """The pictures and their captions."""

    path: Annotated[str, Meta(min_length=1, description="folder of images, each with a caption of the same stem; or 'demo'")]
    folders: Annotated[
        list[Annotated[str, Meta(max_length=5000)]],
        Meta(
            max_length=256,
            description="further folders, each with keys of its own behind it: '/data/faces --repeats 5 --trigger vexo'",
        ),
    ] = field(default_factory=list)
    recursive: Annotated[bool, Meta(description="take pictures in folders inside too, each with the caption beside it")] = False
    trigger: Annotated[str, Meta(max_length=100, description="word put before captions that lack it; [trigger] in captions")] = ""
    class_word: Annotated[
        str, Meta(max_length=100, examples=["dog"], description="what the trigger is one of: the base's idea of it is kept")
    ] = ""
    resolution: Annotated[
        list[Annotated[int, Meta(ge=16, le=2048, multiple_of=16)]],
        Meta(min_length=1, max_length=8, description="pixels; the area of a bucket is at most this squared"),
    ] = field(default_factory=lambda: [512, 768, 1024])
    bucket_step: Annotated[
        int,
        Meta(ge=16, le=256, multiple_of=16, description="pixels between sides of buckets; more: fewer buckets, more crop"),
    ] = 16
    flip: Annotated[bool, Meta(description="mirror every second sample, at random; not for faces or lettering")] = False
    masks: Annotated[
        str, Meta(max_length=1000, examples=["alpha", "masks"], description="'alpha', or a folder of masks (white: trained)")
    ] = ""
    mask_outside: Annotated[float, Meta(ge=0.0, le=1.0, description="weight of the loss outside of a mask; 1 inside")] = 0.1
    repeats: Annotated[int, Meta(ge=1, le=1000, description="times an image is used in an epoch")] = 1
    regularisation: Annotated[
        str,
        Meta(max_length=200, examples=["old-*"], description="images of such names keep what the model knows: no trigger"),
    ] = ""
    regularisation_weight: Annotated[float, Meta(ge=0.0, le=100.0, description="weight of their loss")] = 1.0
    caption_extension: Annotated[
        str, Meta(pattern=r"^\.[A-Za-z0-9_]+$", examples=[".txt"], description="extension of caption files")
    ] = ".txt"
    caption_lines: Annotated[bool, Meta(description="each line of a caption file is a caption; one is drawn")] = False
    shuffle_tags: Annotated[
        int, Meta(ge=0, le=64, description="orders that a caption of comma-separated tags is trained in, besides its own; 0: off")
    ] = 0
    keep_tags: Annotated[int, Meta(ge=0, le=1000, description="tags at the beginning that stay; a leading trigger does")] = 0
    tag_dropout: Annotated[
        float, Meta(ge=0.0, lt=1.0, description="share of the tags that each of these orders leaves out; not those that stay")
    ] = 0.0
    caption_dropout: Annotated[float, Meta(ge=0.0, le=1.0, description="share of samples trained with an empty caption")] = 0.0


class LoraSpec(Table, frozen=True):
    """The adapter."""

    kind: Annotated[
        AdapterKind, Meta(description="'dora': rows' lengths too; 'lokr': Kronecker products; recipes.md: what reads them")
    ] = "lora"
    rank: Annotated[int, Meta(ge=1, le=1024, description="rank of every adapted layer")] = 16
    alpha: Annotated[float, Meta(gt=0.0, le=4096.0, description="scale of the update is alpha / rank")] = 16.0
    layers: Annotated[
        list[Annotated[str, Meta(max_length=400)]],
        Meta(max_length=32, description="other ranks: 'PATTERN=RANK' or 'PATTERN=RANK/ALPHA'; the first that matches counts"),
    ] = field(default_factory=list)
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0, description="dropout on the input of the adapter")] = 0.0
    rank_dropout: Annotated[float, Meta(ge=0.0, lt=1.0, description="share of a layer's ranks that a sample leaves out")] = 0.0
    module_dropout: Annotated[float, Meta(ge=0.0, lt=1.0, description="share of the layers that a sample leaves out")] = 0.0
    max_norm: Annotated[
        float, Meta(ge=0.0, le=1e6, description="longest that a layer's update (B A, scaled) may become; 0: any. 1 is usual")
    ] = 0.0
    targets: Annotated[
        str,
        Meta(
            min_length=1,
            description="'attention+mlp', 'attention', 'all', 'single', or a regular expression over module names",
        ),
    ] = "attention+mlp"
    lokr_factor: Annotated[
        int, Meta(ge=-1, le=4096, description="side of 'lokr's smaller factor at the most; -1: near the root of the layer's")
    ] = -1
    rslora: Annotated[bool, Meta(description="scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA)")] = False
    weights: Annotated[
        str, Meta(max_length=4096, description="a LoRA file to begin with, in diffusers', kohya's or ComfyUI's names")
    ] = ""


class TrainSpec(Table, frozen=True):
    """The optimisation."""

    epochs: Annotated[int, Meta(ge=1, le=1_000_000, description="passes over the data; unused where steps is given")] = 16
    steps: Annotated[int, Meta(ge=0, le=10_000_000, description="optimizer steps; wins over epochs; 0: by epochs")] = 0
    batch_size: Annotated[int, Meta(ge=1, le=1024, description="samples a micro-step and rank")] = 1
    gradient_accumulation: Annotated[int, Meta(ge=1, le=1024, description="micro-steps an optimizer step")] = 1
    learning_rate: Annotated[float, Meta(gt=0.0, le=1e9, description="peak learning rate")] = 1e-4
    weight_decay: Annotated[float, Meta(ge=0.0, le=1.0, description="AdamW's decoupled weight decay")] = 0.01
    clip_learning_rate: Annotated[
        float, Meta(ge=0.0, le=1e9, description="peak rate of a LoRA on CLIP, the small text encoder; 0: CLIP stays as it is")
    ] = 0.0
    preservation_weight: Annotated[
        float, Meta(ge=0.0, le=100.0, description="weight of the loss that keeps dataset.class_word as the base draws it")
    ] = 1.0
    optimizer: Annotated[
        Optimizer, Meta(description="each has a rate of its own, which it brings where you set none (docs/recipes.md)")
    ] = "adamw"
    betas: Annotated[
        list[Annotated[float, Meta(ge=0.0, lt=1.0)]],
        Meta(max_length=2, description="how long it remembers the gradient and its square; []: the optimizer's own"),
    ] = field(default_factory=list)
    eps: Annotated[
        float, Meta(ge=0.0, le=1.0, description="what the optimizer adds where it divides; 0: the optimizer's own")
    ] = 0.0
    d_coef: Annotated[float, Meta(gt=0.0, le=100.0, description="times the rate that prodigy finds; 0.5 to 2")] = 1.0
    lora_plus: Annotated[
        float, Meta(gt=0.0, le=1000.0, description="times the rate, for B alone (LoRA+); 1: A and B alike, 16: its authors'")
    ] = 1.0
    scheduler: Annotated[Scheduler, Meta(description="learning-rate schedule")] = "constant_with_decay"
    scheduler_cycles: Annotated[
        int, Meta(ge=1, le=1000, description="times that 'cosine_with_restarts' falls from the peak to 0; 1: as 'cosine'")
    ] = 1
    warmup_steps: Annotated[int, Meta(ge=0, le=1_000_000, description="optimizer steps of linear warm-up")] = 50
    decay_share: Annotated[
        float, Meta(ge=0.0, le=1.0, description="last share of the run that decays to 0 (constant_with_decay)")
    ] = 0.2
    max_grad_norm: Annotated[float, Meta(ge=0.0, le=1e9, description="gradient clipping; 0: off")] = 1.0
    loss: Annotated[Loss, Meta(description="what an error of the velocity costs")] = "mse"
    loss_delta: Annotated[
        float, Meta(gt=0.0, le=100.0, description="error above which 'huber' and 'pseudo_huber' grow slowly")
    ] = 0.1
    loss_weighting: Annotated[
        LossWeighting, Meta(description="of a sample's loss by its sigma (recipes.md has the formulas); 'none': FLUX.1's own")
    ] = "none"
    ema_decay: Annotated[
        float, Meta(ge=0.0, lt=1.0, description="averaged weights beside the raw ones (export --ema); 0: none")
    ] = 0.0
    timestep_sampling: Annotated[TimestepSampling, Meta(description="distribution of sigma")] = "flux_shift"
    timestep_shift: Annotated[
        float, Meta(gt=0.0, le=1000.0, description="S of timestep_sampling = 'shift' and 'uniform_shift'; 1: none, 3: more noise")
    ] = 3.0
    timestep_mean: Annotated[float, Meta(ge=-10.0, le=10.0, description="mean of 'logit_normal'; above 0: more noise")] = 0.0
    timestep_std: Annotated[float, Meta(gt=0.0, le=10.0, description="standard deviation of 'logit_normal'")] = 1.0
    timestep_min: Annotated[float, Meta(ge=0.0, lt=1.0, description="least noise trained at: sigma, 0 is the picture")] = 0.0
    timestep_max: Annotated[float, Meta(gt=0.0, le=1.0, description="most noise trained at: sigma, 1 is noise alone")] = 1.0
    guidance: Annotated[
        float, Meta(ge=0.0, le=100.0, description="guidance given to guidance-distilled models in training")
    ] = 1.0
    gradient_checkpointing: Annotated[
        bool, Meta(description="recompute activations by block: less memory, a third slower")
    ] = True
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1, description="seed of every random number of the run")] = 42


class CheckpointSpec(Table, frozen=True):
    """When the state is committed to disk."""

    every_epochs: Annotated[int, Meta(ge=0, le=1_000_000, description="0: never by epochs")] = 4
    every_steps: Annotated[int, Meta(ge=0, le=10_000_000, description="0: never by steps")] = 0
    every_minutes: Annotated[float, Meta(ge=0.0, le=100_000.0, description="0: never by time")] = 30.0
    keep: Annotated[int, Meta(ge=2, le=10_000, description="checkpoints kept, newest first")] = 4


class SampleSpec(Table, frozen=True):
    """Pictures drawn along the way."""

    prompts: Annotated[
        list[Annotated[str, Meta(max_length=4000)]],
        Meta(max_length=64, description="[trigger] is replaced; of its own size and seed: 'TEXT --w 768 --h 512 --d 7'"),
    ] = field(default_factory=list)
    every_epochs: Annotated[int, Meta(ge=0, le=1_000_000, description="0: never by epochs")] = 4
    every_steps: Annotated[int, Meta(ge=0, le=10_000_000, description="0: never by steps")] = 0
    at_start: Annotated[bool, Meta(description="draw before the first step")] = True
    steps: Annotated[int, Meta(ge=1, le=1000, description="denoising steps")] = 20
    guidance: Annotated[float, Meta(ge=0.0, le=100.0, description="guidance given to guidance-distilled models")] = 3.5
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1, description="seed of the first prompt; the next prompts count up")] = 42
    width: Annotated[int, Meta(ge=16, le=4096, multiple_of=16, description="pixels")] = 1024
    height: Annotated[int, Meta(ge=16, le=4096, multiple_of=16, description="pixels")] = 1024
    tensorboard: Annotated[bool, Meta(description="TensorBoard events too; needs pip install 'fluxtui[tensorboard]'")] = False


class ValidateSpec(Table, frozen=True):
    """Held-out loss."""

    images: Annotated[int, Meta(ge=0, le=10_000, description="images held out of training; 0: none")] = 0
    every_epochs: Annotated[int, Meta(ge=0, le=1_000_000, description="0: never")] = 4


class GuardSpec(Table, frozen=True):
    """Floors of the time-outs (seconds) and what happens after one fires. See docs/guards.md."""

    start: Seconds = 300.0
    load: Seconds = 600.0
    download: Seconds = 300.0
    encode: Seconds = 300.0
    batch: Seconds = 300.0
    worker_batch: Seconds = 60.0
    file_read: Seconds = 30.0
    block_swap: Seconds = 30.0
    first_steps: Seconds = 1800.0
    step: Seconds = 300.0
    checkpoint: Seconds = 600.0
    sample: Seconds = 600.0
    prove: Seconds = 600.0
    node: Seconds = 120.0
    stop: Annotated[float, Meta(ge=1.0, description="seconds a stop may take at the least")] = 60.0
    grace: Annotated[float, Meta(ge=0.1, le=600.0, description="seconds between SIGTERM and SIGKILL of a stalled trainer")] = 10.0
    auto_resume: Annotated[bool, Meta(description="retry from the last verified checkpoint after a hang or crash")] = True
    max_auto_resumes: Annotated[int, Meta(ge=0, le=100, description="retries without a new checkpoint")] = 3
    retry_delay: Annotated[float, Meta(ge=0.0, le=3600.0, description="seconds before the first retry; doubles with each")] = 5.0


class HardwareSpec(Table, frozen=True):
    """Where it runs."""

    gpus: Annotated[
        Literal["auto", "all"] | list[int | str],
        Meta(description="'auto' (one free GPU, or the CPU), 'all' that are visible, indices or UUIDs; []: the CPU"),
    ] = "auto"
    workers: Annotated[int, Meta(ge=0, le=64, description="data worker processes")] = 0
    ranks: Annotated[
        int, Meta(ge=1, le=64, description="trainer processes where there is no GPU (gloo); GPUs set it otherwise")
    ] = 1
    nodes: Annotated[int, Meta(ge=1, le=64, description="machines that train one session together (docs/scale.md)")] = 1
    rendezvous: Annotated[
        str, Meta(max_length=300, examples=["10.0.0.1:29500"], description="HOST or HOST:PORT of node 0; empty: its own")
    ] = ""
    preset: Annotated[
        MemoryPreset, Meta(description="decides what precision = 'auto' and stream_blocks = -1 mean; auto: by the GPU's memory")
    ] = "auto"
    stream_blocks: Annotated[
        int,
        Meta(ge=-1, le=1000, description="last blocks of the base that lie in host memory and come in when used; -1: by preset"),
    ] = -1
    check_memory: Annotated[
        bool, Meta(description="a session whose plan does not fit the GPU is refused before anything is loaded")
    ] = True
    deterministic: Annotated[
        bool,
        Meta(description="steps on a GPU are the same each time; false: perhaps faster, and no resume is exact by bytes"),
    ] = True
    compile: Annotated[bool, Meta(description="torch.compile of the repeated blocks: faster after minutes of compiling")] = False
    threads: Annotated[
        int, Meta(ge=0, le=1024, description="CPU threads of a rank; 0: all cores, fixed by the first attempt")
    ] = 0


class Spec(Table, frozen=True, kw_only=True):
    """A whole session: who it is, what it trains, how it is watched."""

    name: str
    id: Annotated[str, Meta(description="unique id of the session, made by `fluxtui new`")]
    title: Annotated[str, Meta(max_length=200)] = ""
    kind: Annotated[Literal["pico", "flux1"], Meta(description="whose defaults filled this spec")] = "flux1"
    model: ModelSpec
    dataset: DatasetSpec
    lora: LoraSpec = field(default_factory=LoraSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    checkpoint: CheckpointSpec = field(default_factory=CheckpointSpec)
    sample: SampleSpec = field(default_factory=SampleSpec)
    validate: ValidateSpec = field(default_factory=ValidateSpec)
    guard: GuardSpec = field(default_factory=GuardSpec)
    hardware: HardwareSpec = field(default_factory=HardwareSpec)
