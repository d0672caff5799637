"""Sample prompts: a text and, behind it, what is drawn otherwise than [sample] says, as kohya's trainers write it. No torch.

    a photo of [trigger] --w 768 --h 512 --d 7 --s 30 --g 3.5
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fluxtui.persist.files.text import clean
from fluxtui.persist.settings.spec import SampleSpec

OPTIONS = {"w": "width", "h": "height", "d": "seed", "s": "steps", "g": "guidance"}  # letter -> key of [sample]
_OPTION = re.compile(r"(?:^|\s+)--(?=[A-Za-z])")
KNOWN = "--w (width), --h (height), --d (seed), --s (steps) and --g (guidance)"


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """One picture to draw."""

    text: str  # with the trigger in place
    width: int  # pixels
    height: int
    steps: int  # denoising steps
    guidance: float
    seed: int


def prompts_of(sample: SampleSpec, trigger: str) -> list[SamplePrompt]:
    """What [sample] asks for. A prompt without [trigger] stays without: it shows a leak. A seed that is not given counts up."""
    found = []
    for number, line in enumerate(sample.prompts):
        text, given = _read(line)
        usual = {name: getattr(sample, name) for name in OPTIONS.values()} | {"seed": sample.seed + number}
        found.append(SamplePrompt(text.replace("[trigger]", trigger), **(usual | given)))
    return found


def problem_of(line: str) -> str:
    """What is wrong behind a prompt, as the end of a sentence; empty where nothing is. Ranges: those of `settings_of`'s keys."""
    for letter, value in _options(line)[1]:
        if letter == "n":
            return "FLUX.1 is drawn without a negative prompt: take --n out"
        if letter not in OPTIONS:
            return f"there is no --{clean(letter, 20)}: behind a prompt stand {KNOWN}"
        if _number(letter, value) is None:
            return f"--{letter} is {clean(value, 20) or 'nothing'!a}: give one number, and the text before all options"
    return ""


def without_unknown(line: str) -> str:
    """The prompt with those options only that are known here, each as it was written."""
    text, options = _options(line)
    return " ".join([text, *(f"--{letter} {value}" for letter, value in options if letter in OPTIONS)])


_NAMES = {
    "width": "w", "height": "h", "seed": "d", "sample_steps": "s", "steps": "s", "scale": "g", "guidance_scale": "g",
    "negative_prompt": "n", "neg": "n",
}  # fmt: skip


def line_of(prompt: object) -> str:
    """A prompt as other trainers have it, a text or a table of it and its settings, as a line."""
    if not isinstance(prompt, Mapping):
        return str(prompt)
    said = {name: value for name, value in prompt.items() if name != "prompt" and value not in (None, "")}
    options = [f"--{_NAMES.get(name, name)} {value}" for name, value in said.items()]
    return " ".join([str(prompt.get("prompt", "")), *options])


def settings_of(line: str) -> dict[str, int | float]:
    """The keys of [sample] that a prompt sets for itself."""
    return _read(line)[1]


def _read(line: str) -> tuple[str, dict[str, int | float]]:
    text, options = _options(line)
    values = {OPTIONS[letter]: _number(letter, value) for letter, value in options if letter in OPTIONS}
    return text, {name: value for name, value in values.items() if value is not None}


def _options(line: str) -> tuple[str, list[tuple[str, str]]]:
    text, *options = _OPTION.split(line)
    return text.strip(), list(_pairs(options))


def _pairs(options: list[str]) -> Iterator[tuple[str, str]]:
    for option in options:
        letter, *value = option.split(None, 1)
        yield letter, value[0].strip() if value else ""


def _number(letter: str, value: str) -> int | float | None:
    try:
        return float(value) if letter == "g" else int(value)
    except ValueError:
        return None
