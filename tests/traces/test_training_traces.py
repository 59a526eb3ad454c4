"""Which traces count: selection, missing and malformed ones, lists, held-out ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rlt.config.schema import Config, DataSettings, EvaluationSettings, SubsetSettings
from rlt.errors import DataError
from rlt.formats.tags import TAG_STYLES
from rlt.traces.training import load_eval_traces, load_training_traces

TAGS = TAG_STYLES["bespoke"]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps({"question": "1+1?", "solution": "2", **row}) + "\n" for row in rows))
    return str(path)


def load(path: Path, rows: list[dict], malformed: str = "keep", **data):
    return load_training_traces(DataSettings(**data), write(path, rows), TAGS, malformed)


def texts(traces) -> dict[int, str | None]:
    return {number: trace.explanation for number, trace in traces.rows.items.items()}


def test_rows_that_a_selection_left_out_do_not_count_and_null_is_no_decision(tmp_path):
    rows = [
        {"explanation": "a", "selected": True},
        {"explanation": "b", "selected": False},
        {"explanation": "c", "selected": None},
        {"explanation": "d"},
    ]
    traces = load(tmp_path / "t.jsonl", rows)
    assert texts(traces) == {1: "a", 3: "c", 4: "d"}
    assert (traces.num_unselected, traces.rows.skipped) == (1, ())


def test_a_csv_file_spells_its_flags(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("question,solution,explanation,selected\nq,s,a,True\nq,s,b,false\nq,s,c,\n")
    traces = load_training_traces(DataSettings(), str(path), TAGS, "keep")
    assert list(texts(traces).values()) == ["a", "c"]
    path.write_text("question,solution,explanation,selected\nq,s,a,perhaps\n")
    with pytest.raises(DataError, match="line 2: `selected` must be true, false or null, got 'perhaps'"):
        load_training_traces(DataSettings(), str(path), TAGS, "keep")


def test_a_subset_is_drawn_among_those_that_count(tmp_path):
    rows = [{"explanation": f"{i}", "selected": i % 2 == 0} for i in range(10)]
    assert len(load(tmp_path / "t.jsonl", rows, subset=SubsetSettings(n=5)).rows.items) == 5
    with pytest.raises(DataError, match=r"n=6 is asked of .* only 5 usable rows"):
        load(tmp_path / "t.jsonl", rows, subset=SubsetSettings(n=6))


def test_malformed_traces_are_kept_or_listed(tmp_path, caplog):
    rows = [
        {"explanation": "good", "well_formed": True},
        {"explanation": "cut off", "well_formed": False},
        {"explanation": "  ", "well_formed": True},
        {"explanation": "it ends<|end_of_thought|> twice"},
        {"explanation": None},
        {"explanation": "good, too"},
    ]
    with caplog.at_level(logging.WARNING):
        kept = load(tmp_path / "t.jsonl", rows)
    assert list(texts(kept)) == [1, 2, 3, 4, 6]
    assert [(bad.row, bad.reason) for bad in kept.rows.skipped] == [(5, "there is no explanation")]
    assert "3 of 5 traces are malformed (distill.malformed=keep)" in caplog.text
    dropped = load(tmp_path / "t.jsonl", rows, "drop")
    assert texts(dropped) == {1: "good", 6: "good, too"}
    assert [bad.row for bad in dropped.rows.skipped] == [5, 2, 3, 4]
    assert kept.num_malformed == dropped.num_malformed == 3


def test_lists_are_counted_through(tmp_path):
    traces = load(tmp_path / "t.jsonl", [{"completions": ["a", None]}, {"completions": ["b", "c"]}])
    assert texts(traces) == {1: "a", 3: "b", 4: "c"}
    assert traces.rows.unit == "explanation"
    assert [bad.row for bad in traces.rows.skipped] == [2]


def test_a_reasoning_dataset_brings_its_own_traces(tmp_path):
    assert texts(load(tmp_path / "t.jsonl", [{"reasoning_trace": "1 and 1."}])) == {1: "1 and 1."}
    with pytest.raises(DataError, match="there is no explanation"):
        load(tmp_path / "t.jsonl", [{}])


def test_nothing_left_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="no row to train on: in all of them `selected` is false"):
        load(tmp_path / "t.jsonl", [{"explanation": "a", "selected": False}])
    with pytest.raises(DataError, match="no row to train on: malformed, in all of them"):
        load(tmp_path / "t.jsonl", [{"explanation": "a", "well_formed": False}], "drop")


def test_teachers_and_held_out_traces(tmp_path):
    rows = [{"explanation": "a", "teacher": "X"}, {"explanation": "b", "teacher": "Y"}]
    rows += [{"explanation": "c", "teacher": "Y"}, {"explanation": "d"}]
    assert load(tmp_path / "t.jsonl", rows).teachers == {"Y": 2, "X": 1}
    config = Config(dataset_id_or_path="train")
    assert load_eval_traces(config, TAGS) is None
    config.evaluation = EvaluationSettings(path=str(tmp_path / "t.jsonl"), subset=SubsetSettings(n=2))
    found = load_eval_traces(config, TAGS)
    assert found is not None
    assert len(found.rows.items) == 2
