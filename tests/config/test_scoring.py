"""What score_traces asks of a configuration, and what it makes of it."""

import pytest

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.errors import ConfigError


def test_a_student_and_traces_are_enough(score_traces):
    validate(resolve(compose(score_traces)), num_processes=3)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("student_model=null", "`student_model` is empty, but score_traces is paid by a student"),
        ("student_model=/nowhere", "`student_model=/nowhere` does not exist"),
        ("model_name_or_path=", "`model_name_or_path` is empty: give null for none"),
        ("resume_from=latest", "remove it (it resumes by itself in the same output_dir)"),
        ("+trainer_args.optim=adamw_torch", "`trainer_args.optim` on the command line has no effect"),
        ("data.on_long_row=truncate", "traces that are too long are marked, and kept"),
        ("score.rows_per_shard=0", "`score.rows_per_shard` must be greater than 0"),
        ("+data.columns.explanations=' '", "`data.columns.explanations` must be the name of a column"),
        ("kl_penalty_reward_coeff=[1]", "must have one number for each"),
        ("output_dir=student", "is the folder of student_model"),
    ],
)
def test_rules(score_traces, word, expected):
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose([*score_traces, word])))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trace_columns_are_known_to_this_stage_alone(score_traces, teacher_sft):
    validate(compose([*score_traces, "+data.columns.explanations=completions"]))
    with pytest.raises(ConfigError, match=r"`data\.columns\.explanations` is not a field"):
        validate(compose([*teacher_sft, "+data.columns.explanations=completions"]))


@pytest.mark.parametrize(
    ("words", "estimator", "teacher"),
    [
        (["model_name_or_path=model"], "k1", "model"),
        (["model_name_or_path=model", "reward.kl_estimator=k3"], "k3", "model"),
        ([], "student_nll", None),
        (["reward.kl_estimator=k3"], "student_nll", None),
        (["model_name_or_path=model", "reward.kl_estimator=student_nll"], "student_nll", None),
        (["model_name_or_path=model", "kl_penalty_reward_coeff=[0,0]"], "student_nll", None),
    ],
)
def test_what_the_divergence_reads(score_traces, words, estimator, teacher):
    config = resolve(compose([*score_traces, *words]))
    assert (config.reward.kl_estimator, config.model_name_or_path) == (estimator, teacher)


@pytest.mark.parametrize("value", ["null", ""])
def test_a_stage_that_trains_needs_a_model(teacher_sft, value):
    with pytest.raises(ConfigError, match="`model_name_or_path` is empty: give a value"):
        validate(compose([*teacher_sft, f"model_name_or_path={value}"]))
