"""Files that name problems to collect for, and what is wrong with them."""

import pytest

from rlt.data.kept import KeptRows
from rlt.data.requested import read_requested, take_requested
from rlt.errors import DataError
from rlt.records import Problem


def test_indices_by_problem(tmp_path):
    path = tmp_path / "recollect.jsonl"
    path.write_text(
        '{"problem_id": "b", "sample_index": 4, "why": "too long"}\n{"problem_id": "a"}\n'
        '{"problem_id": "b", "sample_index": 1}\n{"problem_id": "b", "sample_index": 4}\n'
        '{"problem_id": "a", "sample_index": null}\n'
    )
    assert read_requested(str(path)) == {"b": [4, 1], "a": []}


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("", "names no problem"),
        ('{"problem_id": "a"}\n{"id": "b"}\n', "line 2: `problem_id` must be a text"),
        ("{", "line 1: not valid JSON"),
        ('{"problem_id": "a", "sample_index": -1}', "`sample_index` must be 0 or more, got -1"),
        ('{"problem_id": "a", "sample_index": true}', "got True"),
        ('{"problem_id": "a", "sample_index": 1}\n{"problem_id": "a"}', "line 2: a occurs with"),
        ('{"problem_id": "a"}\n{"problem_id": "a", "sample_index": 1}', "line 2: a occurs with"),
    ],
)
def test_faults_are_one_sentence(tmp_path, lines, sentence):
    path = tmp_path / "recollect.jsonl"
    path.write_text(lines)
    with pytest.raises(DataError) as caught:
        read_requested(str(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_of_wanted_problems_keep_their_places():
    rows = KeptRows(
        "d.jsonl", "line", {n: Problem(i, "q", "s") for n, i in ((2, "a"), (5, "b"), (7, "a"))}, 9
    )
    assert list(take_requested(rows, ["a"], "f.jsonl").items) == [2, 7]
    with pytest.raises(
        DataError, match=r"f.jsonl names 1 problems that d.jsonl does not have \(x, for one\)"
    ):
        take_requested(rows, ["a", "x"], "f.jsonl")
