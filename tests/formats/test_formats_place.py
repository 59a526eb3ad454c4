"""Where a student's tokens are in the sequence of a teacher that knows the solution: by hand."""

from __future__ import annotations

import copy

import pytest

from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.place import ExplanationPlaces, QuestionPlaces, ThoughtFinder
from rlt.formats.tags import NATIVE, TAG_STYLES
from rlt.records import Problem

BESPOKE = TAG_STYLES["bespoke"]
PROBLEM = Problem("id", "2+2", "4")
THOUGHT = "2+2=4"
OPEN, CLOSE = "<|begin_of_thought|>\n\n", "<|end_of_thought|>"
ANSWER = "\n\n<|begin_of_solution|>\n\n4\n\n<|end_of_solution|>"


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture
def places(tokenizer):
    student = StudentLayout(tokenizer, BESPOKE, "Think.", asks_only=True)
    return ExplanationPlaces(TeacherLayout(tokenizer, BESPOKE, "Explain."), student, same_ids=True)


def test_the_thought_takes_the_explanations_place(tokenizer, places):
    completion = ids_of(tokenizer, f"{OPEN}{THOUGHT}\n\n{CLOSE}{ANSWER}<|im_end|>")
    opening, thought = ids_of(tokenizer, OPEN), ids_of(tokenizer, f"{THOUGHT}\n\n")
    assert completion[: len(opening) + len(thought)] == opening + thought
    place = places(PROBLEM, completion)
    prompt = places.prompt_ids(PROBLEM)
    text = tokenizer.decode(prompt)
    assert text.endswith("<|begin_of_solution|>\n\n4\n\n<|end_of_solution|>\n\n<|begin_of_explanation|>\n\n")
    assert place.ids[: len(prompt) + len(thought)] == prompt + thought
    # Token after token: the first one of the thought stands where the explanation begins.
    count = len(thought)
    expected = [(len(opening) + i, len(prompt) + i) for i in range(count)]
    assert place.tokens()[:count] == expected

    closing, theirs = ids_of(tokenizer, CLOSE), ids_of(tokenizer, "<|end_of_explanation|>")
    rest, after = place.ids[len(prompt) + count :], place.tokens()[count:]
    if len(closing) == 1:  # one entry of the vocabulary on either side: another id, the same meaning
        assert rest == theirs
        assert places.renamed == (theirs[0], closing[0])
        assert after == [(len(opening) + count, len(prompt) + count)]
    else:  # <|end_of_ begins both tags; what the tags differ in is decided then
        assert tokenizer.decode(rest).startswith("<|end")
        assert rest == closing[: len(rest)] == theirs[: len(rest)]
        assert closing[len(rest)] != theirs[len(rest)]
        assert places.renamed is None
        assert after == [(len(opening) + count + i, len(prompt) + count + i) for i in range(len(rest))]
    # The answer has no place: the teacher has read the solution before.
    assert max(own for own, _ in place.tokens()) < len(opening) + count + len(closing)


def test_a_thought_that_is_cut_goes_on_to_its_end(tokenizer, places):
    completion = ids_of(tokenizer, f"{OPEN}{THOUGHT}")
    opening, prompt = ids_of(tokenizer, OPEN), places.prompt_ids(PROBLEM)
    place = places(PROBLEM, completion)
    assert place.ids == prompt + completion[len(opening) :]
    assert len(place.chunks) == len(completion) - len(opening)


def test_a_turn_that_ends_inside_of_the_thought(tokenizer, places):
    completion = ids_of(tokenizer, f"{OPEN}{THOUGHT}<|im_end|>")
    place = places(PROBLEM, completion)
    assert place.ids[-1] == ids_of(tokenizer, "<|im_end|>")[0]  # the teacher says how likely that is
    assert place.tokens()[-1] == (len(completion) - 1, len(place.ids) - 1)


@pytest.mark.parametrize("text", ["4", f"So: {OPEN}{THOUGHT}", f"{THOUGHT}\n\n{CLOSE}{ANSWER}"])
def test_without_a_thought_at_its_start_nothing_has_a_place(tokenizer, places, text: str):
    place = places(PROBLEM, ids_of(tokenizer, text))
    assert place.ids == places.prompt_ids(PROBLEM)
    assert place.chunks == []


def test_an_empty_thought_has_its_end_alone(tokenizer, places):
    completion = ids_of(tokenizer, f"{OPEN}{CLOSE}{ANSWER}<|im_end|>")
    place = places(PROBLEM, completion)
    first = len(ids_of(tokenizer, OPEN))
    assert place.tokens()[0] == (first, len(places.prompt_ids(PROBLEM)))


def test_a_token_that_joins_tag_and_text_leaves_no_exact_place(qwen_tokenizer):
    # Without padding the real tokenizer writes `>(` as one token, so the thought has no first token.
    student = StudentLayout(qwen_tokenizer, BESPOKE, "Think.", asks_only=True)
    completion = ids_of(qwen_tokenizer, "<|begin_of_thought|>(2+2)=4")
    assert any(qwen_tokenizer.decode([i]) == ">(" for i in completion)
    assert ThoughtFinder(student)(completion) is None


def test_another_tokenizer_shares_boundaries_of_text(qwen_tokenizer, tiny_tokenizer):
    student = StudentLayout(qwen_tokenizer, BESPOKE, "Think.", asks_only=True)
    teacher = TeacherLayout(tiny_tokenizer, BESPOKE, "Explain.")
    places = ExplanationPlaces(teacher, student, same_ids=False)
    thought = "7*9+7=70\n0*3=0"
    completion = ids_of(qwen_tokenizer, f"{OPEN}{thought}\n\n{CLOSE}{ANSWER}<|im_end|>")
    place = places(PROBLEM, completion)
    prompt = teacher.prompt_ids(PROBLEM)
    assert place.ids[: len(prompt)] == prompt
    assert tiny_tokenizer.decode(place.ids[len(prompt) :]) == f"{thought}\n\n<|end_of_explanation|>"
    at_own, at_theirs = len(ids_of(qwen_tokenizer, OPEN)), len(prompt)
    for own, theirs in place.chunks:  # without gaps on either side, and of the same text
        assert (own.start, theirs.start) == (at_own, at_theirs)
        texts = qwen_tokenizer.decode(completion[own]), tiny_tokenizer.decode(place.ids[theirs])
        # The real tokenizer joins the end of the tag with the blank line that follows it.
        same = texts[0].replace(f"{CLOSE}\n\n", "<|end_of_explanation|>")
        assert same == texts[1]
        at_own, at_theirs = own.stop, theirs.stop
    assert at_theirs == len(place.ids)
    assert len(place.chunks) > 5


def test_a_native_thought_ends_with_padding_of_its_own(qwen_tokenizer):
    """The student writes `.` + newline + </think>, the teacher a blank line + its tag: one chunk."""
    student = StudentLayout(qwen_tokenizer, NATIVE, "Think.", asks_only=True)
    teacher = TeacherLayout(qwen_tokenizer, NATIVE, "Explain.")
    places = ExplanationPlaces(teacher, student, same_ids=True)
    completion = ids_of(qwen_tokenizer, "<think>\nTwo and two make four.\n</think>\n\n4<|im_end|>")
    place = places(PROBLEM, completion)
    own, theirs = place.chunks[-1]
    assert (
        qwen_tokenizer.decode(completion[own])
        == ".\n</think>\n\n"[: len(qwen_tokenizer.decode(completion[own]))]
    )
    assert qwen_tokenizer.decode(place.ids[theirs]) == ".\n\n<|end_of_explanation|>"
    assert all(a.stop - a.start == b.stop - b.start == 1 for a, b in place.chunks[:-1])
    assert [completion[a] for a, _ in place.tokens()] == [place.ids[b] for _, b in place.tokens()]


def test_with_the_solution_in_the_question_the_whole_completion_follows(tokenizer):
    student = StudentLayout(tokenizer, BESPOKE, "Think.", asks_only=True)
    places = QuestionPlaces(student, "{question}\n\n{solution}")
    completion = ids_of(tokenizer, f"{OPEN}{THOUGHT}\n\n{CLOSE}{ANSWER}<|im_end|>")
    place = places(Problem("id", "2+{solution}", "4"), completion)
    prompt = student.prompt_ids(Problem("id", "2+{solution}\n\n4", "4"))
    assert place.ids == prompt + completion
    assert place.tokens() == [(i, len(prompt) + i) for i in range(len(completion))]


@pytest.mark.parametrize(
    ("style", "single", "expected"),
    [
        ("bespoke", [], True),
        ("bespoke", ["<|end_of_thought|>", "<|end_of_explanation|>"], True),  # each stands for the other
        ("bespoke", ["<|end_of_thought|>"], False),
        ("r1", ["</think>"], False),
        ("r1", ["</think>", "</explanation>"], True),
    ],
)
def test_whether_both_ends_are_tokens(qwen_tokenizer, style, single, expected):
    """On the real tokenizer, in which no tag is one token, and `</` and `<|end_of` begin two of them."""
    tokenizer, tags = copy.deepcopy(qwen_tokenizer), TAG_STYLES[style]
    tokenizer.add_tokens(single, special_tokens=True)
    student = StudentLayout(tokenizer, tags, "Think.", asks_only=True)
    places = ExplanationPlaces(TeacherLayout(tokenizer, tags, "Explain."), student, same_ids=True)
    assert places.ends_by_a_token is expected
