"""Layouts over all chat templates that the installed TRL ships: byte for byte what a template writes."""

from __future__ import annotations

import datetime

import pytest
from helpers.families import FAMILIES, REFUSED, TEMPLATES, build, family_tokenizer

from rlt.errors import ModelError
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import NATIVE, PADDING, TAG_STYLES
from rlt.formats.template import TemplateSettings
from rlt.records import Problem

PROBLEM = Problem("p", "What is 2 + 2? Say why.", "It is $4$.")
EXPLANATION = "Two and two.\n\nSo it is 4."
EVERY = pytest.mark.parametrize("name", FAMILIES)
SYSTEMS = pytest.mark.parametrize("system", ["Think first.", ""])


def clock(form: str) -> str:
    return datetime.datetime(2025, 1, 1).strftime(form)


def chat(name: str, system: str, reply: dict[str, str] | None = None, **switches) -> str:
    """Return a chat as transformers' own call of the template writes it."""
    messages = [
        *([{"role": "system", "content": system}] if system else []),
        {"role": "user", "content": PROBLEM.question},
        *([{"role": "assistant", **reply}] if reply else []),
    ]
    return str(
        family_tokenizer(name).apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not reply, strftime_now=clock, **switches
        )
    )


def to_the_end(name: str, text: str) -> str:
    """Return a finished chat up to the token that ends its last turn."""
    family = FAMILIES[name]
    if not family.ends:
        return text + family.end
    return text[: text.rindex(family.end) + len(family.end)]


def text_of(name: str, ids: list[int]) -> str:
    return family_tokenizer(name).decode(ids, clean_up_tokenization_spaces=False)


def skip_without_system(name: str, system: str) -> None:
    if system and not FAMILIES[name].has_system:
        pytest.skip("has no system role: see the test of its refusal")


def native_turn(name: str, system: str) -> str:
    """Return thought and answer in a family's own form, by its template or by the record of the table."""
    family = FAMILIES[name]
    if family.key:
        return chat(name, system, {family.key: EXPLANATION, "content": PROBLEM.solution})
    if family.record is None:
        content = f"<think>\n{EXPLANATION}\n</think>\n\n{PROBLEM.solution}"
        return chat(name, system, {"content": content})
    before, between = family.record
    text = chat(name, system, {"content": PROBLEM.solution})
    at = text.rindex(PROBLEM.solution)
    return f"{text[:at]}{before}{EXPLANATION}{between}{text[at:]}"


def test_the_table_has_every_template():
    assert FAMILIES.keys() | REFUSED.keys() == TEMPLATES.keys()
    assert len(TEMPLATES) == 41
    assert len(REFUSED) <= 6


@EVERY
@SYSTEMS
def test_a_students_turn_is_what_the_template_writes(name, system):
    skip_without_system(name, system)
    layout = StudentLayout(family_tokenizer(name), NATIVE, system)
    suffix = layout.suffix(PROBLEM)
    ids = layout.prefix_ids(PROBLEM) + layout.explanation_ids(EXPLANATION) + suffix.ids
    assert text_of(name, ids) == to_the_end(name, native_turn(name, system))
    assert text_of(name, suffix.ids[suffix.solution]) == PROBLEM.solution
    turn = layout.turn(PROBLEM, EXPLANATION)
    assert turn.prompt_ids + turn.completion_ids == ids


@EVERY
@SYSTEMS
def test_a_student_is_asked_with_the_generation_prompt(name, system):
    """Where its template would leave thoughts empty, with that of the template's own switch."""
    skip_without_system(name, system)
    for tags in (NATIVE, *TAG_STYLES.values()):
        alone = StudentLayout(family_tokenizer(name), tags, system, asks_only=True)
        assert text_of(name, alone.prompt_ids(PROBLEM)) == chat(name, system)
    thinking = StudentLayout(family_tokenizer(name), NATIVE, system)
    switches = {"enable_thinking": True} if FAMILIES[name].state == "emptied" else {}
    assert text_of(name, thinking.prompt_ids(PROBLEM)) == chat(name, system, **switches)
    assert thinking.style.prompt_opens == (FAMILIES[name].state != "absent")
    assert alone.style.prompt_empties == (FAMILIES[name].state == "emptied")


@EVERY
@SYSTEMS
@pytest.mark.parametrize("tags", [*TAG_STYLES.values(), NATIVE], ids=lambda tags: tags.name)
def test_a_teachers_turn_is_an_answer_without_a_thought(name, system, tags):
    skip_without_system(name, system)
    layout = TeacherLayout(family_tokenizer(name), tags, system)
    ids = layout.prompt_ids(PROBLEM) + layout.completion_ids(EXPLANATION)
    content = tags.solution.wrap(PROBLEM.solution) + PADDING + tags.explanation.wrap(EXPLANATION)
    assert text_of(name, ids) == to_the_end(name, chat(name, system, {"content": content}))


@EVERY
@pytest.mark.parametrize("tags", TAG_STYLES.values(), ids=TAG_STYLES)
def test_no_style_opens_a_thought_twice(name, tags):
    """With bespoke or r1 tags, 10 templates had their own opening tag and ours one after the other."""
    layout = StudentLayout(family_tokenizer(name), tags, "")
    prompt, prefix = layout.prompt_ids(PROBLEM), layout.prefix_ids(PROBLEM)
    text = text_of(name, prefix[len(prompt) :])
    state = FAMILIES[name].state
    if state == "opened" or (state == "emptied" and tags.name == "r1"):
        assert (text, layout.style.thought.close) == ("", "</think>")
    else:
        assert text.endswith(tags.thought.open + PADDING)
        assert text.count(tags.thought.open) == 1
    close = layout.style.thought.close + PADDING + tags.solution.open + PADDING + PROBLEM.solution
    assert text_of(name, layout.suffix(PROBLEM).ids).startswith(close + PADDING + tags.solution.close)


@pytest.mark.parametrize("name", REFUSED)
def test_templates_that_read_no_texts_are_refused(name):
    for layout in (StudentLayout, TeacherLayout):
        with pytest.raises(ModelError, match=rf"'{name}' reads each message as a list of parts, as those of"):
            layout(family_tokenizer(name), NATIVE, "")


@pytest.mark.parametrize("layout", [StudentLayout, TeacherLayout])
def test_gemma_has_no_system_role_and_says_so_at_once(layout):
    with pytest.raises(ModelError, match=r"System role not supported; .* an empty layout\.\w+_prompt$"):
        layout(family_tokenizer("gemma"), NATIVE, "Think first.")
    layout(family_tokenizer("gemma"), NATIVE, "")


def test_a_thought_that_was_switched_off_is_not_explained_in():
    off = TemplateSettings({"enable_thinking": False})
    for name in ("qwen3", "qwen3_6", "nemotron_3_nano"):
        tokenizer = family_tokenizer(name)
        with pytest.raises(ModelError, match=r"leaves the thought empty .*=\{enable_thinking: true\}, or"):
            StudentLayout(tokenizer, NATIVE, "", template=off)
        asked = StudentLayout(tokenizer, NATIVE, "", template=off, asks_only=True)
        assert text_of(name, asked.prompt_ids(PROBLEM)) == chat(name, "", enable_thinking=False)
        bespoke = StudentLayout(tokenizer, TAG_STYLES["bespoke"], "", template=off)
        prefix = chat(name, "", enable_thinking=False) + TAG_STYLES["bespoke"].thought.open + PADDING
        assert text_of(name, bespoke.prefix_ids(PROBLEM)) == prefix


def test_the_clock_of_a_template_stands_still():
    name = "llama3_2"
    for date, shown in (("2025-01-01", "01 Jan 2025"), ("2024-07-26", "26 Jul 2024")):
        layout = StudentLayout(family_tokenizer(name), NATIVE, "", template=TemplateSettings({}, date))
        assert f"Today Date: {shown}\n" in text_of(name, layout.prompt_ids(PROBLEM))
        assert layout.chat.is_dated
    assert not StudentLayout(family_tokenizer("qwen3"), NATIVE, "").chat.is_dated


TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (TURNS.replace("{{ m['content'] }}", "{{ m['content'] }} {{ m['content'] }}"),
         "writes the question twice"),
        (TURNS + "{today}", r"leaves the placeholder '\{today\}' in its prompts"),
        (TURNS.replace("assistant\n{%", "ASSISTANT\n{%"), "ends prompts with .*but begins answers with"),
        (TURNS.replace("{{ m['content'] }}", "{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}"),
         "drops the assistant's text"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_laid_out_is_refused(template, message):
    with pytest.raises(ModelError, match=message):
        StudentLayout(build("own", template, "<|im_end|>"), NATIVE, "")


@pytest.mark.parametrize(
    ("name", "template", "opening"),
    [
        ("olmo3", TURNS.replace("assistant\n{%", "assistant\n<think>{%"), ""),  # its prompt has no line break
        ("smollm3", TURNS, "<think>\n"),
    ],
)
def test_thoughts_of_templates_that_write_contents_as_they_are(name, template, opening):
    tokenizer = build(name, template, "<|im_end|>")
    layout = StudentLayout(tokenizer, NATIVE, "")
    prompt, prefix = layout.prompt_ids(PROBLEM), layout.prefix_ids(PROBLEM)
    assert tokenizer.decode(prefix[len(prompt) :]) == opening
    assert layout.style.prompt_opens == (opening == "")
    assert tokenizer.decode(layout.suffix(PROBLEM).ids) == "</think>\n\nIt is $4$.<|im_end|>"
