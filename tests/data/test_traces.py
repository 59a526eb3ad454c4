"""Explanations of every shape become traces, numbered, with the fallback where it stands."""

import json

import pytest

from rlt.config.schema import DataSettings
from rlt.data.traces import join_traces, load_traces, number_traces
from rlt.errors import DataError
from rlt.formats.tags import TAG_STYLES
from rlt.records import problem_id

TAGS = TAG_STYLES["bespoke"]
Q = {"question": "6*7?", "solution": "42"}


def traces(tmp_path, rows, fallback=None, **data):
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_traces(DataSettings(**data), str(path), TAGS)
    return number_traces(loaded.values, fallback)


def texts(found):
    return [(trace.sample_index, trace.explanation) for trace in found]


TURN = TAGS.thought.wrap("six sevens") + "\n\n" + TAGS.solution.wrap("42")
CHAT = [{"from": "user", "value": "6*7?"}, {"from": "assistant", "value": TURN}]


@pytest.mark.parametrize(
    "row",
    [
        {**Q, "explanation": "six sevens"},
        {**Q, "reasoning_trace": "six sevens"},
        {**Q, "completions": ["six sevens"]},
        {**Q, "explanations": ["six sevens"]},
        {**Q, "completions": [[{"role": "assistant", "content": "six sevens"}]]},
        {**Q, "completions": [TURN]},
        {**Q, "completions": ["<think>six sevens</think> 42"]},
        {"conversations": CHAT},
        {"messages": [{"role": "user", "content": "6*7?"}, {"role": "assistant", "content": TURN}]},
        {**Q, "explanation": "six sevens", "messages": [{"role": "user", "content": "another"}]},
    ],
)
def test_one_explanation_of_every_shape(tmp_path, row):
    (trace,) = traces(tmp_path, [row])
    assert (trace.problem.question, trace.problem.solution) == ("6*7?", "42")
    assert trace.problem.id == problem_id("6*7?", "42")
    assert trace.explanation == "six sevens"
    assert trace.problem.reasoning_trace is None


def test_a_list_gives_one_trace_a_place_and_keeps_empty_places(tmp_path):
    found = traces(tmp_path, [{**Q, "completions": ["a", None, "c"], "source": "x"}])
    assert texts(found) == [(0, "a"), (1, None), (2, "c")]
    assert found[0].problem.extra == {"source": "x"}


def test_lists_of_one_problem_are_counted_on(tmp_path):
    found = traces(tmp_path, [{**Q, "completions": ["a", "b"]}, {**Q, "completions": ["c"]}])
    assert texts(found) == [(0, "a"), (1, "b"), (2, "c")]


def test_single_rows_are_numbered_in_their_problem_unless_the_source_does(tmp_path):
    other = {"question": "1+1?", "solution": "2"}
    rows = [{**Q, "explanation": "a"}, {**other, "explanation": "b"}, {**Q, "explanation": "c"}]
    assert texts(traces(tmp_path, rows)) == [(0, "a"), (0, "b"), (1, "c")]
    numbered = [{**row, "sample_index": i} for row, i in zip(rows, (5, 0, 3), strict=True)]
    assert texts(traces(tmp_path, numbered)) == [(5, "a"), (0, "b"), (3, "c")]


def test_a_number_that_stands_twice_is_refused(tmp_path):
    rows = [{**Q, "explanation": "a", "sample_index": 0}, {**Q, "explanation": "b", "sample_index": 0}]
    with pytest.raises(DataError, match="have sample_index=0"):
        traces(tmp_path, rows)


@pytest.mark.parametrize(("index", "text"), [(0, "a"), (1, "b"), (2, "c"), (-1, "c"), (-2, "b"), (-3, "a")])
@pytest.mark.parametrize("as_rows", [False, True])
def test_the_fallback_is_found_wherever_it_stands(tmp_path, index, text, as_rows):
    rows = [{**Q, "completions": ["a", "b", "c"]}]
    if as_rows:  # in another order than their numbers
        rows = [{**Q, "explanation": t, "sample_index": i} for t, i in (("c", 2), ("a", 0), ("b", 1))]
    found = traces(tmp_path, rows, fallback=index)
    assert [trace.explanation for trace in found if trace.is_fallback] == [text]


def test_each_list_of_a_problem_has_its_own_fallback(tmp_path):
    rows = [{**Q, "completions": ["a", "b"]}, {**Q, "completions": ["c", "d", "e"]}]
    found = traces(tmp_path, rows, fallback=-1)
    assert [trace.explanation for trace in found if trace.is_fallback] == ["b", "e"]


def test_a_fallback_outside_of_some_lists_warns_and_outside_of_all_is_refused(tmp_path, caplog):
    rows = [{**Q, "completions": ["a"]}, {**Q, "completions": ["b", "c"]}]
    found = traces(tmp_path, rows, fallback=1)
    assert [trace.explanation for trace in found if trace.is_fallback] == ["c"]
    assert "1 of 2 lists have no place score.fallback_index=1" in caplog.text
    with pytest.raises(DataError, match=r"score\.fallback_index=2 lies outside"):
        traces(tmp_path, rows, fallback=2)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Q, "there is no explanation"),
        ({**Q, "completions": []}, "must be a list of texts"),
        ({**Q, "completions": "text"}, "must be a list of texts"),
        ({**Q, "completions": ["a", 3]}, "place 1 must be text, got int"),
        ({**Q, "explanation": "a", "sample_index": -1}, "`sample_index` must be a number from 0 on"),
        ({**Q, "completions": [TAGS.thought.open + "cut off"]}, "was it cut off"),
        ({**Q, "explanation": "a", "completions": ["b"]}, "say which one counts with"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_reason(tmp_path, row, reason):
    with pytest.raises(DataError, match=reason):
        traces(tmp_path, [row])


def test_named_columns(tmp_path):
    row = {**Q, "explanation": "a", "thinking_trajectories": ["b", "c"]}
    found = traces(tmp_path, [row], columns={"explanations": "thinking_trajectories"})
    assert texts(found) == [(0, "b"), (1, "c")]
    assert texts(traces(tmp_path, [row], columns={"explanation": "explanation"})) == [(0, "a")]
    with pytest.raises(DataError, match="maps explanation to 'missing'"):
        traces(tmp_path, [row], columns={"explanation": "missing"})


def test_bad_rows_are_skipped_where_that_is_asked(tmp_path):
    found = traces(tmp_path, [Q, {**Q, "reasoning_trace": "a"}], on_bad_row="skip")
    assert texts(found) == [(0, "a")]


def test_a_source_whose_numbers_are_taken_is_numbered_on_in_any_order_of_its_rows(tmp_path, caplog):
    other = {"question": "1+1?", "solution": "2"}
    first = traces(tmp_path, [{**Q, "completions": ["a", "b"]}])
    rows = [{**Q, "explanation": t, "sample_index": i} for t, i in (("d", 1), ("c", 0))]
    second = traces(tmp_path, [*rows, {**other, "explanation": "e", "sample_index": 3}])
    third = traces(tmp_path, [{**Q, "explanation": "f", "sample_index": 7}])
    joined = join_traces([first, second, third])
    assert texts(joined) == [(0, "a"), (1, "b"), (3, "d"), (2, "c"), (3, "e"), (7, "f")]
    assert "word for word" not in caplog.text


def test_a_collection_that_repeats_itself_is_noticed(tmp_path, caplog):
    first = traces(tmp_path, [{**Q, "completions": ["a", "b"]}])
    assert texts(join_traces([first, first])) == [(0, "a"), (1, "b"), (2, "a"), (3, "b")]
    assert "2 explanations are word for word in an earlier source" in caplog.text
