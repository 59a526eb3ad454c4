"""Common boundaries of two tokenisations of one text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from helpers.formats_text import adversarial, hostile
from hypothesis import example, given
from hypothesis import strategies as st

from rlt.formats.alignment import common_chunks, ends_of, text_and_ends
from rlt.formats.encode import Encoded, Piece, TokenBytes, encode


def test_chunks_by_hand():
    # a: "So" " 72" "." "\n\n"      b: "S" "o" " 7" "2." "\n" "\n"
    _, a = text_and_ends([b"So", b" 72", b".", b"\n\n"])
    _, b = text_and_ends([b"S", b"o", b" 7", b"2.", b"\n", b"\n"])
    assert (a, b) == ([2, 5, 6, 8], [1, 2, 4, 6, 7, 8])
    assert common_chunks(a, b) == [
        (slice(0, 1), slice(0, 2)),  # So
        (slice(1, 3), slice(2, 4)),  # 72.
        (slice(3, 4), slice(4, 6)),
    ]


def test_tokens_inside_a_character_join_the_other_sides_token():
    text, ends = text_and_ends(["é".encode()[:1], "é".encode()[1:], b"x"])
    assert (text, ends) == ("éx", [1, 2, 3])
    assert common_chunks(ends, [2, 3]) == [(slice(0, 2), slice(0, 1)), (slice(2, 3), slice(1, 2))]


def test_a_tokenizer_that_rewrites_its_text_is_read_by_its_characters():
    # "e" + U+0301 (1 + 2 bytes) composed into one token, then "x": ends after 3 and 4 bytes of the text
    encoded = Encoded([1, 2], [(0, 2), (2, 3)], [(0, 3)])
    assert ends_of(encoded, ["\u00e9".encode(), b"x"], "e\u0301x") == [3, 4]
    inside = Encoded([1, 2, 3], [(0, 1), (0, 1), (1, 2)], [(0, 2)])
    assert ends_of(inside, [b"?", b"?", b"x"], "ξx") == [None, 2, 3]


def test_broken_bytes_are_read_as_in_decoding():
    pieces = [b"a", "👧".encode()[:2], b"b", b"\xff", "é".encode()[:1]]
    text, ends = text_and_ends(pieces)
    assert text == b"".join(pieces).decode(errors="replace")
    # a, U+FFFD (3 bytes), b, U+FFFD, U+FFFD; the second token's bytes are judged when the third comes
    assert ends == [1, None, 5, 8, 11]


@pytest.mark.parametrize(
    ("a", "b", "chunks"),
    [
        ([], [], []),
        ([2], [1, 2], [(slice(0, 1), slice(0, 2))]),
        ([3, 5], [4, 5], [(slice(0, 2), slice(0, 2))]),  # no boundary but the last
        ([1, 2], [1], [(slice(0, 1), slice(0, 1)), (slice(1, 2), slice(1, 1))]),
        ([1, 1, 2], [1, 2], [(slice(0, 2), slice(0, 1)), (slice(2, 3), slice(1, 2))]),  # a token of no text
    ],
)
def test_edges(a, b, chunks):
    assert common_chunks(a, b) == chunks


@adversarial
@given(text=hostile)
@example(text="e\u0301 👩\u200d👧 數")
def test_a_tokenisation_agrees_with_itself_token_by_token(tokenizer, text):
    """So a student with the teacher's tokenizer gets the same result on either way."""
    encoded = encode(tokenizer, [Piece(text)])
    of = TokenBytes(tokenizer)
    spelled, ends = text_and_ends([of(i) for i in encoded.ids])
    again = encode(tokenizer, [Piece(spelled)])
    assert again.ids == encoded.ids
    chunks = common_chunks(ends, ends_of(again, [of(i) for i in again.ids], spelled))
    assert chunks == [(slice(i, i + 1), slice(i, i + 1)) for i in range(len(encoded.ids))]


@adversarial
@given(text=hostile, cut=st.sets(st.integers(0, 60)))
def test_chunks_cover_both_sides_once_and_spell_the_same(tokenizer, text, cut):
    of = TokenBytes(tokenizer)
    encoded = encode(tokenizer, [Piece(text)])
    spelled, ends = text_and_ends([of(i) for i in encoded.ids])
    data = spelled.encode()
    places = sorted({0, len(data), *(c for c in cut if c <= len(data))})
    other = [data[a:b] for a, b in pairwise(places)]
    _, other_ends = text_and_ends(other)
    chunks = common_chunks(ends, other_ends)
    for side, (pieces, count) in enumerate(
        (([of(i) for i in encoded.ids], len(encoded.ids)), (other, len(other)))
    ):
        runs = [chunk[side] for chunk in chunks]
        assert [i for run in runs for i in range(count)[run]] == list(range(count))
        if not side:
            texts = [b"".join(pieces[run]) for run in runs]
        else:
            assert [b"".join(pieces[run]) for run in runs] == texts
