"""Two tokenisations of one text, cut into the finest chunks on which both agree. Pure: ids and text only.

A student with another tokenizer cannot share the teacher's ids (method section 3): its log-probabilities are
compared over chunks of text that begin and end at a token boundary of both. Places are counted in bytes of
UTF-8, since byte-level tokens may end inside a character.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from itertools import accumulate

from rlt.formats.encode import Encoded

Ends = list[int | None]
"""After each token the bytes of text so far; None where no boundary is known."""


def text_and_ends(pieces: Sequence[bytes]) -> tuple[str, Ends]:
    """Return the text that tokens spell, and where each of them ends.

    Bytes that are no UTF-8 become U+FFFD, as in decoding; inside of one is no boundary.
    """
    whole = b"".join(pieces)
    try:
        return whole.decode(), list(accumulate(map(len, pieces)))
    except UnicodeDecodeError:
        pass
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    num_bytes = 0
    ends: Ends = []
    for piece in pieces:
        num_bytes += len(decoder.decode(piece).encode())
        is_inside_character = bool(decoder.getstate()[0])
        ends.append(None if is_inside_character else num_bytes)
    text = whole.decode(errors="replace")
    ends[-1] = len(text.encode())
    return text, ends


def ends_of(encoded: Encoded, pieces: Sequence[bytes], text: str) -> Ends:
    """Return where each token of an encoded text ends; `pieces` are the tokens' bytes.

    A tokenizer that rewrites its text (composes characters, marks spaces) spells other bytes: the characters
    that each token covers give its end then.
    """
    if b"".join(pieces) == text.encode():
        return list(accumulate(map(len, pieces)))
    bytes_before = [0, *accumulate(len(character.encode()) for character in text)]
    starts = [start for start, _ in encoded.offsets[1:]]
    ends: Ends = []
    for (_, end), next_start in zip(encoded.offsets, [*starts, len(text)], strict=True):
        ends.append(bytes_before[end] if next_start >= end else None)
    return ends


def common_chunks(ends_a: Ends, ends_b: Ends) -> list[tuple[slice, slice]]:
    """Return the finest runs of tokens, of a and of b, that cover the same text.

    Both tokenisations are of the same text. Tokens after the last common boundary form a chunk of their own.
    """
    after_a = {end: i + 1 for i, end in enumerate(ends_a) if end is not None}
    after_b = {end: i + 1 for i, end in enumerate(ends_b) if end is not None}
    chunks = []
    a = b = 0
    for end in sorted(after_a.keys() & after_b.keys()):
        chunks.append((slice(a, after_a[end]), slice(b, after_b[end])))
        a, b = after_a[end], after_b[end]
    if a < len(ends_a) or b < len(ends_b):
        chunks.append((slice(a, len(ends_a)), slice(b, len(ends_b))))
    return chunks
