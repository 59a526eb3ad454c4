"""One row of each shape, and every reason to refuse one."""

import hashlib

import pytest

from rlt.data.rows import choose_format, to_problem
from rlt.errors import ConfigError, DataError
from rlt.formats.tags import TAG_STYLES
from rlt.records import Problem

BESPOKE = TAG_STYLES["bespoke"]


def read(row: dict, columns: dict[str, str] | None = None, name: str = "auto") -> Problem:
    return to_problem(row, choose_format(name, columns or {}, list(row), "d.jsonl"), BESPOKE)


def test_columns_row():
    problem = read({"question": " 2+2? ", "solution": " 4\n", "level": 3, "id": "mine"})
    # The hash is of the question as it stands and the solution without outer white space.
    assert problem.id == hashlib.sha256(b" 2+2? \x004").hexdigest()[:16]
    assert (problem.question, problem.solution) == (" 2+2? ", "4")
    assert (problem.reasoning_trace, problem.answer, problem.system) == (None, None, None)
    assert problem.extra == {"level": 3, "id": "mine"}


def test_readme_row_of_the_original_works():
    """The original read `prompt` where its README says `question` (KeyError), and split every trace
    at a blank line that nothing had put there (ValueError)."""
    row = {"question": "2+2?", "solution": "4", "reasoning_trace": "Two and two make four."}
    assert read(row).reasoning_trace == "Two and two make four."
    quoting = {**row, "reasoning_trace": "Then <|begin_of_explanation|>\n\n comes, and <|end_of_thought|>."}
    assert read(quoting).reasoning_trace == quoting["reasoning_trace"]


@pytest.mark.parametrize("trace", [None, "", " \n"])
def test_null_or_blank_trace_is_no_trace(trace):
    """A null trace gave an AttributeError, since the default of dict.get() does not replace null."""
    assert read({"question": "q", "solution": "s", "reasoning_trace": trace}).reasoning_trace is None


def test_a_list_of_one_trace_is_that_trace():
    row = {"question": "q", "solution": "s", "thinking_trajectories": [" t "]}
    assert read(row, {"reasoning_trace": "thinking_trajectories"}).reasoning_trace == "t"
    with pytest.raises(DataError, match=r"`reasoning_trace` \(column 'thinking_trajectories'\) must be text"):
        read({**row, "thinking_trajectories": ["t", "u"]}, {"reasoning_trace": "thinking_trajectories"})


def test_column_map_of_math_and_limo():
    math_row = {"problem": "1+1?", "solution": "It is 2.", "answer": "2", "level": 1, "unique_id": "x"}
    problem = read(math_row, {"question": "problem"})
    assert (problem.question, problem.solution, problem.answer) == ("1+1?", "It is 2.", "2")
    assert problem.extra == {"level": 1, "unique_id": "x"}
    limo_row = {"question": "1+1?", "solution": "A long trace.", "answer": 2}
    limo = read({**limo_row, "answer": "2"}, {"reasoning_trace": "solution", "solution": "answer"})
    assert (limo.reasoning_trace, limo.solution, limo.answer) == ("A long trace.", "2", "2")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(73, "73"), (0.5, "0.5"), (" 073 ", "073"), (None, None), ("", None), (10**400, "1" + "0" * 400)],
)
def test_an_answer_may_be_a_number(answer, expected):
    assert read({"question": "q", "solution": "s", "answer": answer}).answer == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": 12}, "`question` must be text, got int '12'"),
        ({"question": None}, "`question` is missing"),
        ({"question": " \n"}, "`question` is empty"),
        ({"question": "\ud835"}, "`question` has half a surrogate pair at character 1"),
        ({"solution": True}, "`solution` must be text, got bool 'True'"),
        ({"solution": None}, "`solution` is missing"),
        ({"solution": "\n\n"}, "`solution` is empty"),
        ({"solution": ["4"]}, "`solution` must be text, got list"),
        ({"reasoning_trace": 3.5}, "`reasoning_trace` must be text, got float"),
        ({"answer": True}, "`answer` must be text, got bool"),
        ({"answer": float("nan")}, "`answer` must be text, got float"),
        ({"system": {"a": 1}}, "`system` must be text, got dict"),
    ],
)
def test_bad_columns_row(change, reason):
    with pytest.raises(DataError) as error:
        read({"question": "q", "solution": "s", **change})
    assert str(error.value).startswith(reason)


def test_sharegpt_row_keeps_question_and_system_byte_for_byte(sharegpt):
    question = "Return your final response within \\boxed{}. What is 1+1? "
    problem = read(sharegpt(question, "One.", "2", system=" literal \\n\\n and\ttab\n", source="x"))
    assert problem.question == question
    assert problem.system == " literal \\n\\n and\ttab\n"
    assert (problem.reasoning_trace, problem.solution) == ("One.", "2")
    assert problem.extra == {"source": "x"}


def test_ids_agree_between_formats(sharegpt):
    assert read(sharegpt("2+2?", "t", "4")).id == read({"question": "2+2?", "solution": "4"}).id


def test_other_spellings_of_turns(sharegpt):
    row = sharegpt()
    said = [turn["value"] for turn in row["conversations"]]
    expected = read(row)
    human = [{"from": "human", "value": said[0]}, {"from": "gpt", "value": said[1]}]
    messages = [{"role": "user", "content": said[0]}, {"role": "assistant", "content": said[1]}]
    assert read({"conversations": human}) == expected
    assert read({"messages": messages}) == expected
    assert read({"conversations": messages}) == expected
    # a parquet column has every key in every turn
    assert read({"messages": [{**turn, "from": None, "value": None} for turn in messages]}) == expected


def test_system_turn(sharegpt):
    row = sharegpt()
    turns = [{"from": "system", "value": "Think."}, *row["conversations"]]
    assert read({"conversations": turns}).system == "Think."
    assert read({"conversations": turns, "system": "Think."}).system == "Think."
    with pytest.raises(DataError, match="the system column and the system turn differ"):
        read({"conversations": turns, "system": "Think!"})


def test_tags_in_the_question_do_no_harm(sharegpt):
    question = "What does <|end_of_thought|> or <|begin_of_solution|> mean?"
    assert read(sharegpt(question)).question == question


USER = {"from": "user", "value": "2+2?"}
REPLY = {
    "from": "assistant",
    "value": "<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>4<|end_of_solution|>",
}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (None, "`conversations` is missing"),
        ("hello", "`conversations` must be a list of turns, got str"),
        ([], "got the turns none"),
        ([USER], "must have one user and one assistant turn, got the turns user"),
        ([REPLY, USER], "got the turns assistant, user"),
        ([USER, REPLY, USER, REPLY], "got the turns user, assistant, user, assistant"),
        (["a", REPLY], "turn 1 must be an object, got str"),
        ([USER, {"from": "assistant"}], "turn 2 must have from and value, or role and content, got from"),
        ([{"from": "tool", "value": "x"}, REPLY], "turn 1 is from 'tool', must be one of system, user"),
        ([{"from": "user", "value": 3}, REPLY], "the 'value' of turn 1 must be text, got int"),
        ([{"from": ["user"], "value": "x"}, REPLY], "the 'from' of turn 1 must be text, got list"),
        ([{"from": "user", "value": " "}, REPLY], "the user turn of `conversations` is empty"),
        ([USER, {"from": "gpt", "value": "4"}], "the assistant turn lacks <|begin_of_thought|>"),
    ],
)
def test_bad_conversation(turns, reason):
    with pytest.raises(DataError) as error:
        read({"conversations": turns})
    assert reason in str(error.value)


def test_wrong_columns_say_what_was_seen_and_what_to_type():
    with pytest.raises(DataError) as error:
        read({"problem": "q", "response": "s", "level": 1})
    assert str(error.value) == (
        "d.jsonl has the columns problem, response, level, but question and solution, conversations, or "
        "messages are needed; name the columns with 'data.columns={question: problem, solution: response}'"
    )


def test_a_wrong_column_never_becomes_another_format_silently():
    """A typo, or a local copy of Stratos, silently became the custom format."""
    with pytest.raises(DataError, match=r"has no column 'conversations', which data.format=sharegpt needs"):
        read({"question": "q", "solution": "s"}, name="sharegpt")
    with pytest.raises(DataError, match=r"fits columns and messages .*; set data.format to one of them"):
        read({"question": "q", "solution": "s", "messages": []})


def test_an_explicit_map_decides_between_two_fitting_formats(sharegpt):
    row = {"problem": "q", "solution": "s", **sharegpt("other")}
    assert read(row, {"question": "problem"}).question == "q"
    assert read(row).question == "other"


def test_the_remedy_keeps_what_was_mapped_already():
    with pytest.raises(DataError, match=r"'data.columns=\{question: query, solution: output\}'"):
        read({"query": "q", "problem": "p", "output": "s"}, {"question": "query"})


def test_a_misspelt_column_is_guessed():
    with pytest.raises(DataError, match=r"'data.columns=\{solution: solutions\}'"):
        read({"question": "q", "solutions": "s", "id": 3})


def test_wrong_column_map():
    row = {"problem": "q", "solution": "s"}
    with pytest.raises(
        DataError, match=r"maps question to 'problm', which d.jsonl .* did you mean 'problem'"
    ):
        read(row, {"question": "problm"})
    with pytest.raises(ConfigError, match=r"names 'messages', which rows of data.format=columns don't have"):
        read({**row, "question": "q"}, {"messages": "problem"}, name="columns")


def test_long_column_lists_are_cut():
    with pytest.raises(DataError, match=r"c0, .*, c11 and 8 more, but"):
        read({f"c{i}": i for i in range(20)})
