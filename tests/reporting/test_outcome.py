"""The sentences at the top of a training's report, and its table of phases, against numbers by hand."""

from __future__ import annotations

import pytest

from rlt.evaluation.intervals import paired_interval
from rlt.reporting.outcome import by_problem, sentences, times
from rlt.rundir.metrics import metrics_row
from rlt.rundir.samples import write_samples

RUN = {
    "stage": "teacher_rl",
    "status": "finished",
    "inputs": {
        "model": {"folder": "/tmp/x/pre_rl_model"},
        "student": {"hub": "bespokelabs/Bespoke-Stratos-7B", "commit": "abc"},
        "dataset": {"file": "data/problems.jsonl"},
    },
}
TRAINED = (
    "teacher_rl trained pre_rl_model on problems.jsonl, paid by the student bespokelabs/Bespoke-Stratos-7B"
)


def write_evaluation(run_dir, step, rewards, **more):
    rows = [
        {"problem_id": problem, "reward": reward, **{name: values[i] for name, values in more.items()}}
        for i, (problem, reward) in enumerate(rewards)
    ]
    write_samples(run_dir / "samples", f"eval_step_{step:06d}", rows)


def told(run_dir, rows=(), run=RUN):
    return sentences(run_dir, run, list(rows), paired_interval)


def test_a_change_is_paired_by_problem(tmp_path):
    # b has two samples of mean 2; changes 1 and 3: mean 2, standard error 1, t(1) = 12.706
    write_evaluation(tmp_path, 0, [("a", 1.0), ("b", 1.0), ("b", 3.0), ("only before", 9.0)])
    write_evaluation(tmp_path, 20, [("a", 7.0), ("b", 7.0)])
    write_evaluation(tmp_path, 40, [("a", 2.0), ("b", 5.0), ("only after", 9.0)])
    assert told(tmp_path, [metrics_row(40, 1, 0, {"loss": 1.0})]) == [
        f"{TRAINED}: 40 steps.",
        "Held-out reward of 2 problems: 1.500 at step 0, 3.500 at step 40: +2.000 [-10.706, +14.706] "
        "(95 %, paired by problem), no more than noise.",
    ]


@pytest.mark.parametrize(
    ("after", "verdict"), [(2.0, "an increase by more than noise"), (-2.0, "a decrease by more than noise")]
)
def test_the_verdict_follows_the_interval(tmp_path, after, verdict):
    write_evaluation(tmp_path, 0, [(p, 0.0) for p in "abc"])
    write_evaluation(tmp_path, 5, [(p, after + i / 100) for i, p in enumerate("abc")])
    assert told(tmp_path)[1].endswith(f"{verdict}.")


def test_without_held_out_rows_nothing_is_claimed(tmp_path):
    assert told(tmp_path)[1] == (
        "Nothing was evaluated twice on held-out rows, so this page cannot say whether the training helped: "
        "set evaluation.path and evaluation.steps."
    )


def test_a_loss_has_no_interval(tmp_path):
    rows = [metrics_row(0, 0, 0, {"eval_loss": 2.0}), metrics_row(9, 1, 0, {"eval_loss": 1.25})]
    sentence = "Held-out loss: 2 at step 0, 1.25 at step 9; one number for all rows, so without an interval."
    assert told(tmp_path, rows, {**RUN, "status": "interrupted"}) == [
        f"{TRAINED}: 9 steps; it is interrupted.",
        sentence,
    ]


def test_one_evaluation_shows_no_change(tmp_path):
    said = told(tmp_path, [metrics_row(9, 1, 0, {"eval_loss": 1.25})])[1]
    assert said == "Held-out loss: 1.25 at step 9; evaluated once, so no change is known."


def test_values_that_are_no_numbers_count_nowhere():
    rows = [{"problem_id": 1, "reward": value} for value in (1.0, float("nan"), None, 3)]
    assert by_problem(rows, "reward") == {"1": 2.0}


def test_phases_are_means_over_the_logged_steps():
    rows = [
        metrics_row(1, 0, 0, {"time/step": 8.0, "time/generate": 4.0, "time/update": 2.0}),
        metrics_row(2, 0, 0, {"time/step": 12.0, "time/generate": 6.0, "time/update": 4.0}),
    ]
    assert times(rows) == (
        ("phase", "seconds a step", "share"),
        ("generating", "5", "50 %"),
        ("updating", "3", "30 %"),
        ("whole step", "10", "100 %"),
    )
    assert times([metrics_row(1, 0, 0, {"loss": 1.0})]) == ()
