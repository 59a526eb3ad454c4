"""A journal continues where it was cut, keeps whole units only, and belongs to one set of settings."""

import json

import pytest

from rlt.errors import CheckpointError
from rlt.traces.journal import Journal

UNITS = [[("p", 0), ("p", 1)], [("q", 0), ("q", 1)], [("r", 0)]]
MANIFEST = {"seed": 1, "temperature": 0.7, "samples": "abc"}


def journal(tmp_path):
    return Journal(tmp_path / "samples", UNITS)


def rows(unit):
    return [{"problem_id": p, "sample_index": i, "explanation": f"{p}{i}\u2028\nö"} for p, i in UNITS[unit]]


def written(tmp_path, *units):
    first = journal(tmp_path)
    assert first.open(MANIFEST) == [0, 1, 2]
    with first.appending() as append:
        for unit in units:
            append(rows(unit))
    return first.path


def test_samples_may_be_known_by_more_fields(tmp_path):
    """The same problem in two tasks: what is done for one is not done for the other."""
    units = [[("a", "p", 0)], [("b", "p", 0)]]
    fields = ("task", "problem_id", "sample_index")
    first = Journal(tmp_path, units, "answers", fields)
    first.open(MANIFEST)
    row = {"task": "b", "problem_id": "p", "sample_index": 0}
    with first.appending() as append:
        append([row])
    again = Journal(tmp_path, units, "answers", fields)
    assert again.open(MANIFEST) == [0]
    assert again.rows == {("b", "p", 0): row}
    with pytest.raises(CheckpointError, match="holds answers of another run"):
        Journal(tmp_path, units, "answers", fields).open({**MANIFEST, "seed": 2})


def test_what_is_finished_is_not_pending(tmp_path):
    path = written(tmp_path, 1)
    before = path.read_bytes()
    again = journal(tmp_path)
    assert again.open(MANIFEST) == [0, 2]
    assert list(again.rows.values()) == rows(1)
    with again.appending() as append:
        append(rows(2))
        append(rows(0))
    assert path.read_bytes().startswith(before)
    assert [again.rows[key] for unit in UNITS for key in unit] == [*rows(0), *rows(1), *rows(2)]
    assert journal(tmp_path).open(MANIFEST) == []


@pytest.mark.parametrize("cut", range(1, 200, 9))
def test_a_kill_within_a_write_costs_the_unit_and_nothing_else(tmp_path, cut):
    path = written(tmp_path, 2, 0)
    whole = path.read_bytes()
    first_unit = whole.index(b"\n") + 1
    path.write_bytes(whole[:-cut] if cut < len(whole) - first_unit else whole[: first_unit + 1])
    again = journal(tmp_path)
    assert again.open(MANIFEST) == [0, 1]
    assert path.read_bytes() == whole[:first_unit]
    with again.appending() as append:
        append(rows(0))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage", [b"\0" * 30, b"[1]", b'{"problem_id": "p"}', b'{"problem_id": [], "sample_index": 0}']
)
def test_a_damaged_line_is_drawn_again(tmp_path, damage):
    path = written(tmp_path, 2, 1)
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(damage + b"\n" + b"".join(others))
    assert first
    assert journal(tmp_path).open(MANIFEST) == [0, 2]
    assert len(path.read_bytes().splitlines()) == 2


def test_another_setting_in_the_same_folder_is_refused(tmp_path):
    written(tmp_path, 0)
    with pytest.raises(
        CheckpointError, match=r"holds explanations of another run \(seed was 1 and is 2 and 1 more\)"
    ):
        journal(tmp_path).open({**MANIFEST, "seed": 2, "samples": "abd"})
    (tmp_path / "samples" / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        journal(tmp_path).open(MANIFEST)


def test_lines_are_those_of_the_rows(tmp_path):
    lines = written(tmp_path, 1).read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines if line] == rows(1)
