"""How many T5 tokens a caption has: exactly where the model's tokenizer is at hand, else about. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluxtui.engine.family.flux1.components import LONGEST_TEXT, Components

_WORD = re.compile(r"\w+|[^\w\s]")
_LETTERS_A_TOKEN = 4.5      # of English prose, by T5's vocabulary


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the tokens of a caption, the end of the sequence included."""

    limit: int                      # tokens that the trainer keeps
    is_exact: bool
    count: Callable[[str], int]


def token_counter(model: Path | None) -> TokenCounter:
    """By the tokenizer in a pipeline's folder, where there is one; without a model, about, for the dev kind."""
    if model is None:
        return TokenCounter(LONGEST_TEXT[True], False, _about)
    limit = Components(model).text_tokens
    fast = model / "tokenizer_2" / "tokenizer.json"
    pieces = model / "tokenizer_2" / "spiece.model"
    if fast.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(fast))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return TokenCounter(limit, True, lambda text: len(tokenizer.encode(text).ids))
    if pieces.is_file():
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor(model_file=str(pieces))
        return TokenCounter(limit, True, lambda text: len(processor.encode(text)) + 1)
    return TokenCounter(limit, False, _about)


def _about(text: str) -> int:
    """Words and marks, long words counted by their letters."""
    return 1 + sum(math.ceil(len(word) / _LETTERS_A_TOKEN) for word in _WORD.findall(text))
