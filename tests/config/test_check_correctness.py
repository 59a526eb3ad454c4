"""What student_rl asks of a configuration."""

import pytest

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.students import all_students, frozen_students
from rlt.config.validate import validate
from rlt.errors import ConfigError


@pytest.fixture
def words(place) -> list[str]:
    """Return a command line of student_rl that passes every check."""
    return [
        "run_cfg=student_rl",
        "model_name_or_path=model",
        "dataset_id_or_path=rows.jsonl",
        "generation.backend=transformers",
    ]


@pytest.mark.parametrize("recipe", ["released", "modern"])
def test_a_model_and_problems_are_enough(words, recipe):
    config = resolve(compose([*words, f"recipe={recipe}"]))
    validate(config)
    assert (config.correctness.weight, config.correctness.format_weight) == (1, 0.1)
    assert config.student_model is None


def test_the_default_model_is_what_student_sft_writes(place):
    config = compose(["run_cfg=student_rl", "dataset_id_or_path=rows.jsonl"])
    assert config.model_name_or_path == compose(["run_cfg=student_sft"]).output_dir
    with pytest.raises(
        ConfigError, match=r"student_rl starts from what student_sft writes, so run `\./launch"
    ):
        validate(config, servers_follow=True)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "student_model=student",
            "has no effect with correctness.grader=countdown and correctness.likelihood_weight=0: remove it, "
            "or take correctness.grader=likelihood or correctness.likelihood_weight=0.1.",
        ),
        ("reward.answers.grader=countdown", "`reward.answers.grader` on the command line has no effect"),
        ("reward.length.weight=1", "`reward.length.weight` on the command line has no effect"),
        ("kl_penalty_reward_coeff=[1,0]", "`kl_penalty_reward_coeff` on the command line has no effect"),
        ("layout.teacher_prompt=Teach.", "`layout.teacher_prompt` on the command line has no effect"),
        ("monitors.max_kl_share=0.9", "`monitors.max_kl_share` on the command line has no effect"),
        (
            "correctness.format_weight=1",
            "`correctness.format_weight=1` must be less than correctness.weight=1",
        ),
        ("correctness.weight=0", "`correctness.weight` must be greater than 0"),
        (
            "correctness.grader=eval",
            "`correctness.grader` must be one of math, countdown, likelihood, got 'eval'",
        ),
        ("generation.stop_at_tag=true", "a student has to end its turn by itself"),
        ("data.on_long_row=truncate", "RL rows do not have: take drop or error"),
        ("train_batch_size=1000", "so that every group is whole: take 992 or 1008"),
        ("temperature=0", "`temperature` must be greater than 0 in student_rl"),
        ("model.lora.dropout=0.1", "`model.lora.dropout=0.1` must be 0"),
        ("max_completion_length=32768", "must fit the context of model"),
        ("generation.backend=vllm", "needs running servers: start through ./launch.sh"),
        ("+trainer_args.packing=true", "is not an argument of TRL's GRPOConfig"),
        ("model_name_or_path=SakanaAI/RLT-7B", "`layout.student_prompt` must be from_dataset or file:PATH"),
    ],
)
def test_rules(words, word, expected):
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose([*words, *(["model.lora.rank=4"] if "lora" in word else []), word])))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pointless_settings_of_the_reference_are_switched_off(words):
    assert resolve(compose([*words, "trainer.beta=0"])).trainer.ref_sync_steps == 0


LIKELIHOOD = ["correctness.grader=likelihood", "student_model=policy"]


@pytest.mark.parametrize("recipe", ["released", "modern"])
def test_the_likelihood_needs_no_grader_and_no_other_model(words, recipe):
    named = [w for w in words if not w.startswith("run_cfg")]
    config = resolve(compose(["run_cfg=student_rl_likelihood", *named, f"recipe={recipe}"]))
    validate(config)
    assert (config.stage, config.correctness.grader, config.student_model) == (
        "student_rl",
        "likelihood",
        "policy",
    )
    assert all_students(config)[0].model == "model"
    assert frozen_students(config) == []
    frozen = resolve(compose([*words, "correctness.likelihood_weight=0.5", "student_model=student"]))
    assert [student.model for student in frozen_students(frozen)] == ["student"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            ["correctness.grader=likelihood"],
            "`student_model` is empty, and correctness.grader=likelihood asks",
        ),
        (["correctness.likelihood_weight=1"], "is empty, and correctness.likelihood_weight asks who reads"),
        (
            [*LIKELIHOOD, "correctness.format_weight=0.5"],
            "`correctness.format_weight` on the command line has no effect with correctness.grader=",
        ),
        (
            [*LIKELIHOOD, "correctness.likelihood_weight=2"],
            "has no effect with correctness.grader=likelihood",
        ),
        ([*LIKELIHOOD, "reward.dtype=float32"], "has no effect with student_model=policy"),
        ([*LIKELIHOOD, "reward.placement=cpu_offload"], "has nothing to place: take replicated"),
        (
            ["correctness.grader=likelihood", "student_model=student", "reward.placement=zero3"],
            "`reward.placement=zero3` is not for student_rl",
        ),
        (
            [*LIKELIHOOD, "reward.students=[{name: s, model: m}]"],
            "`reward.students` on the command line has no",
        ),
        (
            ["correctness.grader=likelihood", "student_model=reference", "trainer.beta=0"],
            "trainer.beta=0 loads none: give trainer.beta a value above 0, or take student_model=policy",
        ),
        ([*LIKELIHOOD, "reward.answer_reductions=[mode]"], "`reward.answer_reductions` may hold mean"),
        ([*LIKELIHOOD, "reward.answer_clip=[0]"], "`reward.answer_clip` must be [] for none"),
        (["reward.answer_group=rank"], "has no effect with correctness.grader=countdown"),
    ],
)
def test_rules_of_the_likelihood(words, changes, expected):
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose([*words, *changes])))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
