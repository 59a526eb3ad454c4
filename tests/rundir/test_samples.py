import math

import pytest

from rlt.errors import DataError
from rlt.rundir.samples import (
    format_sample,
    prepare_samples,
    read_samples,
    sample_files,
    step_name,
    write_samples,
)
from rlt.text import printable, shorten_middle


def test_rows_come_back_as_they_went_in(tmp_path):
    rows = [
        {"problem_id": "a", "sample_index": 0, "reward": -1.5, "explanation": "x\n\x00é", "ids": [1, 2]},
        {"problem_id": "b", "sample_index": 1, "reward": math.nan, "explanation": "", "extra": {"k": 1}},
    ]
    path = write_samples(tmp_path, step_name(7), rows)
    assert path.name == "step_000007.parquet"
    first, second = read_samples(path)
    assert first == {**rows[0], "extra": None}
    assert math.isnan(second.pop("reward"))
    assert second == {"problem_id": "b", "sample_index": 1, "explanation": "", "ids": None, "extra": {"k": 1}}
    assert [p.name for p in tmp_path.iterdir()] == ["step_000007.parquet"]


def test_a_lone_surrogate_and_an_empty_dict_can_be_stored(tmp_path):
    path = write_samples(tmp_path, "s", [{"explanation": "a\ud800b", "extra": {}, "n": 1}])
    assert read_samples(path) == [{"explanation": "a?b", "extra": None, "n": 1}]


def test_a_column_of_two_types_is_a_sentence_and_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match="column 'answer'"):
        write_samples(tmp_path, "s", [{"answer": "4"}, {"answer": 4}])
    with pytest.raises(DataError, match="no rows"):
        write_samples(tmp_path, "s", [])
    assert not list(tmp_path.iterdir())


def test_a_resume_drops_later_samples_and_a_fresh_run_sets_all_aside(tmp_path):
    folder = tmp_path / "samples"
    for step in (9, 10, 11):
        write_samples(folder, step_name(step), [{"reward": 1.0}])
        write_samples(folder, "eval_" + step_name(step), [{"reward": 2.0}])
    assert read_samples(sample_files(folder)[11]) == [{"reward": 1.0}]
    assert read_samples(sample_files(folder, "eval_")[11]) == [{"reward": 2.0}]
    prepare_samples(folder, 10)
    assert list(sample_files(folder)) == list(sample_files(folder, "eval_")) == [9, 10]
    prepare_samples(folder, 0)
    assert list(sample_files(folder)) == []
    assert list(sample_files(tmp_path / "samples.1")) == [9, 10]


def test_a_console_block_is_readable():
    row = {
        "step": 4,
        "problem_id": "9f",
        "sample_index": 2,
        "question": "What is 6*7?",
        "solution": "42",
        "explanation": "Six sevens.\n\n" + "word " * 400 + "So 42.",
        "reward": -0.531234,
        "r_ss": -0.41,
        "r_kl": 0.12,
        "r_ss_mean": -0.4,
        "r_ss_min": -1.0,
        "format": 0.0,
        "explanation_tokens": 402,
    }
    block = format_sample(row, width=60, explanation_limit=100)
    lines = block.split("\n")
    assert lines[0].startswith("── step 4 · problem 9f · sample 2 ─")
    assert "question     What is 6*7?" in lines
    assert "solution     42" in lines
    assert "[… 1,919 characters …]" in block
    assert block.index("Six sevens.") < block.index("characters") < block.index("So 42.")
    assert all(len(line) <= 60 for line in lines)
    names = next(line for line in lines if line.startswith("score"))
    values = lines[lines.index(names) + 1]
    for name, value in (("reward", "-0.5312"), ("r_ss", "-0.41")):  # right edges line up
        assert names.index(f" {name} ") + len(name) + 1 == values.index(value) + len(value)
    assert lines[-2].split()[-1] == "explanation_tokens"
    assert lines[-1].split()[-1] == "402"


def test_control_characters_cannot_reach_the_terminal():
    hostile = "a\x1b[2Jb\rc\x07d\u202ee\u2028f\x9bg\x00\r\nnext"
    assert printable(hostile) == "a\\x1b[2Jb\\x0dc\\x07d\\u202ee\\u2028f\\x9bg\\x00\nnext"
    assert printable("a\tb") == "a   b"
    row = {
        "problem_id": "x\x1b]0;t\x07\ny",
        "question": hostile,
        "solution": hostile,
        "explanation": hostile,
        "reward": 1.0,
    }
    block = format_sample(row, width=80)
    assert not any(c in block for c in "\x1b\r\x07\u202e\u2028\x9b\x00\t")
    assert block.split("\n")[0].endswith("─")
    assert printable("naïve 数学 👩\u200d🔬 ∑") == "naïve 数学 👩\u200d🔬 ∑"


def test_a_text_is_shortened_in_the_middle():
    assert shorten_middle("abc", 3) == "abc"
    assert shorten_middle("a" * 20 + "b" * 10, 9) == "aaaaaa\n[… 21 characters …]\nbbb"
