"""Shards continue where they stopped, and only for the same traces and settings."""

import pytest

from rlt.errors import CheckpointError
from rlt.records import Problem, Trace
from rlt.traces.shards import Shards, traces_digest

TRACES = [Trace(Problem("p", "q", "s"), i, f"t{i}") for i in range(5)]
MANIFEST = {"traces": traces_digest(TRACES), "reward.student_temperature": 0.7}


def shards(tmp_path):
    return Shards(tmp_path / "scores", TRACES, 2)


def rows(part):
    return [{"problem_id": "p", "sample_index": i, "score": -float(i)} for i in part]


def test_what_is_written_is_not_pending(tmp_path):
    first = shards(tmp_path)
    assert first.parts == [range(2), range(2, 4), range(4, 5)]
    assert first.open(MANIFEST) == [0, 1, 2]
    first.write(1, rows(first.parts[1]))
    again = shards(tmp_path)
    assert again.open(MANIFEST) == [0, 2]
    for index in (0, 2):
        again.write(index, rows(again.parts[index]))
    assert [row["score"] for row in again.read_all()] == [0, -1, -2, -3, -4]


@pytest.mark.parametrize(
    "damage", ["", "{", '{"problem_id": "p", "sample_index": 0}\n', "[]\n[]\n", '{"problem_id": 3}\n']
)
def test_a_damaged_shard_is_scored_again(tmp_path, damage):
    first = shards(tmp_path)
    first.open(MANIFEST)
    first.write(0, rows(first.parts[0]))
    (tmp_path / "scores" / "shard_000000.jsonl").write_text(damage)
    assert shards(tmp_path).open(MANIFEST) == [0, 1, 2]
    with pytest.raises(CheckpointError, match="run the same command again"):
        first.read_all()


def test_another_setting_or_input_in_the_same_folder_is_refused(tmp_path):
    shards(tmp_path).open(MANIFEST)
    with pytest.raises(CheckpointError, match=r"student_temperature was 0\.7 and is 1\.0.*output_dir"):
        shards(tmp_path).open({**MANIFEST, "reward.student_temperature": 1.0})


def test_the_digest_sees_every_part_of_a_trace():
    variants = [
        [*TRACES[:-1]],
        [*TRACES[:-1], Trace(TRACES[-1].problem, 4, "other")],
        [*TRACES[:-1], Trace(Problem("p", "q", "s", system="x"), 4, "t4")],
        [*TRACES[:-1], Trace(TRACES[-1].problem, 5, "t4")],
    ]
    assert len({traces_digest(v) for v in [TRACES, *variants]}) == 5
