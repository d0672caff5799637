"""The pico's two tokenizers: every word of the world is one token, anything else falls apart into characters."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5Tokenizer

from fluxtui.demo.pictures import WORDS

TEXT_TOKENS = 20  # both encoders; the longest caption of the world has 15


def new_t5_tokenizer() -> T5Tokenizer:
    """Unigram: the words (also capitalised), every printable ASCII character, `<unk>` for the rest."""
    words = [*WORDS, *(word.capitalize() for word in WORDS)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(f"\u2581{word}", -4.0) for word in dict.fromkeys(words)]
    known = {piece for piece, _ in pieces}
    pieces += [(chr(code), -12.0) for code in range(33, 127) if chr(code) not in known]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TEXT_TOKENS)


def new_clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE with CLIP's end-of-word marks, its merges trained until every word of the world is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=5000,
        min_frequency=1,
        initial_alphabet=alphabet,
        show_progress=False,
        end_of_word_suffix="</w>",
        special_tokens=[],
    )
    trained.train_from_iterator([" ".join(WORDS)], trainer)
    learned = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    names = dict.fromkeys(
        [
            *alphabet,
            *(f"{letter}</w>" for letter in alphabet),
            *(name for name, _ in learned),
            "<|startoftext|>",
            "<|endoftext|>",
        ]
    )
    return CLIPTokenizer(
        vocab={name: index for index, name in enumerate(names)},
        merges=_merges(trained),
        model_max_length=TEXT_TOKENS,
    )


def _merges(trained: Tokenizer) -> list[tuple[str, str]]:
    import json

    found = json.loads(trained.to_str())["model"]["merges"]
    return [(pair[0], pair[1]) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in found]
