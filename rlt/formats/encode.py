"""Text to token ids with spans known by construction.

A text is a list of pieces. Strings that a tokenizer keeps as one added token (`<|im_end|>`, `<tool_call>`,
with some models the tags) become that token in trusted pieces only, the ones that a chat template or a
layout wrote; in questions, solutions and explanations they stay ordinary text. For benign text the ids equal
those of one plain tokenizer call over the joined text, which `check_tokenizer` verifies once per tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from rlt.errors import DataError, ModelError

NUM_EMBEDDINGS = "num_embeddings"
"""Attribute of a tokenizer: the size of its model's embedding table, where known (models/load.py)."""


@dataclass(frozen=True)
class Piece:
    """A stretch of text; `trusted` lets added-token strings in it become added tokens."""

    text: str
    trusted: bool = False


@dataclass(frozen=True)
class Encoded:
    """Token ids with the characters each token covers."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """Per token: first character and one past the last, in the joined text."""
    piece_spans: list[tuple[int, int]]
    """Per piece: the same for its characters."""

    def tokens_of_pieces(self, first: int, last: int) -> slice:
        """Return the tokens that lie wholly inside the characters of some pieces, as a slice of `ids`.

        Raises DataError when there is none: a span without tokens has no log-probability.
        """
        start, end = self.piece_spans[first][0], self.piece_spans[last][1]
        inside = [i for i, (a, b) in enumerate(self.offsets) if start <= a < b <= end]
        if not inside:
            raise DataError(
                f"the text between characters {start} and {end} has no token of its own; "
                "it is empty or merges with its surroundings, so it cannot be scored"
            )
        assert inside[-1] - inside[0] + 1 == len(inside), "tokens inside a span are contiguous"
        return slice(inside[0], inside[-1] + 1)


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the strings that a tokenizer keeps whole, with their ids: control tokens and the like."""
    return {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}


class _Encoder:
    """A tokenizer taken apart: its added tokens, and itself without them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        require_fast(tokenizer)
        self.added = added_tokens(tokenizer)
        longest_first = sorted(self.added, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        backend: Any = tokenizer.backend_tokenizer
        parts = json.loads(backend.to_str())
        self.plain = Tokenizer.from_str(
            json.dumps({**parts, "added_tokens": [], "truncation": None, "padding": None})
        )


@lru_cache(maxsize=16)
def _encoder(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> _Encoder:  # noqa: ARG001 - part of the key
    return _Encoder(tokenizer)


def encode(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> Encoded:
    """Return the ids of the joined pieces, added tokens from trusted pieces only."""
    encoder = _encoder(tokenizer, len(tokenizer))
    spans, cuts, position = [], [], 0
    for piece in pieces:
        if piece.trusted:
            found = encoder.pattern.finditer(piece.text)
            cuts += [(position + m.start(), position + m.end()) for m in found]
        spans.append((position, position + len(piece.text)))
        position += len(piece.text)
    text = "".join(piece.text for piece in pieces)

    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    start = 0
    for cut_start, cut_end in [*cuts, (len(text), len(text))]:
        if segment := text[start:cut_start]:
            part = encoder.plain.encode(segment, add_special_tokens=False)
            ids += part.ids
            offsets += [(a + start, b + start) for a, b in part.offsets]
        if cut_end > cut_start:
            ids.append(encoder.added[text[cut_start:cut_end]])
            offsets.append((cut_start, cut_end))
        start = cut_end
    _require_embeddings(tokenizer, ids)
    return Encoded(ids, offsets, spans)


def _require_embeddings(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> None:
    """Raise ModelError for a token that lies beyond the model's embedding table.

    Its forward pass would end with an IndexError on a CPU, and the whole process with an assertion on a GPU.
    """
    rows = getattr(tokenizer, NUM_EMBEDDINGS, None)
    if rows is None or not ids or max(ids) < rows:
        return
    token = tokenizer.convert_ids_to_tokens(max(ids))
    raise ModelError(
        f"the tokenizer of {tokenizer.name_or_path!r} makes {token!r} token {max(ids)}, but the model has "
        f"only {rows} embeddings: resize them (resize_token_embeddings) and save the model, or take other "
        "tags (layout.tags) or the model's own tokenizer"
    )


def require_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError unless the tokenizer knows which characters a token covers."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path!r} is not a fast tokenizer, which exact token spans need; "
            "convert it to a tokenizer.json first"
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> None:
    """Raise ModelError unless `encode` agrees with one plain tokenizer call on a benign text."""
    text = "".join(piece.text for piece in pieces)
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    if encode(tokenizer, pieces).ids != plain:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path!r} encodes a text differently in parts and as a whole, so "
            "token spans would not be exact; it is not supported"
        )


class TokenBytes:
    """The bytes of each token id, so that text can be found in sampled ids exactly."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {i: token.content.encode() for i, token in tokenizer.added_tokens_decoder.items()}
        backend: Any = tokenizer.backend_tokenizer
        self._byte_level = "ByteLevel" in repr(backend.decoder)
        self._cache: dict[int, bytes] = {}

    def __call__(self, token_id: int) -> bytes:
        """Return the bytes of one token; empty for an id outside the vocabulary (padded embeddings)."""
        if token_id not in self._cache:
            self._cache[token_id] = self._lookup(token_id)
        return self._cache[token_id]

    def _lookup(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id]
        if token_id >= len(self._tokenizer):
            return b""
        (token,) = self._tokenizer.convert_ids_to_tokens([token_id])
        if token is None:  # a vocabulary may have gaps
            return b""
        if self._byte_level:
            return bytes(_UNICODE_TO_BYTE[char] for char in token)
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode()  # sentencepiece writes a space as U+2581


def _unicode_to_byte() -> dict[str, int]:
    """Return the inverse of the byte-level BPE alphabet: printable Latin-1 is itself, the rest is
    shifted to U+0100 and up, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = (b for b in range(256) if b not in printable)
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(shifted)}


_UNICODE_TO_BYTE = _unicode_to_byte()
