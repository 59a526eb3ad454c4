"""Where question, solution and explanation are in the teacher's and the student's text, in token ids.

Teacher: system, question | <solution> s </solution> <explanation> t </explanation>
Student: system, question | <thought> t </thought> <solution> s </solution>

The teacher's prompt ends after the opening explanation tag and its padding; the model writes from there.
The student's sequence is prefix ids + the teacher's sampled ids + suffix ids, so every span is known and
both models score the same tokens (method sections 2 and 3). No model, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlt.errors import DataError, ModelError
from rlt.formats.chat import Chat, thinking_chat
from rlt.formats.cut import Cut
from rlt.formats.encode import Encoded, Piece, added_tokens, encode
from rlt.formats.tags import PADDING, Tag, TagStyle
from rlt.formats.template import TemplateSettings
from rlt.formats.turns import StudentForm, TurnStyle, student_form, turn_style
from rlt.records import Explanation, Problem

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
    """Where the explanation is in the completion, its closing padding included."""


class TeacherLayout:
    """Prompts for the teacher, targets for its warm-up, and the explanation inside its samples.

    Without `show_solution` the teacher has to explain a problem whose solution it does not see.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tags: TagStyle,
        system_prompt: str,
        template: TemplateSettings | None = None,
        *,
        show_solution: bool = True,
    ) -> None:
        self.chat = Chat(tokenizer, "layout.teacher_prompt", template, with_system=bool(system_prompt))
        self.show_solution = show_solution
        self.tokenizer = tokenizer
        self.tags = tags
        self.system_prompt = system_prompt
        self._cut = Cut(tokenizer, tags.explanation.close)

    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end a turn (see `Chat`)."""
        return self.chat.stop_token_ids

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Return the ids up to and including the opening explanation tag and its padding.

        Solution and explanation are an answer without a thought, so they follow what the template writes
        before one: not a thought that its generation prompt would open.
        """
        tags = self.tags
        pieces = [*self.chat.pieces(self.system_prompt or None, problem.question, self.chat.turn.plain[0])]
        opening = tags.explanation.open + PADDING
        if self.show_solution:
            pieces += [
                Piece(tags.solution.open + PADDING, trusted=True),
                Piece(problem.solution.strip()),
            ]
            opening = PADDING + tags.solution.close + PADDING + opening
        return encode(self.tokenizer, [*pieces, Piece(opening, trusted=True)]).ids

    def completion_ids(self, explanation: str) -> list[int]:
        """Return what the teacher should write after the prompt: explanation, end tag, end of turn."""
        pieces = [
            Piece(explanation.strip()),
            Piece(PADDING + self.tags.explanation.close, trusted=True),
            Piece(self.chat.closing(self.chat.turn.plain[1]) + self.chat.end_of_turn, trusted=True),
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
    `asks_only` is for students that think for themselves: their prompt may switch the thought off.
    """

    def __init__(  # noqa: PLR0913 - options by keyword
        self,
        tokenizer: PreTrainedTokenizerBase,
        tags: TagStyle,
        system_prompt: str | None,
        turn_end: str | None = None,
        *,
        prompt_of_rows: str | None = None,
        solution_span: str = "content",
        template: TemplateSettings | None = None,
        asks_only: bool = False,
    ) -> None:
        with_system, setting = system_prompt != "", "layout.student_prompt"
        self.chat = Chat(tokenizer, setting, template, with_system=with_system)
        if not asks_only:
            self.chat = thinking_chat(self.chat, tags, setting, with_system=with_system)
        turn = self.chat.turn
        after = turn.native[2] if tags.is_native else turn.plain[1]
        self.form: StudentForm = student_form(tags, turn, self.chat.closing(after))
        self.style: TurnStyle = turn_style(tags, turn)
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
        """Return the ids up to and including what opens the thought, with its padding."""
        pieces = [*self._question(problem), Piece(self.form.opening, trusted=True)]
        return encode(self.tokenizer, pieces).ids

    def explanation_ids(self, explanation: str) -> list[int]:
        """Return the ids of an explanation given as text, with its closing padding."""
        return encode(self.tokenizer, [Piece(explanation.strip() + self.form.padding)]).ids

    def opening_ids(self) -> list[int]:
        """Return the ids between explanation and solution, from what closes the thought on."""
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

    def suffix_ids(self, problem: Problem) -> list[int]:
        """Return the ids of the suffix; its solution need not have a token of its own."""
        return self._encode_suffix(problem).ids

    def turn(self, problem: Problem, explanation: str) -> Turn:
        """Return the chat with the explanation as the student's own thought.

        The ids are `prefix_ids`, `explanation_ids` and `suffix`, cut where the assistant's turn starts. A
        solution need not have a token of its own here.
        """
        prompt, prefix = self.prompt_ids(problem), self.prefix_ids(problem)
        opening = prefix[len(prompt) :]
        if prefix != prompt + opening:
            raise ModelError(
                f"tokenizer {self.tokenizer.name_or_path!r} joins the start of the assistant's turn with "
                f"{self.form.opening!r}, so the turn has no exact span; it is not supported"
            )
        thought = self.explanation_ids(explanation)
        span = slice(len(opening), len(opening) + len(thought))
        return Turn(prompt, opening + thought + self.suffix_ids(problem), span)

    def under(self, system_prompt: str) -> StudentLayout:
        """Return the layout under another system prompt."""
        settings = self.chat.template.settings
        return StudentLayout(self.tokenizer, self.tags, system_prompt, self.turn_end, template=settings)

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
        return self.chat.pieces(system or None, problem.question, self.form.prompt)

    def _encode_suffix(self, problem: Problem) -> Encoded:
        pieces = [
            self._opening(),
            Piece(problem.solution.strip()),  # _CONTENT
            Piece(self.form.answer_padding, trusted=True),  # _BLANK_LINE
            Piece(self.form.end + self.turn_end, trusted=True),
        ]
        return encode(self.tokenizer, pieces)

    def _opening(self) -> Piece:
        return Piece(self.form.between, trusted=True)


@dataclass(frozen=True)
class StudentMessages:
    """Chats of students whose tokenizer is not known yet; `system_prompt` as in `StudentLayout`."""

    tags: TagStyle
    system_prompt: str | None

    def messages(self, problem: Problem, explanation: str) -> list[dict[str, str]]:
        """Return a chat with the explanation as the student's thought."""
        return student_messages(problem, explanation, self.tags, self.system_prompt)


def student_messages(
    problem: Problem, explanation: str, tags: TagStyle, system_prompt: str | None
) -> list[dict[str, str]]:
    """Return the student's chat as messages; `system_prompt` as in `StudentLayout`."""
    reply = tags.thought.wrap(explanation) + PADDING + tags.solution.wrap(problem.solution)
    if tags.is_native:
        reply = _plain_think(tags.thought, explanation, problem.solution)
    system = system_of(problem, system_prompt)
    return [
        *([{"role": "system", "content": system}] if system else []),
        {"role": "user", "content": problem.question},
        {"role": "assistant", "content": reply},
    ]


def _plain_think(tag: Tag, thought: str, answer: str) -> str:
    """Return a turn in the form that most templates read as thought and answer, for students yet unknown.

    Not in a key of its own (`reasoning_content`): templates that do not know it would drop the thought.
    """
    return f"{tag.open}\n{thought.strip()}\n{tag.close}\n\n{answer.strip()}"


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
