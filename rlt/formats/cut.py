"""The explanation inside sampled token ids, or as it would have been sampled. No models, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlt.formats.encode import Piece, TokenBytes, added_tokens, encode
from rlt.formats.tags import PADDING, TAG_STRINGS
from rlt.records import Explanation


class Cut:
    """Cuts explanations out of samples in a tokenizer's ids. Without an end tag the whole turn is one.

    `within` is text that a turn may hold: added tokens in it do not end the turn, such as those around a
    model's own thought.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tag: str | None, within: str = "") -> None:
        self._end_tag = end_tag.encode() if end_tag else None
        self._token_bytes = TokenBytes(tokenizer)
        whole = TAG_STRINGS | ({end_tag} if end_tag else set())
        self._control_ids = frozenset(
            i for text, i in added_tokens(tokenizer).items() if text not in whole and text not in within
        )
        self._num_tokens = len(tokenizer)

    def __call__(self, completion_ids: Sequence[int]) -> Explanation:
        """Return the explanation of one sample.

        It ends before the first token that touches the end tag, before the first added token that is no
        tag (a control token, or one like `<tool_call>`), or before an id of the embedding's padding, which
        is no token and which a student's table may not even have. A tag after one of these is outside the
        teacher's turn and does not count.
        """
        turn = list(completion_ids)
        turn = turn[: next((i for i, token in enumerate(turn) if not self._is_text(token)), len(turn))]
        if self._end_tag is None:
            return Explanation(tuple(turn), has_end_tag=True, text_after_end_tag=False)
        pieces = [self._token_bytes(t) for t in turn]
        text = b"".join(pieces)
        at = text.find(self._end_tag)
        if at < 0:
            return Explanation(tuple(turn), has_end_tag=False, text_after_end_tag=False)
        num_tokens, position = 0, 0
        while position + len(pieces[num_tokens]) <= at:
            position += len(pieces[num_tokens])
            num_tokens += 1
        after = bool(text[at + len(self._end_tag) :].decode(errors="replace").strip())
        return Explanation(tuple(turn[:num_tokens]), has_end_tag=True, text_after_end_tag=after)

    def _is_text(self, token: int) -> bool:
        return token < self._num_tokens and token not in self._control_ids


def written_explanation(tokenizer: PreTrainedTokenizerBase, text: str) -> Explanation:
    """Return an explanation given as text, without tags: its ids with the closing padding.

    Blank text has no token, so its divergence is the declared one.
    """
    ids = encode(tokenizer, [Piece(text.strip() + PADDING)]).ids if text.strip() else []
    return Explanation(tuple(ids), has_end_tag=True, text_after_end_tag=False)
