"""Remedies as they are written, with places to fill in, and as a user reads them: every command in one can be pasted. No torch.

`{name}` is the session, `{next}` a name that is free, `{newest}` the option that goes on from the newest checkpoint where there
is one, `{half}` half the learning rate, `{less}` the setting that takes the least from the result and frees memory.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable

from fluxtui.persist.home import next_name
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec

CLONE = "fluxtui new {next} --from {name}{newest}"
LOWER_RATE = f"make one with a lower learning rate: {CLONE} --set train.learning_rate={{half}}"
TAKES_LESS = f"{CLONE} --set {{less}}"

_VALUE = r"[a-z_]+\.[a-z_]+=(?:\[[^\]]*\]|\"[^\"]*\"|[^\s,;\"\[]+)"
_SETS = re.compile(rf"set ({_VALUE}(?:, {_VALUE})*)(?=$|;|, or )")


def filled(remedy: str, spec: Spec, has_checkpoint: bool, taken: Callable[[], Iterable[str]]) -> str:
    """The remedy of a session with these settings; `taken` gives the names that sessions have, and is asked where one is needed.

    One that only says what to set gets the command that does: a resume where a resume may set it, else a new session.
    """
    data = shlex.quote(spec.dataset.path)
    data += f" --trigger {shlex.quote(spec.dataset.trigger)}" if spec.dataset.trigger else ""
    text = _with_command(remedy)
    known = {
        "{name}": spec.name,
        "{next}": next_name(spec.name, {spec.name, *taken()}) if "{next}" in text else "",
        "{newest}": " --checkpoint newest" if has_checkpoint else "",
        "{half}": f"{spec.train.learning_rate / 2:g}",
        "{less}": _less(spec),
        "{data}": data,
    }
    for place, words in known.items():
        text = text.replace(place, words)
    return text


def _with_command(remedy: str) -> str:
    found = _SETS.match(remedy)
    if found is None or "fluxtui " in remedy:
        return remedy
    sets = re.findall(_VALUE, found[1])
    tables = {one.partition(".")[0] for one in sets}
    again = "fluxtui resume {name}" if tables <= set(recipe.CHANGEABLE_TABLES) else CLONE
    if "lora" in tables:  # another shape: the weights of a checkpoint do not fit it
        again = again.replace("{newest}", "")
    command = f": {again} {' '.join(f'--set {shlex.quote(one)}' for one in sets)}"
    rest = remedy[found.end() :]
    return f"{found[0]}{command}{rest}" if rest.startswith(";") else f"{found[0]}{rest}{command}"


def _less(spec: Spec) -> str:
    """As `--set` takes it: a smaller batch with the same result first, then a base of fewer bytes, then smaller pictures."""
    train = spec.train
    if train.batch_size > 1:
        return f"train.batch_size=1 --set train.gradient_accumulation={train.gradient_accumulation * train.batch_size}"
    if not train.gradient_checkpointing:
        return "train.gradient_checkpointing=true"
    return "model.precision=int8" if spec.model.precision in ("auto", "bf16", "fp32") else "dataset.resolution=[512]"
