"""Columns of the source beside ours, and one type a column for parquet."""

from rlt.formats.layout import StudentLayout
from rlt.formats.tags import TAG_STYLES
from rlt.records import Problem, Trace
from rlt.traces.rank import Place
from rlt.traces.table import COLUMNS, as_columns, chosen_row, trace_row


def test_columns_of_the_source_stay_except_under_our_names(tiny_tokenizer):
    extra = {"score": 9, "finish_reason": "stop", "level": 3, "problem_id": "theirs"}
    problem = Problem("ours", "1+1", "2", reasoning_trace="old", extra=extra)
    scored = {"score": -1.0, "breakdown": {"r_ss": -1.0}, "why": None}
    layout = StudentLayout(tiny_tokenizer, TAG_STYLES["bespoke"], "Think.")
    row = trace_row(Trace(problem, 2, "1+1=2"), 7, scored, Place(1, True), layout)
    assert list(row)[:5] == ["problem_id", "sample_index", "question", "solution", "explanation"]
    assert (row["problem_id"], row["score"], row["level"], row["finish_reason"]) == ("ours", -1.0, 3, "stop")
    assert (row["num_tokens"], row["teacher"], row["reasoning_trace"]) == (7, None, "old")
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
    nothing = {"score": None, "breakdown": None, "why": "there is no explanation"}
    assert trace_row(Trace(problem, 0, None), 0, nothing, Place(2, False), layout)["messages"] is None


def test_what_the_source_mixes_or_nests_becomes_json_text():
    rows = [
        {"mixed": 1, "nested": {"a": [1]}, "number": 1, "flag": True, "breakdown": {"r": 1.0}, "none": None},
        {"mixed": "x", "nested": None, "number": 1.5, "flag": None, "breakdown": None, "none": None},
    ]
    assert as_columns(rows) == [
        {
            "mixed": "1",
            "nested": '{"a": [1]}',
            "number": 1,
            "flag": True,
            "breakdown": {"r": 1.0},
            "none": None,
        },
        {**rows[1], "mixed": '"x"'},
    ]


def test_a_chosen_row_keeps_what_the_source_said():
    said = {
        "num_tokens": 7,
        "well_formed": True,
        "selected": None,
        "level": 3,
        "messages": [{"role": "user"}],
    }
    problem = Problem("p", "1+1", "2", system="Be brief.", extra=said)
    row = chosen_row(Trace(problem, 2, "1+1=2"), True, TAG_STYLES["bespoke"], None)
    assert list(row)[: len(COLUMNS)] == list(COLUMNS)
    kept = {name: row[name] for name in said}
    assert kept == {**said, "selected": True}
    assert (row["problem_id"], row["sample_index"], row["system"]) == ("p", 2, "Be brief.")


def test_a_row_without_messages_gets_those_of_the_layout(tiny_tokenizer):
    problem = Problem("p", "1+1", "2", system="Be brief.")
    layout = StudentLayout(tiny_tokenizer, TAG_STYLES["bespoke"], None)
    row = chosen_row(Trace(problem, 0, "1+1=2"), False, TAG_STYLES["bespoke"], None)
    assert row["messages"] == layout.messages(problem, "1+1=2")
    assert (row["selected"], row["score"]) == (False, None)
    assert chosen_row(Trace(problem, 1, None), False, TAG_STYLES["bespoke"], None)["messages"] is None
