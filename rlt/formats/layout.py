"""Where question, solution and explanation stand in the teacher's and the student's text, in token ids.

Teacher: system, question | <solution> s </solution> <explanation> t </explanation>
Student: system, question | <thought> t </thought> <solution> s </solution>

The teacher's prompt ends after the opening explanation tag and its padding; the model writes from there.
The student's sequence is prefix ids + the teacher's sampled ids + suffix ids, so every span is known and
both models score the same tokens (method sections 2 and 3). No model, no I/O.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rlt.errors import DataError, ModelError
from rlt.formats.cut import Cut
from rlt.formats.encode import Encoded, Piece, added_tokens, check_tokenizer, encode, require_fast
from rlt.formats.tags import PADDING, TAG_STRINGS, TagStyle
from rlt.records import Explanation, Problem

logger = logging.getLogger(__name__)

_SYSTEM, _USER, _ASSISTANT = "\ue000s\ue001", "\ue000u\ue001", "\ue000a\ue001"
_DATE = "\ue000d\ue001"
_CONTENT, _BLANK_LINE = 1, 2
"""Places among the pieces of the student's suffix."""


@dataclass(frozen=True)
class Suffix:
    """What follows the explanation in the student's sequence."""

    ids: list[int]
    solution: slice
    """The solution's tokens in `ids`, as `StudentLayout.solution_span` counts them; its tags never count."""


@dataclass(frozen=True)
class Turn:
    """A student's chat that is complete: what it is asked with, and the whole assistant's turn."""

    prompt_ids: list[int]
    completion_ids: list[int]
    """Thought and solution with their tags, and the token that ends the turn."""
    explanation: slice
    """Where the explanation stands in the completion, its closing padding included."""


class Chat:
    """A tokenizer's chat template with known places for system prompt and question."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str = "layout.teacher_prompt or layout.student_prompt",
    ) -> None:
        """`prompt` is the setting of its system prompt, for sentences."""
        if not tokenizer.chat_template:
            raise ModelError(
                f"tokenizer {tokenizer.name_or_path!r} has no chat template; use an instruct model's "
                "tokenizer or add a chat_template to its tokenizer_config.json"
            )
        require_fast(tokenizer)
        self.tokenizer = tokenizer
        self._prompt = prompt
        self._frames: dict[bool, tuple[str, ...]] = {}
        self._trims = self._find_trims()
        self.end_of_turn = self._find_end_of_turn()
        self.end_of_turn_id = added_tokens(tokenizer)[self.end_of_turn]
        check_tokenizer(tokenizer, [*self._example(), Piece("It is 4.")])
        self._require_header()
        if self._is_dated():
            _warn_of_date(tokenizer.name_or_path)

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end a turn: the template's, and the tokenizer's own."""
        eos = self.tokenizer.eos_token_id
        return sorted({self.end_of_turn_id, *([eos] if isinstance(eos, int) else [])})

    def pieces(self, system: str | None, question: str) -> list[Piece]:
        """Return the chat up to the start of the assistant's turn.

        Tags that a system prompt names are the tags that the layout writes, also where they are tokens.
        """
        frame = self._frame(system is not None)
        if self._trims:
            system, question = system and system.strip(), question.strip()
        contents = [[Piece(question)]] if system is None else [split_at_tags(system), [Piece(question)]]
        pieces = [Piece(frame[0], trusted=True)]
        for content, after in zip(contents, frame[1:], strict=True):
            pieces += [*content, Piece(after, trusted=True)]
        return pieces

    def _example(self) -> list[Piece]:
        """Return a chat, without a system turn where the template has none; `pieces` refuses one."""
        question = "What is 2 + 2?"
        try:
            return self.pieces("Be brief.", question)
        except ModelError:
            return self.pieces(None, question)

    def _require_header(self) -> None:
        """Raise ModelError for a template that answers under a header, but does not write it into prompts."""
        user = {"role": "user", "content": _USER}
        prompt = self._render([user], add_generation_prompt=True)
        if prompt != self._render([user], add_generation_prompt=False):
            return
        turns = [user, {"role": "assistant", "content": _ASSISTANT}]
        before = self._render(turns, add_generation_prompt=False).partition(_ASSISTANT)[0]
        header = before.removeprefix(prompt).strip()
        if before.startswith(prompt) and header:
            raise ModelError(
                f"the chat template of {self.tokenizer.name_or_path!r} ignores add_generation_prompt, so "
                f"{header!r}, with which its answers begin, would be missing from every prompt; write it at "
                "the template's end, in {% if add_generation_prompt %}…{% endif %}"
            )

    def _is_dated(self) -> bool:
        """Whether the template writes today's date, by which its prompts change from day to day."""
        user = {"role": "user", "content": _USER}
        return _DATE in self._render([user], add_generation_prompt=True, strftime_now=lambda _: _DATE)

    def _frame(self, with_system: bool) -> tuple[str, ...]:
        if with_system not in self._frames:
            system = [{"role": "system", "content": _SYSTEM}] if with_system else []
            messages = [*system, {"role": "user", "content": _USER}]
            text = self._render(messages, add_generation_prompt=True)
            marks = [_SYSTEM, _USER] if with_system else [_USER]
            frame = []
            for mark in marks:
                before, found, text = text.partition(mark)
                if not found:
                    raise ModelError(
                        f"the chat template of {self.tokenizer.name_or_path!r} drops the "
                        f"{'system prompt' if mark == _SYSTEM else 'question'}; use a template that keeps it"
                        + (f", or an empty {self._prompt}" if mark == _SYSTEM else "")
                    )
                frame.append(before)
            self._frames[with_system] = (*frame, text)
        return self._frames[with_system]

    def _find_trims(self) -> bool:
        """Whether the template strips contents, as Llama 3's does."""
        content = f"\t{_USER}\t"
        return content not in self._render([{"role": "user", "content": content}], add_generation_prompt=True)

    def _find_end_of_turn(self) -> str:
        messages = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ASSISTANT}]
        tail = self._render(messages, add_generation_prompt=False).partition(_ASSISTANT)[2]
        controls = [c for c in added_tokens(self.tokenizer) if c in tail]
        if controls:
            return min(controls, key=tail.index)
        if self.tokenizer.eos_token:
            return str(self.tokenizer.eos_token)
        raise ModelError(
            f"tokenizer {self.tokenizer.name_or_path!r} has neither an end-of-turn token in its chat "
            "template nor an eos_token, so a model could never stop; set eos_token"
        )

    def _render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool, **names: Any) -> str:
        """Return a chat as the template writes it; `names` stand before what transformers defines for it."""
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt, **names
            )
        except TemplateError as error:
            raise ModelError(
                f"the chat template of {self.tokenizer.name_or_path!r} refuses a chat of the roles "
                f"{', '.join(m['role'] for m in messages)}: {error}; use another template, or for want of a "
                f"system role an empty {self._prompt}"
            ) from error
        assert isinstance(text, str)
        return text


def split_at_tags(text: str) -> list[Piece]:
    """Return an untrusted text whose tags, and nothing else, are trusted."""
    parts = re.split(f"({'|'.join(map(re.escape, sorted(TAG_STRINGS)))})", text)
    return [Piece(part, trusted=part in TAG_STRINGS) for part in parts if part]


@cache
def _warn_of_date(tokenizer: str) -> None:
    """Warn once of each tokenizer, since several layouts read its template."""
    logger.warning(
        "the chat template of %r writes today's date into every prompt (strftime_now), so that prompts "
        "differ from day to day, and from those of training: write a fixed date in chat_template.jinja",
        tokenizer,
    )


class TeacherLayout:
    """Prompts for the teacher, targets for its warm-up, and the explanation inside its samples."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tags: TagStyle, system_prompt: str) -> None:
        self.chat = Chat(tokenizer, "layout.teacher_prompt")
        self.tokenizer = tokenizer
        self.tags = tags
        self.system_prompt = system_prompt
        self._cut = Cut(tokenizer, tags.explanation.close)

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end a turn (see `Chat`)."""
        return self.chat.stop_token_ids

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Return the ids up to and including the opening explanation tag and its padding."""
        tags = self.tags
        pieces = [
            *self.chat.pieces(self.system_prompt or None, problem.question),
            Piece(tags.solution.open + PADDING, trusted=True),
            Piece(problem.solution.strip()),
            Piece(PADDING + tags.solution.close + PADDING + tags.explanation.open + PADDING, trusted=True),
        ]
        return encode(self.tokenizer, pieces).ids

    def completion_ids(self, explanation: str) -> list[int]:
        """Return what the teacher should write after the prompt: explanation, end tag, end of turn."""
        pieces = [
            Piece(explanation.strip()),
            Piece(PADDING + self.tags.explanation.close, trusted=True),
            Piece(self.chat.end_of_turn, trusted=True),
        ]
        return encode(self.tokenizer, pieces).ids

    def split(self, completion_ids: Sequence[int]) -> Explanation:
        """Cut the explanation out of sampled ids (see `Cut`)."""
        return self._cut(completion_ids)


class StudentLayout:
    """The student's sequence around an explanation.

    `system_prompt` None takes each problem's own `system` text, byte-exact, which must be `prompt_of_rows`
    where that is given; an empty string sends none. `turn_end` is the added token that ends the assistant's
    turn; None takes that of the chat template.
    `solution_span` says which tokens of a solution are scored: `content` those wholly inside its characters,
    `released` also the blank line after them, whether it is a token of its own or joined with the last
    character. The original finds that span by a search for the padded text, whose first blank line is
    joined with the opening tag and drops out; here it is known by construction.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tags: TagStyle,
        system_prompt: str | None,
        turn_end: str | None = None,
        *,
        prompt_of_rows: str | None = None,
        solution_span: str = "content",
    ) -> None:
        self.chat = Chat(tokenizer, "layout.student_prompt")
        self.tokenizer = tokenizer
        self.tags = tags
        self.system_prompt = system_prompt
        self.prompt_of_rows = prompt_of_rows
        self.turn_end = turn_end or self.chat.end_of_turn
        self.solution_span = solution_span

    @property
    def turn_end_id(self) -> int:
        """The id of the token that ends the assistant's turn."""
        return added_tokens(self.tokenizer)[self.turn_end]

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end a turn: the chat's (see `Chat`), and this layout's own."""
        return sorted({*self.chat.stop_token_ids, self.turn_end_id})

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Return the ids up to the start of the assistant's turn: what a student is asked with."""
        return encode(self.tokenizer, self._question(problem)).ids

    def prefix_ids(self, problem: Problem) -> list[int]:
        """Return the ids up to and including the opening thought tag and its padding."""
        pieces = [*self._question(problem), Piece(self.tags.thought.open + PADDING, trusted=True)]
        return encode(self.tokenizer, pieces).ids

    def explanation_ids(self, explanation: str) -> list[int]:
        """Return the ids of an explanation given as text, with its closing padding."""
        return encode(self.tokenizer, [Piece(explanation.strip() + PADDING)]).ids

    def opening_ids(self) -> list[int]:
        """Return the ids between explanation and solution: closing thought tag to the solution's padding."""
        return encode(self.tokenizer, [self._opening()]).ids

    def suffix(self, problem: Problem) -> Suffix:
        """Return closing thought tag, solution block and end of turn, and where the solution's tokens are.

        Raises DataError when no token lies wholly inside what counts of the solution.
        """
        encoded = self._encode_suffix(problem)
        has_text = bool(problem.solution.strip())  # a blank line alone is no solution
        last = _BLANK_LINE if has_text and self.solution_span == "released" else _CONTENT
        try:
            return Suffix(encoded.ids, encoded.tokens_of_pieces(_CONTENT, last))
        except DataError as error:
            raise DataError(f"problem {problem.id}: the solution cannot be scored: {error}") from error

    def turn(self, problem: Problem, explanation: str) -> Turn:
        """Return the chat with the explanation as the student's own thought.

        The ids are `prefix_ids`, `explanation_ids` and `suffix`, cut where the assistant's turn starts. A
        solution need not have a token of its own here.
        """
        prompt, prefix = self.prompt_ids(problem), self.prefix_ids(problem)
        opening = prefix[len(prompt) :]
        if prefix != prompt + opening:
            raise ModelError(
                f"tokenizer {self.tokenizer.name_or_path!r} joins the start of the assistant's turn with the "
                f"tag {self.tags.thought.open}, so the turn has no exact span; it is not supported"
            )
        thought = self.explanation_ids(explanation)
        span = slice(len(opening), len(opening) + len(thought))
        return Turn(prompt, opening + thought + self._encode_suffix(problem).ids, span)

    def messages(self, problem: Problem, explanation: str) -> list[dict[str, str]]:
        """Return the same chat as messages, which any fine-tuning tool can train on."""
        return student_messages(problem, explanation, self.tags, self.system_prompt)

    def _question(self, problem: Problem) -> list[Piece]:
        system = system_of(problem, self.system_prompt)
        if self.system_prompt is None and self.prompt_of_rows not in (None, system):
            raise DataError(
                f"problem {problem.id} has another system prompt than the student was trained with, as its "
                "rlt_layout.json says; use a dataset that carries that one, leave layout.student_prompt out, "
                "or take layout.override=true"
            )
        return self.chat.pieces(system or None, problem.question)

    def _encode_suffix(self, problem: Problem) -> Encoded:
        pieces = [
            self._opening(),
            Piece(problem.solution.strip()),  # _CONTENT
            Piece(PADDING, trusted=True),  # _BLANK_LINE
            Piece(self.tags.solution.close + self.turn_end, trusted=True),
        ]
        return encode(self.tokenizer, pieces)

    def _opening(self) -> Piece:
        return Piece(self.tags.thought.close + PADDING + self.tags.solution.open + PADDING, trusted=True)


def student_messages(
    problem: Problem, explanation: str, tags: TagStyle, system_prompt: str | None
) -> list[dict[str, str]]:
    """Return the student's chat as messages; `system_prompt` as in `StudentLayout`."""
    reply = tags.thought.wrap(explanation) + PADDING + tags.solution.wrap(problem.solution)
    system = system_of(problem, system_prompt)
    return [
        *([{"role": "system", "content": system}] if system else []),
        {"role": "user", "content": problem.question},
        {"role": "assistant", "content": reply},
    ]


def system_of(problem: Problem, system_prompt: str | None) -> str:
    """Return the system prompt that a student reads; `system_prompt` as in `StudentLayout`."""
    if system_prompt is not None:
        return system_prompt
    if not problem.system:
        raise DataError(
            f"problem {problem.id} has no system prompt, which layout.student_prompt=from_dataset reads "
            "from its `system` column; use a dataset that carries it, or set layout.student_prompt to "
            "from_dataset:NAME for the one text of another dataset, to file:PATH with the prompt that the "
            "student was trained with (or to default, if there is none)"
        )
    return problem.system
