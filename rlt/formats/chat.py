"""A tokenizer's chat template with known places for system prompt, question and answer, in token ids."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import cache

from transformers import PreTrainedTokenizerBase

from rlt.errors import ModelError
from rlt.formats.encode import Piece, added_tokens, check_tokenizer, require_fast
from rlt.formats.tags import TAG_STRINGS, TagStyle
from rlt.formats.template import ANSWER, USER, Template, TemplateSettings
from rlt.formats.turns import read_turn

logger = logging.getLogger(__name__)
_THINKING = ("enable_thinking", "thinking")
"""Switches by which templates open a thought (Qwen, Nemotron, Gemma 4; DeepSeek V3.1)."""


class Chat:
    """A tokenizer's chat template under its settings.

    Raises ModelError for a template that the layouts could not use with the roles that they will use.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str = "layout.teacher_prompt or layout.student_prompt",
        settings: TemplateSettings | None = None,
        *,
        with_system: bool | None = None,
    ) -> None:
        """`prompt` is the setting of its system prompt, for sentences.

        `with_system` says whether there will be a system turn; None: it is tried, and may be refused.
        """
        self.template = Template(tokenizer, settings or TemplateSettings(), prompt)
        require_fast(tokenizer)
        self.tokenizer = tokenizer
        self._frames: dict[bool, tuple[str, ...]] = {}
        self._trims = self.template.trims()
        self._with_system = self._try_system() if with_system is None else with_system
        example = self.pieces("Be brief." if self._with_system else None, "What is 2 + 2?")
        self._require_header()
        self.turn = read_turn(
            self.template, self._frame(self._with_system)[-1], with_system=self._with_system
        )
        """What the template writes after the question."""
        self.end_of_turn = self._find_end_of_turn(self.turn.plain[1])
        self.end_of_turn_id = added_tokens(tokenizer)[self.end_of_turn]
        check_tokenizer(tokenizer, [*example, Piece("It is 4.")])
        self.is_dated = self.template.is_dated()
        """Whether the template writes the date."""
        if self.is_dated:
            _tell_of_date(tokenizer.name_or_path, self.template.settings.date)

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end a turn: the template's, and the tokenizer's own."""
        eos = self.tokenizer.eos_token_id
        return sorted({self.end_of_turn_id, *([eos] if isinstance(eos, int) else [])})

    def pieces(self, system: str | None, question: str, after: str | None = None) -> list[Piece]:
        """Return the chat up to the start of the assistant's turn, or with `after` behind the question.

        Tags that a system prompt names are the tags that the layout writes, also where they are tokens.
        """
        frame = self._frame(system is not None)
        if after is not None:
            frame = (*frame[:-1], after)
        if self._trims:
            system, question = system and system.strip(), question.strip()
        contents = [[Piece(question)]] if system is None else [split_at_tags(system), [Piece(question)]]
        pieces = [Piece(frame[0], trusted=True)]
        for content, text in zip(contents, frame[1:], strict=True):
            pieces += [*content, Piece(text, trusted=True)]
        return pieces

    def closing(self, after: str) -> str:
        """Return what a text after an answer has before the token that ends the turn."""
        return after.partition(self.end_of_turn)[0] if self.end_of_turn in after else ""

    def _try_system(self) -> bool:
        try:
            self._frame(True)
        except ModelError:
            return False
        return True

    def _require_header(self) -> None:
        """Raise ModelError for a template that answers under a header, but does not write it into prompts."""
        user = {"role": "user", "content": USER}
        prompt = self.template.render([user], add_generation_prompt=True)
        if prompt != self.template.render([user], add_generation_prompt=False):
            return
        turns = [user, {"role": "assistant", "content": ANSWER}]
        before = self.template.render(turns, add_generation_prompt=False).partition(ANSWER)[0]
        header = before.removeprefix(prompt).strip()
        if before.startswith(prompt) and header:
            raise ModelError(
                f"{self.template.owner} ignores add_generation_prompt, so {header!r}, with which its answers "
                "begin, would be missing from every prompt; write it at the template's end, in "
                "{% if add_generation_prompt %}…{% endif %}"
            )

    def _frame(self, with_system: bool) -> tuple[str, ...]:
        if with_system not in self._frames:
            self._frames[with_system] = self.template.frame(with_system=with_system)
        return self._frames[with_system]

    def _find_end_of_turn(self, after: str) -> str:
        """Return the token that ends a turn: the first after an answer, or the last of several in a row.

        Command A and Aya close an answer before they end its turn: `<|END_RESPONSE|><|END_OF_TURN_TOKEN|>`.
        """
        controls = [token for token in added_tokens(self.tokenizer) if token]
        pattern = re.compile("|".join(map(re.escape, sorted(controls, key=len, reverse=True))) or r"(?!)")
        found = list(pattern.finditer(after))
        starts = {match.start() for match in found}
        for control in found:
            if control.end() not in starts:
                return control[0]
        if self.tokenizer.eos_token:
            return str(self.tokenizer.eos_token)
        raise ModelError(
            f"tokenizer {self.tokenizer.name_or_path!r} has neither an end-of-turn token in its chat "
            "template nor an eos_token, so a model could never stop; set eos_token"
        )


def thinking_chat(chat: Chat, tags: TagStyle, prompt: str, *, with_system: bool) -> Chat:
    """Return a chat in whose prompt a thought is possible: this one, or with the template's own switch on.

    Where the prompt holds an empty thought, none of the same tags can follow. Raises ModelError where the
    template has no switch for it, or the user has turned it off.
    """
    turn, settings = chat.turn, chat.template.settings
    if not turn.is_emptied or not (tags.is_native or tags.thought == turn.thought):
        return chat
    name = chat.tokenizer.name_or_path
    for switch in _THINKING:
        if switch in settings.switches or not chat.template.names(switch):
            continue
        on = replace(settings, switches={**settings.switches, switch: True})
        thinking = Chat(chat.tokenizer, prompt, on, with_system=with_system)
        if not thinking.turn.is_emptied:
            _tell_of_switch(name, switch)
            return thinking
    given = next((switch for switch in _THINKING if switch in settings.switches), None)
    remedy = f"layout.chat_template_kwargs={{{given}: true}}" if given else "another template"
    raise ModelError(
        f"{chat.template.owner} leaves the thought empty in its prompts ({turn.prompt.strip()!r}), where an "
        f"explanation is to be the thought: take {remedy}, or layout.tags=bespoke, which writes it into the "
        "answer"
    )


def split_at_tags(text: str) -> list[Piece]:
    """Return an untrusted text whose tags, and nothing else, are trusted."""
    parts = re.split(f"({'|'.join(map(re.escape, sorted(TAG_STRINGS)))})", text)
    return [Piece(part, trusted=part in TAG_STRINGS) for part in parts if part]


@cache
def _tell_of_date(tokenizer: str, date: str) -> None:
    """Say once of each tokenizer, since several layouts read its template."""
    logger.info("the chat template of %r writes the date into prompts: layout.date=%s", tokenizer, date)


@cache
def _tell_of_switch(tokenizer: str, switch: str) -> None:
    logger.info(
        "the chat template of %r leaves thoughts empty unless %s is true, so it is set to true: an "
        "explanation is to be the thought (layout.chat_template_kwargs)",
        *(tokenizer, switch),
    )
