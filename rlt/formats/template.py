"""What a tokenizer's chat template writes, found by rendering it. No model, no I/O.

A template is asked with marks in place of texts, under the switches and on the date of `layout`; what is
around the marks is what it writes itself. Nothing is concluded from its source, but which switches it names.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from rlt.config.schema import TEMPLATE_DATE
from rlt.errors import ModelError

if TYPE_CHECKING:  # reading data needs the styles of turns (turns.py), and no tokenizer
    from transformers import PreTrainedTokenizerBase

SYSTEM, USER, ANSWER, THOUGHT = (f"\ue000{letter}\ue001" for letter in "suat")
"""Marks for the four texts, of characters that no template writes."""
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Keys of an assistant's message in which templates look for its thought."""
_DATE = "\ue000d\ue001"
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{[a-z_]+\}", re.DOTALL)
_BROKEN = (TemplateError, TypeError, ValueError, AttributeError, KeyError, IndexError)
"""What a template's own mistakes raise: it is code that came with a model, and may expect other messages."""

Message = dict[str, Any]


@dataclass(frozen=True)
class TemplateSettings:
    """What a chat template is rendered with besides the messages: two settings of `layout`."""

    switches: Mapping[str, Any] = field(default_factory=dict)
    """layout.chat_template_kwargs, e.g. {"enable_thinking": False}."""
    date: str = TEMPLATE_DATE
    """layout.date: the day that a template's clock shows, as YYYY-MM-DD."""

    def clock(self) -> Callable[[str], str]:
        """Return the replacement of transformers' `strftime_now`, which would give today's date."""
        return datetime.datetime.fromisoformat(self.date).strftime


class Template:
    """A tokenizer's chat template under its settings. `prompt` is the setting of its system prompt."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: TemplateSettings, prompt: str) -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                f"tokenizer {tokenizer.name_or_path!r} has no chat template; use an instruct model's "
                "tokenizer or add a chat_template to its tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.settings = settings
        self._prompt = prompt

    @property
    def owner(self) -> str:
        """The chat template, in words for sentences."""
        return f"the chat template of {self.tokenizer.name_or_path!r}"

    def names(self, word: str) -> bool:
        """Whether the template's source has a word, such as a switch."""
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.source) is not None

    @property
    def source(self) -> str:
        """The template's text; that of all of them where a tokenizer has several."""
        template = self.tokenizer.chat_template
        return template if isinstance(template, str) else json.dumps(template)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool, **names: Any) -> str:
        """Return a chat as the template writes it. Raises ModelError where it refuses the chat."""
        try:
            return self._render(messages, add_generation_prompt, **names)
        except _BROKEN as error:
            roles = ", ".join(message["role"] for message in messages)
            self._require_text_contents(messages)
            raise ModelError(
                f"{self.owner} refuses a chat of the roles {roles}: {error}; use another template, or for "
                f"want of a system role an empty {self._prompt}"
            ) from error

    def try_render(self, messages: Sequence[Message]) -> str | None:
        """Return a finished chat; None where the template refuses it."""
        try:
            return self._render(messages, add_generation_prompt=False)
        except _BROKEN:
            return None

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool, **names: Any) -> str:
        # `strftime_now` as a name of the call has precedence over the global one that transformers defines
        names = {"strftime_now": self.settings.clock(), **self.settings.switches, **names}
        text = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt, **names
        )
        assert isinstance(text, str)
        return text

    def is_dated(self) -> bool:
        """Whether the template writes a date of its own into prompts."""
        user = {"role": "user", "content": USER}
        return _DATE in self.render([user], add_generation_prompt=True, strftime_now=lambda _: _DATE)

    def trims(self) -> bool:
        """Whether the template strips contents, as Llama 3's does."""
        content = f"\t{USER}\t"
        chat = [{"role": "user", "content": content}]
        return content not in self.render(chat, add_generation_prompt=True)

    def frame(self, *, with_system: bool) -> tuple[str, ...]:
        """Return what is before, between and after a prompt's texts, up to the start of the answer.

        Raises ModelError for a template that drops a text or writes it twice, or leaves a placeholder.
        """
        system = [{"role": "system", "content": SYSTEM}] if with_system else []
        chat = [*system, {"role": "user", "content": USER}]
        text = self.render(chat, add_generation_prompt=True)
        parts = []
        for mark in (SYSTEM, USER) if with_system else (USER,):
            what = "system prompt" if mark == SYSTEM else "question"
            before, found, text = text.partition(mark)
            if not found:
                self._require_text_contents(chat)
                raise ModelError(
                    f"{self.owner} drops the {what}; use a template that keeps it"
                    + (f", or an empty {self._prompt}" if mark == SYSTEM else "")
                )
            if mark in text:
                raise ModelError(f"{self.owner} writes the {what} twice; use a template that writes it once")
            parts.append(before)
        parts.append(text)
        if left := _PLACEHOLDER.search("\0".join(parts)):
            raise ModelError(
                f"{self.owner} leaves the placeholder {left[0]!r} in its prompts; write there what is meant, "
                "in chat_template.jinja"
            )
        return tuple(parts)

    def _require_text_contents(self, messages: Sequence[Message]) -> None:
        """Raise ModelError for a template that writes only parts of contents, as those of image models do."""
        parted = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        text = self.try_render(parted)
        if text and all(m["content"] in text for m in messages):
            raise ModelError(
                f"{self.owner} reads each message as a list of parts, as those of image models do, and drops "
                'one that is a text; use a template for texts (`{{ message["content"] }}`), which the text '
                "model of this family may have"
            )

    def after_question(self, reply: Message, *, with_system: bool) -> str | None:
        """Return what a finished chat has after its question; None where the template refuses the chat."""
        system = [{"role": "system", "content": SYSTEM}] if with_system else []
        chat = [*system, {"role": "user", "content": USER}, {"role": "assistant", **reply}]
        text = self.try_render(chat)
        return None if text is None else text.partition(USER)[2]
