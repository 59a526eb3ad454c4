"""How a model's turn is written: thought and answer in its own form, or in a style's tags inside of it.

A template's native form is what it writes around a message's thought and answer. Where it drops thoughts, the
form is a record of STYLES. Where the generation prompt has opened the thought, every style continues it: the
thought is then the model's own, and a style's tags are around the solution alone.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass

from rlt.errors import ModelError
from rlt.formats.tags import PADDING, Tag, TagStyle
from rlt.formats.template import ANSWER, THOUGHT, THOUGHT_KEYS, Template


@dataclass(frozen=True)
class ThoughtStyle:
    """How a family writes a thought that its template does not write."""

    marker: str
    """The templates of the family, and no others, have it in their source."""
    open: str
    close: str
    """What comes between the thought and what begins an answer without one."""


_THINK = ThoughtStyle("", "<think>\n", "\n</think>\n\n")
STYLES = (
    ThoughtStyle("<|channel>", "<|channel>thought\n", "\n<channel|>"),  # Gemma 4
    ThoughtStyle(
        "<|channel|>analysis", "<|channel|>analysis<|message|>", "<|end|><|start|>assistant"
    ),  # gpt-oss
    ThoughtStyle("[THINK]", "[THINK]", "[/THINK]"),  # Magistral, Ministral 3
    ThoughtStyle("<|START_THINKING|>", "<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
)
"""Families whose templates may drop thoughts; all others write `<think>`, as the last record has it."""


@dataclass(frozen=True)
class TurnTexts:
    """What a template writes after a question. All texts begin at the end of the question."""

    prompt: str
    """The generation prompt."""
    plain: tuple[str, str]
    """Before and after an answer without a thought."""
    native: tuple[str, str, str]
    """Before a thought, between it and the answer, and after the answer."""
    thought: Tag
    """What opens and closes a thought, without white space."""

    @property
    def is_emptied(self) -> bool:
        """The generation prompt holds an empty thought: the model is to answer without one."""
        return self.thought.open in self.prompt and self.prompt.rstrip().endswith(self.thought.close)

    @property
    def is_opened(self) -> bool:
        """The generation prompt ends inside a thought."""
        return self.prompt.rstrip().endswith(self.thought.open)

    @property
    def lead(self) -> str:
        """What the model writes before an answer without a thought, an empty thought not counted."""
        before = self.plain[0]
        if not before.startswith(self.prompt) or self.thought.close in before[len(self.prompt) :]:
            return ""
        return before[len(self.prompt) :]


def read_turn(template: Template, prompt: str, *, with_system: bool) -> TurnTexts:
    """Return how a template writes a turn after `prompt`, its generation prompt.

    Raises ModelError where prompt and turns do not begin alike.
    """

    def rendered(reply: dict[str, str]) -> str:
        return template.after_question(reply, with_system=with_system) or ""

    before, found, after = rendered({"content": ANSWER}).partition(ANSWER)
    if not found:
        raise ModelError(f"{template.owner} drops the assistant's text; use a template that keeps it")
    plain = before, after
    for key in THOUGHT_KEYS:
        if parts := _three(rendered({key: THOUGHT, "content": ANSWER})):
            return _checked(template, prompt, plain, parts)
    style = next((style for style in STYLES if style.marker in template.source), None)
    if style is None:
        content = f"{_THINK.open}{THOUGHT}{_THINK.close}{ANSWER}"
        parts = _three(rendered({"content": content}))
        if parts and parts[0].endswith(_THINK.open):
            return _checked(template, prompt, plain, _as_prompted(prompt, parts))
    style = style or _THINK
    base = _common(prompt, plain[0])
    if style.open.strip() in base:  # opened by the prompt, emptied by the turn
        base = base[: base.rindex(style.open.strip())]
    lead = plain[0].removeprefix(base)
    lead = "" if style.open.strip() in lead else lead
    parts = base + style.open, style.close + lead, plain[1]
    return _checked(template, prompt, plain, _as_prompted(prompt, parts))


def _three(text: str) -> tuple[str, str, str] | None:
    """Return what is around thought and answer; None unless both are there, once and in this order."""
    before, _, rest = text.partition(THOUGHT)
    between, found, after = rest.partition(ANSWER)
    return (before, between, after) if found and THOUGHT not in rest else None


def _as_prompted(prompt: str, parts: tuple[str, str, str]) -> tuple[str, str, str]:
    """Return a form whose white space after the opening tag is the prompt's, where that opens the thought."""
    before, between, after = parts
    return (prompt, between, after) if before.rstrip() == prompt.rstrip() else parts


def _checked(
    template: Template, prompt: str, plain: tuple[str, str], native: tuple[str, str, str]
) -> TurnTexts:
    before, between, _ = native
    opened = before[len(_common(prompt, plain[0], before)) :].strip()
    opened = opened or before[max(before.rfind("<"), before.rfind("[")) :].strip()
    texts = TurnTexts(prompt, plain, native, Tag(opened, between.strip()))
    begins = before.startswith(prompt.rstrip()) or plain[0].startswith(prompt.rstrip())
    if not begins and not texts.is_opened and not texts.is_emptied:
        raise ModelError(
            f"{template.owner} ends prompts with {prompt!r}, but begins answers with {plain[0]!r}, so a "
            "model would not continue as it was trained; correct the template's add_generation_prompt"
        )
    return texts


def _common(*texts: str) -> str:
    """Return how all texts begin, without a tag that is cut."""
    alike = os.path.commonprefix(texts)  # noqa: RUF071 - characters are meant, not paths
    return re.sub(r"<[^<>]*$", "", alike)


@dataclass(frozen=True)
class StudentForm:
    """A student's turn after its question, in the pieces that are encoded."""

    prompt: str
    """What it is asked with."""
    opening: str
    """From there to its thought."""
    padding: str
    """After the thought, and of its span."""
    between: str
    """From there to the answer."""
    answer_padding: str
    """After the answer, and of its `released` span."""
    end: str
    """From there to the token that ends the turn."""


def student_form(tags: TagStyle, texts: TurnTexts, closing: str) -> StudentForm:
    """Return how a student's turn is written in a style; `closing` is before the end of a turn."""
    before, between, _ = texts.native
    opening = before[len(texts.prompt.rstrip()) :].removeprefix(texts.prompt[len(texts.prompt.rstrip()) :])
    if tags.is_native:
        padding = between[: len(between) - len(between.lstrip())]
        return StudentForm(texts.prompt, opening, padding, between[len(padding) :], "", closing)
    if texts.is_opened:
        close = texts.thought.close
    else:
        close, opening = tags.thought.close, texts.lead + tags.thought.open + PADDING
    solution = tags.solution
    middle = close + PADDING + solution.open + PADDING
    return StudentForm(texts.prompt, opening, PADDING, middle, PADDING, solution.close + closing)


@dataclass(frozen=True)
class TurnStyle:
    """What the turns of a student look like, for those who read them (answer.py, reply.py)."""

    tags: TagStyle
    thought: Tag
    """Around a thought."""
    native: Tag
    """Around a thought in the model's own form, which it may keep to in a run of other tags."""
    prompt_opens: bool = False
    """The prompt ends inside a thought, so that a turn begins in it."""
    prompt_empties: bool = False
    """The prompt holds an empty thought, so that a turn has none."""
    lead: str = ""
    """What the model writes before an answer without a thought."""

    @property
    def is_bare(self) -> bool:
        """An answer has no tags: it is what follows the thought."""
        return self.tags.is_native

    @property
    def literal(self) -> str:
        """All that a turn may hold besides texts: its tokens do not end it."""
        return " ".join((*self.tags.strings, self.thought.open, self.thought.close, self.native.open,
                         self.native.close, self.lead))  # fmt: skip


def turn_style(tags: TagStyle, texts: TurnTexts | None = None) -> TurnStyle:
    """Return how turns are read that follow a template's prompt; without one, a prompt that opens nothing."""
    if texts is None:
        return TurnStyle(tags, tags.thought, tags.thought)
    own = tags.is_native or texts.is_opened
    thought = texts.thought if own else tags.thought
    return TurnStyle(tags, thought, texts.thought, texts.is_opened, texts.is_emptied, texts.lead.strip())
