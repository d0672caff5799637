"""The pico's two tokenizers: every word of the world is one token, anything else falls apart into characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer, T5Tokenizer

from fluxtui.demo.pictures import WORDS

TEXT_TOKENS = 20  # both encoders; the longest caption of the world has 15
_END = "</w>"


def new_t5_tokenizer() -> T5Tokenizer:
    """Unigram: the words (also capitalised), every printable ASCII character, `<unk>` for the rest."""
    words = [*WORDS, *(word.capitalize() for word in WORDS)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(f"\u2581{word}", -4.0) for word in dict.fromkeys(words)]
    known = {piece for piece, _ in pieces}
    pieces += [(chr(code), -12.0) for code in range(33, 127) if chr(code) not in known]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TEXT_TOKENS)


def new_clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE with CLIP's end-of-word marks, its merges learnt until every word of the world is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*alphabet, *(f"{letter}{_END}" for letter in alphabet)]
    # y before the others: so "sky" got its id when the shipped weights were made
    merges = learn_merges(WORDS, [*alphabet, f"y{_END}", *symbols[len(alphabet) :]])
    names = dict.fromkeys([*symbols, *(first + second for first, second in merges), "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(
        vocab={name: index for index, name in enumerate(names)},
        merges=merges,
        model_max_length=TEXT_TOKENS,
    )


def learn_merges(words: Sequence[str], symbols: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding (arXiv:1508.07909) until each word is one token: the commonest pair first, of equals the earlier ones.

    The trainer of `tokenizers` breaks such ties by the order of a hash table, so that each call gives other ids.
    """
    ids = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbols))}
    parts = [[*word[:-1], word[-1] + _END] for word in words]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for part in parts for pair in pairwise(part)):
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        parts = [_merged(part, best) for part in parts]
    return merges


def _merged(part: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in part:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out
