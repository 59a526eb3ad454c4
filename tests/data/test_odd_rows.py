"""Values that stand for something else: numbers, missing-value marks, thoughts under a key of their own."""

from __future__ import annotations

import unicodedata
from decimal import Decimal

import pytest

from rlt.config.schema import DataSettings
from rlt.data.load import count_overlap, load_problems
from rlt.data.rows import choose_format, to_problem
from rlt.data.traces import load_traces
from rlt.errors import DataError
from rlt.formats.tags import TAG_STYLES
from rlt.records import Problem

BESPOKE = TAG_STYLES["bespoke"]


def read(row: dict, columns: dict[str, str] | None = None) -> Problem:
    return to_problem(row, choose_format("auto", columns or {}, list(row), "d.jsonl"), BESPOKE)


# Numbers as solutions


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (0, "0"), (-3, "-3"), (0.5, "0.5"), (Decimal("1.50"), "1.50")]
)
def test_a_number_is_a_solution_as_it_is_an_answer(value, text):
    problem = read({"question": "q", "solution": value, "answer": value})
    assert (problem.solution, problem.answer) == (text, text)
    assert problem.id == read({"question": "q", "solution": text}).id
    assert (
        read({"problem": "q", "answer": value}, {"question": "problem", "solution": "answer"}).solution
        == text
    )


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), [7], {"a": 7}])
def test_what_is_no_number_stays_refused(value):
    with pytest.raises(DataError, match="`solution` must be text"):
        read({"question": "q", "solution": value})


# Marks of missing values


@pytest.mark.parametrize("mark", ["nan", "NaN", " nan ", "<NA>", "NaT", "#N/A"])
@pytest.mark.parametrize("field", ["question", "solution", "reasoning_trace", "answer", "system"])
def test_a_mark_of_a_missing_value_is_no_text(mark, field):
    with pytest.raises(DataError, match=rf"`{field}` is '{mark.strip()}', which .* for a missing value"):
        read({"question": "q", "solution": "s", field: mark})


def test_a_mark_of_a_missing_value_in_turns_and_explanations(tmp_path, write_jsonl):
    turns = [{"role": "user", "content": "nan"}, {"role": "assistant", "content": "<think>t</think>2"}]
    with pytest.raises(DataError, match="is 'nan'"):
        read({"messages": turns})
    source = write_jsonl(tmp_path / "a.jsonl", [{"question": "q", "solution": "s", "explanation": "nan"}])
    with pytest.raises(DataError, match="line 1: `explanation` is 'nan'"):
        load_traces(DataSettings(), source, BESPOKE)


def test_words_that_hold_a_mark_are_text():
    assert read({"question": "Is 0/0 nan?", "solution": "It is NaN."}).solution == "It is NaN."


def test_words_that_may_mean_a_missing_value_are_counted(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("question,solution\nq1,None\nq2,null\nq3,4\nq4,N/A\n")
    rows = load_problems(DataSettings(), str(tmp_path / "a.csv"), BESPOKE, need_trace=False)
    assert [problem.solution for problem in rows.values] == ["None", "null", "4", "N/A"]
    assert "3 of 4 solutions are only 'None', 'null' or 'N/A'" in caplog.text
    caplog.clear()
    (tmp_path / "b.csv").write_text("question,solution\nq1,None of them\n")
    load_problems(DataSettings(), str(tmp_path / "b.csv"), BESPOKE, need_trace=False)
    assert not caplog.text


# Thoughts under a key of their own


def conversation(**reply) -> dict:
    return {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", **reply}]}


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_a_thought_under_its_own_key(key):
    problem = read(conversation(**{key: " One and one. ", "content": " 2\n"}))
    assert (problem.question, problem.reasoning_trace, problem.solution) == ("1+1?", "One and one.", "2")
    spelled = {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2", key: "t"}]}
    assert read(spelled).reasoning_trace == "t"
    # a parquet column has every key in every turn, and a thought that is null is none
    tagged = conversation(**{key: None, "content": "<think>t</think>2"})
    assert (read(tagged).reasoning_trace, read(tagged).solution) == ("t", "2")


def test_a_reply_of_typed_parts():
    parts = [
        {"type": "thinking", "thinking": "One."},
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "2"},
    ]
    problem = read(conversation(content=parts))
    assert (problem.reasoning_trace, problem.solution) == ("One.", "It is 2")
    asked = {"role": "user", "content": [{"type": "text", "text": "1+1?"}]}
    tagged = {"role": "assistant", "content": [{"type": "text", "text": "<think>t</think>2"}]}
    problem = read({"messages": [asked, tagged]})
    assert (problem.question, problem.reasoning_trace, problem.solution) == ("1+1?", "t", "2")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            {"reasoning_content": "a", "content": "<think>b</think>2"},
            "a thought in `reasoning_content` and in its tags",
        ),
        (
            {"reasoning_content": "a", "thinking": "b", "content": "2"},
            "several thoughts: reasoning_content, thinking",
        ),
        ({"reasoning_content": "a", "content": " "}, "empty solution"),
        ({"reasoning_content": 3, "content": "2"}, "must be text, got int"),
        ({"thinking": "a", "content": None}, "must have from and value, or role and content"),
        (
            {"content": [{"type": "image", "url": "x"}]},
            "has a part of type 'image', must be text or thinking",
        ),
    ],
)
def test_thoughts_that_are_not_clear(reply, reason):
    with pytest.raises(DataError) as error:
        read(conversation(**reply))
    assert reason in str(error.value)


# Overlap of held-out questions


def problems(*questions: str) -> list[Problem]:
    return [Problem(str(i), question, "1") for i, question in enumerate(questions)]


def test_overlap_is_counted_whatever_form_a_text_has():
    """An é is one character or two; a text may have gone through a form, a browser, or a title case."""
    question = "How many Cafés\u00a0are in  Málaga?\n"
    for other in (
        unicodedata.normalize("NFD", question),
        question.upper(),
        "  how many cafés are in Málaga? ",
        "How\tmany\r\ncafés are in Málaga?",
    ):
        assert count_overlap(problems(question), problems(other, "another")) == 1
    assert count_overlap(problems("How many cafes are in Malaga?"), problems(question)) == 0
    assert count_overlap(problems("x2 = 4"), problems("x² = 4")) == 0
    assert count_overlap(problems("1+2"), problems("1-2", "1+2")) == 1
