"""The quickstart's tokenizer: a few hundred entries, made by code, spelling any text.

It is Qwen2's own tokenizer class (that is what loaders pick for a Qwen2 model, whatever a checkpoint
says) with a small vocabulary: 256 bytes, the pieces of the given words, the blank line, six tags and
three control tokens. It is not trained on a corpus: the words are whatever the caller hands in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AddedToken, Qwen2Tokenizer

from rlt.formats.tags import PADDING, TAG_STYLES

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
"""Control tokens, named as in Qwen: start of a turn, end of a turn (end of sequence), padding."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    f"{START}" + "{{ message['role'] }}\n{{ message['content'] }}" + f"{END}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + f"{START}assistant\n" + "{% endif %}"
)
"""ChatML, as Qwen's, without a default system prompt."""


def build_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """Return a tokenizer that has every word of `texts`, alone and after a space, as one entry.

    Any other text stays encodable, byte by byte. The same texts give the same tokenizer.
    """
    words = sorted({word for text in texts for word in re.findall(r"[A-Za-z]+", text)})
    vocabulary, merges = _merge_whole([PADDING, *words, *(f" {word}" for word in words)])
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        chat_template=CHAT_TEMPLATE,
    )
    # Tags are ordinary text: single entries, but no control tokens.
    tags = TAG_STYLES["bespoke"].strings
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    tokenizer.add_special_tokens({"additional_special_tokens": [START]})
    return tokenizer


def _merge_whole(pieces: list[str]) -> tuple[dict[str, int], Any]:
    """Return a byte-level vocabulary and the merges that make each of `pieces` a single entry."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=65536, min_frequency=1, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(pieces, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]
