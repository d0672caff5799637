"""Captions: from the bytes of a file to the texts that an image is trained with. No torch, no PIL."""

from __future__ import annotations

import re

from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.refusal import DataError

CAPTION_LIMIT = 64 * 1024       # bytes; T5 takes 512 tokens, some 2,500 characters
PLACEHOLDER = "[trigger]"
IN_ORDER = 16       # captions with tags left out, where the order of the tags stays
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


def caption_text(data: bytes, name: str) -> str:
    """The text of a caption file, white space collapsed, a byte order mark dropped (DataError, naming the file)."""
    return " ".join(caption_lines(data, name))


def caption_lines(data: bytes, name: str) -> list[str]:
    """Its lines, each so cleaned, blank ones left out."""
    if len(data) > CAPTION_LIMIT:
        what = f"{name} is longer than {CAPTION_LIMIT >> 10} KiB: is it a caption? Shorten or remove it"
        raise DataError(what, kind="caption-huge")
    if b"\0" in data:
        raise DataError(f"{name} holds NUL bytes, so it is no UTF-8 text; save it again as UTF-8", kind="caption-nul")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 at byte {error.start}; save it again as UTF-8", kind="caption-encoding") from error
    lines = (" ".join(line.split()) for line in text.removeprefix(BOM).splitlines())
    return [line for line in lines if line]


def with_trigger(text: str, trigger: str) -> str:
    """`[trigger]` replaced; the trigger put before a text that lacks it ("ring, a gold band"). See `has_trigger`."""
    if PLACEHOLDER in text:
        text = " ".join(text.replace(PLACEHOLDER, trigger).split())
    if not trigger or has_trigger(text, trigger):
        return text
    return f"{trigger}, {text}" if text else trigger


def shuffles(text: str, trigger: str, orders: int, keep: int, left_out: float = 0.0) -> list[str]:
    """The caption and up to `orders` other orders of its comma-separated tags; the first `keep` tags stay where they are.

    A trigger word that stands first stays besides. Each order leaves out each of its tags with probability `left_out`, but
    for one that holds the trigger; where `orders` is 0, so do `IN_ORDER` copies of the caption as it is. They are a function
    of caption and trigger alone, so that sessions share their embeddings; which one a sample takes is drawn like any choice.
    """
    tags = [tag for tag in (part.strip() for part in text.split(",")) if tag]
    fixed = keep + (bool(trigger) and bool(tags) and tags[0].lower() == trigger.lower())
    head, tail = tags[:fixed], tags[fixed:]
    found = [text]
    stays = [bool(trigger) and has_trigger(tag, trigger) for tag in tail]  # nothing is taught without its word
    if len(tail) > 1:
        for number in range(orders or (IN_ORDER if left_out else 0)):
            order = draws.permutation(0, "caption_shuffle", number, len(tail), extra=text) if orders else range(len(tail))
            kept = [tail[at] for at in order if stays[at] or draws.uniform(0, "tag_dropout", number, at, extra=text) >= left_out]
            found += [", ".join([*head, *kept])] if head or kept else []
    return list(dict.fromkeys(found))


def with_word(text: str, trigger: str, word: str) -> str:
    """The text with another word wherever the trigger stands as a word of its own."""
    return re.sub(rf"(?<!\w){re.escape(trigger)}(?!\w)", lambda _: word, text, flags=re.IGNORECASE)


def has_trigger(text: str, trigger: str) -> bool:
    """True where the trigger stands in the text as a word of its own, whatever its case."""
    return re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", text, re.IGNORECASE) is not None
