"""The model card: README.md beside the product, from the spec, the record and the samples. Written after the proof."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from fluxtui.persist.datasets.parts import parts_of
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Proof, Record
from fluxtui.persist.settings.prompts import prompts_of
from fluxtui.persist.settings.spec import Spec

_LARGEST_FINGERPRINT = 256 << 20  # bytes of dataset.toml; of 10,000 pictures it has 2 MB
_PICTURES = 8  # of the newest samples


def card(folder: SessionFolder, spec: Spec, record: Record, proof: Proof) -> str:
    """The whole text, in the hub's form: front matter, then what a person wants to know."""
    trigger = spec.dataset.trigger
    parts = [_front_matter(spec), f"# {_plain(spec.title or spec.name)}\n"]
    parts.append(f"A LoRA for `{_code(_base(spec))}`, trained with FluxTUI. The file is `{folder.product.name}`.\n")
    words = dict.fromkeys(part.trigger for part in parts_of(spec.dataset) if part.trigger and part.regularisation != "*")
    if len(words) == 1:
        parts.append(f"Trigger word: `{_code(next(iter(words)))}`. Use it in the prompt.\n")
    elif words:
        parts.append(f"Trigger words: {', '.join(f'`{_code(word)}`' for word in words)}. Use them in the prompt.\n")
    pictures = _newest_pictures(folder)
    if pictures:
        parts.append(
            "## Samples\n\n"
            + "\n".join(f"![step {path.parent.name[5:].lstrip('0') or '0'}]({_link(folder, path)})" for path in pictures)
            + "\n"
        )
    if prompts := prompts_of(spec.sample, trigger):
        parts.append("Prompts:\n\n" + "\n".join(f"- `{_code(prompt.text)}`" for prompt in prompts) + "\n")
    parts.append("## How to use it\n\n" + _usage(folder, spec))
    parts.append("## Licence\n\n" + _licence_sentence(spec))
    parts.append("## How it was made\n\n" + _table(_made(folder, spec, record)))
    parts.append(
        "## Proof\n\n"
        + _table([("file SHA-256", proof.sha256), ("tensors SHA-256", proof.tensors_sha256), ("bytes", str(proof.size))])
    )
    return "\n".join(parts)


def _front_matter(spec: Spec) -> str:
    lines = ["---", "library_name: diffusers", "tags:", "- flux", "- lora", "- text-to-image"]
    if spec.kind == "flux1" and not os.path.isabs(spec.model.source):
        lines.append(f"base_model: {_quoted(spec.model.source)}")
    lines += [f"{key}: {value}" for key, value in _licence(spec).items()]
    if spec.dataset.trigger:
        lines.append(f"instance_prompt: {_quoted(spec.dataset.trigger)}")
    return "\n".join([*lines, "---", ""])


def _licence(spec: Spec) -> dict[str, str]:
    """The hub's fields for the base's licence, which what is trained on it falls under; nothing for a base that is not known."""
    if spec.kind == "pico":
        return {"license": "apache-2.0"}
    name = spec.model.source.lower()
    if "flux.1-schnell" in name:
        return {"license": "apache-2.0"}
    if "flux.1-dev" in name or "flux.1-krea" in name:
        link = "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md"
        return {"license": "other", "license_name": "flux-1-dev-non-commercial-license", "license_link": link}
    return {}


def _licence_sentence(spec: Spec) -> str:
    said = _licence(spec)
    name = said.get("license_name", said.get("license", ""))
    if not name:
        return f"The licence of `{_code(_base(spec))}` holds for what is trained on it too; FluxTUI does not know that base.\n"
    return f"The base's licence, {name}, holds for this file too.\n"


class _File(Struct):
    """Of `dataset.toml`, what tells a picture from a caption."""

    width: int = 0


class _Files(Struct):
    files: list[_File] = []


def _pictures_trained_on(folder: SessionFolder, spec: Spec) -> str:
    """How many pictures the data set has; empty where its fingerprint cannot be read."""
    try:
        files = toml.read(folder.dataset_file, _Files, limit=_LARGEST_FINGERPRINT).files
    except FluxTUIError:
        return ""
    held_out = f", {spec.validate.images} of them held out for validation" if spec.validate.images else ""
    return f"{sum(file.width > 0 for file in files)} pictures{held_out}"


def _made(folder: SessionFolder, spec: Spec, record: Record) -> list[tuple[str, str]]:
    train, lora = spec.train, spec.lora
    took = None if record.started_at is None or record.finished_at is None else record.finished_at - record.started_at
    rows = [
        ("base model", _base(spec) + (f" at {record.model_commit}" if record.model_commit else "")),
        ("data set", _pictures_trained_on(folder, spec)),
        ("steps", f"{record.step} ({record.epoch} epochs)"),
        ("adapter", f"{lora.kind}, rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}, {lora.targets}"),
        ("learning rate", f"{train.learning_rate:g}, {train.optimizer}, {train.scheduler}, warm-up {train.warmup_steps}"),
        ("batch", f"{train.batch_size} × {train.gradient_accumulation} accumulated"),
        ("timesteps", train.timestep_sampling),
        ("resolution", ", ".join(str(size) for size in spec.dataset.resolution)),
        ("seed", str(train.seed)),
        (
            "attempts",
            f"{record.attempt}" + (f", not exact since step {record.inexact_since}" if record.inexact_since is not None else ""),
        ),
        ("last attempt took", "" if took is None else str(took).split(".")[0]),
        ("session, recipe", f"{record.session_id}, {record.recipe_sha256[:16]}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))),
    ]
    return [(name, value) for name, value in rows if value]


def _usage(folder: SessionFolder, spec: Spec) -> str:
    first = next(iter(prompts_of(spec.sample, spec.dataset.trigger)), None)
    prompt, guidance = (first.text, first.guidance) if first else (spec.dataset.trigger, spec.sample.guidance)
    return (
        "```python\nimport torch\nfrom diffusers import FluxPipeline\n\n"
        f"pipeline = FluxPipeline.from_pretrained({_base(spec)!r}, torch_dtype=torch.bfloat16)\n"
        f"pipeline.load_lora_weights({folder.product.name!r})\n"
        f"image = pipeline({clean(prompt, 300)!r}, guidance_scale={guidance:g}).images[0]\n```\n"
    )


def _base(spec: Spec) -> str:
    """The name of the base, never a path of this machine."""
    return Path(spec.model.source).name if os.path.isabs(spec.model.source) else spec.model.source


def _newest_pictures(folder: SessionFolder) -> list[Path]:
    with suppress(OSError):
        for step in sorted(folder.samples.glob("step-*"), reverse=True):
            found = sorted(path for path in step.glob("*.png") if path.is_file())
            if found:
                return found[:_PICTURES]
    return []


def _link(folder: SessionFolder, path: Path) -> str:
    return quote(str(path.relative_to(folder.path)))


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {_plain(value)} |" for name, value in rows)]) + "\n"


def _plain(text: str) -> str:
    """Foreign text that stays one cell of one line, and no markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in clean(text, 500))


def _code(text: str) -> str:
    return clean(text, 500).replace("`", "'")


def _quoted(text: str) -> str:
    return '"' + clean(text, 200).replace("\\", "\\\\").replace('"', '\\"') + '"'
