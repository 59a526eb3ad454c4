"""Token ids that a tokenizer makes, and the embedding table of the model that reads them."""

from __future__ import annotations

import logging

from transformers import PreTrainedTokenizerBase

from rlt.errors import ModelError

logger = logging.getLogger(__name__)
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
REMEDY = (
    "resize them (resize_token_embeddings) and save the model, or take other tags (layout.tags) or the "
    "model's own tokenizer"
)


def tokens_beyond(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[str, int]:
    """Return the tokens whose ids lie beyond an embedding table and that some text here would make.

    Not those markers that no text here makes: special tokens (of images, say) that have no role and that the
    chat template does not write. Untrusted text never makes a special token (formats/encode.py).
    """
    added = tokenizer.added_tokens_decoder
    template = str(tokenizer.chat_template or "")
    written = {getattr(tokenizer, name, None) for name in _NAMED}

    def is_marker(text: str, token_id: int) -> bool:
        token = added.get(token_id)
        return token is not None and token.special and text not in written and text not in template

    beyond = {text: i for text, i in tokenizer.get_vocab().items() if i >= rows}
    markers = [text for text, i in beyond.items() if is_marker(text, i)]
    if markers:
        logger.info(
            "%d special tokens of %s have no embedding and are never written: %s, for one",
            len(markers),
            tokenizer.name_or_path,
            markers[0],
        )
    return {text: i for text, i in sorted(beyond.items(), key=lambda item: item[1]) if text not in markers}


def require_table(tokenizer: PreTrainedTokenizerBase, rows: int, reader: str = "the model") -> None:
    """Raise ModelError for a token that lies beyond the embedding table of the model that reads it.

    Its forward pass would end with an IndexError on a CPU, and the whole process with an assertion on a GPU.
    """
    beyond = tokens_beyond(tokenizer, rows)
    if not beyond:
        return
    text, token_id = next(iter(beyond.items()))
    roles = [name for name in _NAMED if getattr(tokenizer, name, None) == text]
    role = f" (its {roles[0]})" if roles else ""
    others = f" (and {len(beyond) - 1} others are as high)" if len(beyond) > 1 else ""
    raise ModelError(
        f"the tokenizer of {tokenizer.name_or_path!r} makes {text!r}{role} token {token_id}{others}, but "
        f"{reader} has only {rows} embeddings: {REMEDY}"
    )
