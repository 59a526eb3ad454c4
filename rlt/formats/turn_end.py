"""The token that ends an assistant's turn, as `distill.turn_end` names it."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from rlt.errors import ModelError
from rlt.formats.encode import added_tokens
from rlt.formats.layout import Chat

END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")
"""How tokenizers spell the end of a text: Qwen and most others, Llama 3."""


def turn_end_token(tokenizer: PreTrainedTokenizerBase, setting: str) -> str:
    """Return the chat template's token for `end_of_turn`, that of whole texts for `end_of_text`."""
    if setting == "end_of_turn":
        return Chat(tokenizer).end_of_turn
    added = added_tokens(tokenizer)
    found = next((token for token in END_OF_TEXT if token in added), None)
    if found is None:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path!r} has none of the tokens {', '.join(END_OF_TEXT)} that "
            "distill.turn_end=end_of_text ends a turn with; take distill.turn_end=end_of_turn"
        )
    return found
