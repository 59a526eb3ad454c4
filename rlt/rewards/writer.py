"""What a reward knows of the model that writes: its tokenizer, its sampling temperature, its prompts.

All three are a trainer's own as soon as one calls the reward. Ids cross from the writer to the student, so
their vocabularies are compared whenever one of them changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlt.errors import ModelError
from rlt.formats.compare import tokens_unlike
from rlt.models.load import load_tokenizer

Text = str | list[dict[str, str]]
"""A prompt or completion of TRL: plain text, or messages."""


@dataclass(frozen=True)
class Writer:
    """The model that writes the explanations."""

    tokenizer: PreTrainedTokenizerBase
    temperature: float
    template: Mapping[str, Any] = field(default_factory=dict)
    """What a trainer hands to the chat template: another template, tools, its own switches."""

    def prompt_ids(self, prompt: Text) -> list[int]:
        """Return a prompt's ids as the model has read them."""
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt)["input_ids"])
        ids: Any = self.tokenizer.apply_chat_template(
            prompt, tokenize=True, add_generation_prompt=True, return_dict=False, **self.template
        )
        return list(ids)


def trainer_of(log_metric: Any) -> Any:
    """Return the TRL trainer that calls a reward, None for another caller: `log_metric` is a method of it."""
    trainer = getattr(log_metric, "__self__", None)
    return trainer if hasattr(trainer, "processing_class") else None


def writer_of(trainer: Any) -> Writer:
    """Return how a TRL trainer samples and renders its prompts (GRPOTrainer._tokenize_prompts)."""
    processing = trainer.processing_class
    template = {"tools": getattr(trainer, "tools", None) or None}
    if getattr(trainer, "chat_template", None):
        template["chat_template"] = trainer.chat_template
    return Writer(
        getattr(processing, "tokenizer", processing),  # of a multimodal model
        float(trainer.args.temperature),
        {**template, **(getattr(trainer, "chat_template_kwargs", None) or {})},
    )


def tokenizer_of(model: str | PreTrainedModel) -> PreTrainedTokenizerBase:
    """Return the tokenizer that lies beside a model."""
    name = model if isinstance(model, str) else model.name_or_path
    if not name:
        raise ModelError(
            "the model was not loaded from a folder or the Hub, so its tokenizer has to be given"
        )
    return load_tokenizer(name)


def require_written(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]], texts: Sequence[Text]
) -> None:
    """Raise ModelError where sampled ids are not the completions' text to a tokenizer."""
    for sampled, text in zip(ids, texts, strict=True):
        read = tokenizer.decode([i for i in sampled if i < len(tokenizer)], skip_special_tokens=True)
        if isinstance(text, str) and str(read).strip() != text.strip():
            raise ModelError(
                f"`completion_ids` are {str(read)[:40]!r} to the tokenizer {tokenizer.name_or_path!r}, but "
                f"the completion is {text[:40]!r}: give `teacher_tokenizer`, that of the model that writes"
            )


def same_vocabulary(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether all tokens have the same ids with both."""
    return one is other or not (tokens_unlike(one, other) or tokens_unlike(other, one))


def share_weights(one: Any, other: Any) -> bool:
    """Whether two models are the same one, or one is a wrapper around it."""
    return bool({id(p) for p in one.parameters()} & {id(p) for p in other.parameters()})
