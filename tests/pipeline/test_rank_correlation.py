"""The correlation of reward and students' accuracy over ranks."""

import json

import pytest

from rlt.errors import DataError
from rlt.pipeline.rank_correlation import main, page, read_buckets
from rlt.surroundings.leaving import run_command


@pytest.fixture
def pipeline(tmp_path):
    """Return a directory with three ranks: rewards -1, -2, -4 and accuracies 0.9, 0.8, 0.1."""
    steps = []
    for rank, score, accuracy in ((1, -1.0, 0.9), (2, -2.0, 0.8), (3, -4.0, 0.1)):
        traces, answers = tmp_path / f"rank_{rank}", tmp_path / f"answers_{rank}"
        traces.mkdir()
        answers.mkdir()
        rows = [
            {"score": score - 0.5, "selected": True},
            {"score": score + 0.5, "selected": True},
            {"score": -9.0, "selected": False},
        ]
        (traces / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (answers / "summary.json").write_text(json.dumps({"tasks": {"problems": {"accuracy": accuracy}}}))
        steps += [{"name": folder.name, "directory": str(folder)} for folder in (traces, answers)]
    (tmp_path / "pipeline.json").write_text(json.dumps({"steps": steps}))
    return tmp_path


def test_rewards_and_accuracies_stand_side_by_side(pipeline):
    buckets = read_buckets(pipeline)
    assert [(b.rank, b.num_traces, b.score) for b in buckets] == [(1, 2, -1.0), (2, 2, -2.0), (3, 2, -4.0)]
    # deviations (4/3, 1/3, -5/3) and (0.3, 0.2, -0.5): 1.3 / sqrt(14/3 · 0.38) = 0.976
    assert "accuracy in problems: +0.98." in page(buckets)


def test_it_is_printed_and_written(pipeline, capsys):
    assert run_command(main, [str(pipeline)]) == 0
    assert capsys.readouterr().out == (pipeline / "rank_correlation.md").read_text()


def test_a_rank_without_traces_is_refused(pipeline):
    (pipeline / "rank_3" / "traces.jsonl").write_text('{"score": -9.0, "selected": false}\n')
    with pytest.raises(DataError, match="holds no trace of rank 3"):
        read_buckets(pipeline)


def test_an_unfinished_pipeline_is_refused(pipeline, capsys):
    (pipeline / "answers_2" / "summary.json").unlink()
    with pytest.raises(DataError, match="no traces and answers of rank 2"):
        read_buckets(pipeline)
    assert run_command(main, [str(pipeline / "nowhere")]) == 3
    assert "run cfgs/run_cfg/students_by_rank.yaml first" in capsys.readouterr().err
