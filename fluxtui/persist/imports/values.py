"""One value of FluxGym's, kohya's or ai-toolkit's as the value that means the same here; or why there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.settings.prompts import KNOWN, line_of, without_unknown

Value = Any  # of somebody's JSON, TOML or YAML: of any type
Convert = Callable[[Value], object]


class CannotError(Exception):
    """Why a value cannot be carried over."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A value that is carried over as another one, and why that is."""

    value: object
    why: str


def whole(value: Value) -> int:
    number = float(value)
    if not number.is_integer():
        raise CannotError("it is no whole number")
    return int(number)


def sampled_by_steps(value: Value) -> dict[str, object]:
    """Then not by epochs too, which is what is done here where nothing is said."""
    steps = whole(value)
    return {"sample.every_steps": steps, "sample.every_epochs": 0} if steps else {"sample.every_steps": 0}


def number(value: Value) -> float:
    return float(value)


def same(value: Value) -> object:
    return value


def switch(value: Value) -> bool:
    if isinstance(value, str):
        return value.lower() in ("true", "1", "yes", "on")
    return bool(value)


def sides(value: Value) -> list[int]:
    """512, "512", "512,512", [512, 768]: the distinct sides."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return sorted({whole(part) for part in parts})


def lines(value: Value) -> object:
    """Prompts, one a line, with kohya's options behind them as far as there are such here. ai-toolkit has some as tables."""
    texts = value.splitlines() if isinstance(value, str) else [line_of(item) for item in value]
    kept = [text.strip() for text in texts if text.strip() and not text.lstrip().startswith("#")]
    known = [without_unknown(text) for text in kept]
    return known if known == kept else Changed(known, f"behind a prompt stand here {KNOWN}")


def model(value: Value) -> object:
    text = str(value)
    low = text.lower()
    if text.endswith((".safetensors", ".sft")) and expanded(text).is_file():
        return text
    is_file = text.endswith((".safetensors", ".sft"))
    if is_file or "/" not in text:
        for kind in ("dev", "schnell"):
            if f"flux1-{kind}" in low or f"flux-{kind}" in low or low == f"flux.1-{kind}":
                hub = f"black-forest-labs/FLUX.1-{kind}"
                return Changed(hub, "there is no such file here, and --model names one that is") if is_file else hub
        raise CannotError("there is no such file here; give --model the file, a folder in diffusers layout, or a hub id")
    return text


def part(value: Value) -> str:
    """A text encoder or VAE in a file of its own."""
    text = str(value)
    if not expanded(text).is_file():
        raise CannotError("there is no such file here; the part is looked for beside the model, or comes with it from the hub")
    return text


def nothing(why: str) -> Convert:
    """Of a key that has no meaning here, for a reason that is better said than that there is no such key."""

    def convert(_: Value) -> object:
        raise CannotError(why)

    return convert


def scheduler(value: Value) -> str:
    return {"adafactor": "constant"}.get(str(value), str(value))


_OPTIMIZERS = {name: name for name in ("adamw", "adafactor", "lion", "prodigy")} | {"adamwschedulefree": "schedule_free"}
_WHOLE_STATE = "of a LoRA its full-size state takes little memory, and it needs no extra package; adamw8bit is there too"


def optimizer(value: Value) -> object:
    name = str(value).lower()
    if name in ("adamw8bit", "pagedadamw8bit"):
        return Changed("adamw", _WHOLE_STATE)
    if name in ("lion8bit", "pagedlion8bit"):
        return Changed("lion", _WHOLE_STATE)
    if name not in _OPTIMIZERS:
        why = "there is no such optimizer here; see fluxtui keys optimizer, and its learning rate may need another value"
        raise CannotError(why)
    return _OPTIMIZERS[name]


def vram(value: Value) -> str:
    names = {"12G": "12GB", "16G": "16GB", "20G": "16GB"}  # 20G: cards of 20 GB and more, the least of which 16GB fits
    if str(value) not in names:
        raise CannotError("FluxGym knows 12G, 16G and 20G; see hardware.preset")
    return names[str(value)]


def _one_of(names: Mapping[str, object], why: str) -> Convert:
    def convert(value: Value) -> object:
        if str(value) not in names:
            raise CannotError(why)
        return names[str(value)]

    return convert


_NO_DISTRIBUTION = "there is no such distribution here; see fluxtui keys timestep"
# `sigma`: an index drawn uniformly into the scheduler's sigmas, which are shifted by discrete_flow_shift
timesteps_of_kohya = _one_of(
    {"sigma": "uniform_shift"} | {name: name for name in ("uniform", "sigmoid", "shift", "flux_shift")}, _NO_DISTRIBUTION
)
# its schedulers are evenly spaced sigmas, shifted by the resolution where FLUX.1's configuration says so, as it does
_BELL: dict[str, object] = {"train.timestep_sampling": "uniform", "train.loss_weighting": "bell"}
_WEIGHTED = "its table of weights, measured on another model, is not here; of its two ways to weigh that is the other"
timesteps_of_ai_toolkit = _one_of(
    {
        "linear": "uniform", "sigmoid": "sigmoid", "flux_shift": "uniform_flux_shift", "shift": "uniform_flux_shift",
        "weighted": Changed(_BELL, _WEIGHTED),
    },
    _NO_DISTRIBUTION,
)  # fmt: skip
loss_of_kohya = _one_of(
    {"l2": "mse", "l1": "l1", "huber": "pseudo_huber"}, "there is no such loss here; see fluxtui keys train.loss"
)  # sd-scripts calls huber what is the pseudo-Huber loss
loss_of_ai_toolkit = _one_of({"mse": "mse", "mae": "l1"}, "there is no such loss here; see fluxtui keys train.loss")


def linear_timesteps(value: Value) -> object:
    """ai-toolkit's: all noise levels alike, weighted by the bell, which is ours of that name."""
    return _BELL if switch(value) else {}


def linear_timesteps_2(value: Value) -> object:
    """The same with a bell that stays at its top where the noise is less."""
    if not switch(value):
        return {}
    return Changed({"train.timestep_sampling": "uniform"}, "its half of a bell is no loss weighting here")


def content_or_style(value: Value) -> object:
    more = "more" if str(value) == "content" else "less"
    raise CannotError(
        f"noise levels by a cube are not here; train.timestep_sampling=shift with a train.timestep_shift "
        f"{'above' if more == 'more' else 'below'} 1 draws {more} noise too"
    )


def prediction(value: Value) -> object:
    raise CannotError("here the velocity is trained, which is 'raw' there")


def shuffled(value: Value) -> object:
    if not switch(value):
        return 0
    return Changed(16, "so many orders of a caption's tags are made once, for the cache")


def swapped(value: Value) -> object:
    """sd-scripts: half of so many double blocks, and two single blocks for each of the rest."""
    count = whole(value)
    double = count // 2
    return Changed(double + 2 * (count - double), "blocks are counted one by one here, the last ones first")


def clip_rate(value: Value) -> float:
    """One rate, or one for each text encoder, CLIP's first."""
    return float(value[0] if isinstance(value, list) else value)


def eight_bits(name: str, theirs: str) -> Convert:
    def convert(value: Value) -> object:
        if not switch(value):
            raise CannotError("the base's precision is chosen by the card here; model.precision says otherwise")
        return Changed(name, theirs)

    return convert


def arguments(value: Value) -> dict[str, str]:
    """kohya's `optimizer_args` and `network_args`: a list of NAME=VALUE, or one text of them."""
    texts = value if isinstance(value, list) else str(value).split()
    return dict(str(one).partition("=")[::2] for one in texts)


def dropout(value: Value) -> object:
    share = float(value)
    return Changed(share, "what is dropped is the adapter's input, there its ranks") if share else share


def train_blocks(value: Value) -> str:
    """sd-scripts' `train_blocks`: which blocks' linear layers, all of them."""
    names = {"all": "all", "single": r"single_transformer_blocks\..+", "double": r"transformer_blocks\..+"}
    if str(value) not in names:
        raise CannotError("sd-scripts knows all, single and double; see fluxtui keys lora.targets")
    return names[str(value)]


def containing(value: Value) -> str:
    """ai-toolkit's `only_if_contains`: layers of the blocks whose name, behind "transformer.", holds one of these words."""
    words = [str(word) for word in (value if isinstance(value, list) else [value])]
    root = "transformer."
    held = "|".join(("" if word.startswith(root) else ".*") + re.escape(word.removeprefix(root)) for word in words)
    return rf"(?={held})(single_)?transformer_blocks\..+"


def two(value: Value) -> list[float]:
    """A pair, as a list or as "0.9,0.999"."""
    return [float(part) for part in (value if isinstance(value, list) else str(value).strip("()[] ").split(","))]


def thousandths(value: Value) -> float:
    return float(value) / 1000.0


def weighting(value: Value) -> object:
    raise CannotError("sd-scripts weighs so with 'sigma_scaled' alone; train.loss_weighting is here")
