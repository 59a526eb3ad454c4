import json
import math

import pytest
import torch

from rlt.errors import DataError
from rlt.rundir.metrics import metrics_row, prepare_metrics, read_metrics, series
from rlt.rundir.metrics_file import MetricsFile


def test_row_keeps_floats_and_never_turns_nan_into_a_number():
    logs = {
        "reward": -0.1234567890123,
        "loss": math.nan,
        "kl": math.inf,
        "n": 3,
        "x": torch.tensor(0.5),
        "epoch": 9.0,
    }
    row = metrics_row(5, 0.25, 1.23456, logs)
    assert list(row) == ["step", "epoch", "time", "kl", "loss", "n", "reward", "x", "non_finite"]
    assert row["reward"] == -0.1234567890123
    assert row["x"] == 0.5
    assert (row["loss"], row["kl"], row["non_finite"]) == (None, None, ["kl", "loss"])
    assert (row["step"], row["epoch"], row["time"]) == (5, 0.25, 1.235)
    json.dumps(row, allow_nan=False)


def test_a_missing_value_is_null_but_not_called_non_finite():
    assert metrics_row(1, 0.0, 0.0, {"kl": None}) == {"step": 1, "epoch": 0.0, "time": 0.0, "kl": None}


def test_every_step_of_a_training_is_written_once(make_trainer, tmp_path):
    make_trainer([MetricsFile()]).train()
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    assert all(math.isfinite(row["grad_norm"]) for row in rows if "loss" in row)
    assert rows[-1]["train_runtime"] > 0


def test_a_resumed_training_cuts_the_steps_it_repeats(make_trainer, tmp_path):
    make_trainer([MetricsFile()]).train()
    path = tmp_path / "run" / "metrics.jsonl"
    before = read_metrics(path)
    make_trainer([MetricsFile()], max_steps=4).train(
        resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")
    )
    rows = read_metrics(path)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert rows[:2] == before[:2]
    assert rows[2]["loss"] == pytest.approx(before[2]["loss"])  # step 3, taken again
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert not (tmp_path / "run" / "metrics.jsonl.1").exists()


def test_a_fresh_training_sets_the_old_file_aside(make_trainer, tmp_path):
    for _ in range(3):
        make_trainer([MetricsFile()], max_steps=1).train()
    names = sorted(p.name for p in (tmp_path / "run").glob("metrics.jsonl*"))
    assert names == ["metrics.jsonl", "metrics.jsonl.1", "metrics.jsonl.2"]
    for name in names:
        assert [row["step"] for row in read_metrics(tmp_path / "run" / name) if "loss" in row] == [1]


def test_other_ranks_write_nothing(make_trainer, tmp_path):
    callback = MetricsFile()
    trainer = make_trainer()
    trainer.state.is_world_process_zero = False
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    callback.on_log(trainer.args, trainer.state, trainer.control, logs={"loss": 1.0})
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_reading_forgives_a_cut_last_line_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "time": 0.5, "loss": 2.0}\n{"step": 2, "ti')
    assert [row["step"] for row in read_metrics(path)] == [1]
    assert prepare_metrics(path, 1) == 0.5
    assert path.read_text() == '{"step": 1, "time": 0.5, "loss": 2.0}\n'
    path.write_text('broken\n{"step": 2, "time": 1}\n')
    with pytest.raises(DataError, match="line 1"):
        read_metrics(path)


def test_series_takes_the_last_value_of_a_step_and_reports_what_was_not_finite():
    rows = [
        {"step": 2, "reward": 0.5},
        {"step": 1, "reward": 0.25},
        {"step": 2, "eval_reward": 9.0},
        {"step": 3, "reward": None, "non_finite": ["reward"]},
        {"step": 2, "reward": 0.75},
    ]
    assert series(rows, "reward") == ([1, 2], [0.25, 0.75], [3])
