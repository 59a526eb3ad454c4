"""What student_opd asks of a configuration."""

import pytest

from rlt.config.compose import compose
from rlt.config.files import models_of
from rlt.config.resolve import resolve
from rlt.config.teacher import teacher_name
from rlt.config.validate import validate
from rlt.errors import ConfigError


@pytest.fixture
def words(place) -> list[str]:
    """Return a command line of student_opd that passes every check."""
    return [
        "run_cfg=student_opd",
        "model_name_or_path=model",
        "teacher_model=model",
        "dataset_id_or_path=rows.jsonl",
        "generation.backend=transformers",
    ]


@pytest.mark.parametrize("recipe", ["released", "modern"])
def test_two_models_and_problems_are_enough(words, recipe):
    config = resolve(compose([*words, f"recipe={recipe}"]))
    validate(config)
    assert (config.opd.support, config.trainer.beta, config.trainer.loss_type) == ("sampled", 0.0, "dapo")
    assert teacher_name(config) == config.teacher_model


@pytest.mark.parametrize("teacher", ["self", "start", "ema"])
def test_a_teacher_of_the_students_own_weights_needs_no_other_model(words, teacher):
    of_teacher = [word for word in words if not word.startswith("teacher_model=")]
    narrow = ["opd.dtype=float32"] if teacher == "ema" else []
    config = resolve(compose([*of_teacher, f"opd.teacher={teacher}", *narrow]))
    validate(config)
    assert "teacher_model" not in models_of(config)  # the run file's default need not be there
    assert teacher_name(config) == (None if teacher == "self" else config.model_name_or_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["teacher_model=null"], "`teacher_model` is empty, but opd.teacher=model judges by it"),
        (["opd.divergence=js"], "`opd.divergence=js` needs more of the teacher than the sampled token"),
        (
            ["opd.temperature=2"],
            "`opd.temperature` on the command line has no effect with opd.support=sampled",
        ),
        (["opd.top_k=5"], "`opd.top_k` on the command line has no effect with opd.support=sampled"),
        (["opd.ema_share=0.1"], "`opd.ema_share` on the command line has no effect with opd.teacher=model"),
        (["opd.teacher=ema"], "`opd.dtype=bfloat16` would round"),
        (
            ["opd.teacher=ema", "opd.dtype=float32", "model.lora.rank=4"],
            "`opd.teacher=ema` averages all weights",
        ),
        (["opd.teacher=self", "opd.placement=zero3"], "`opd.placement` on the command line has no effect"),
        (
            ["opd.solution_in=question", "opd.question=Solve {question}"],
            "`opd.question` must hold {solution}",
        ),
        (["opd.question=x"], "`opd.question` on the command line has no effect"),
        (
            ["opd.support=full", "opd.placement=cpu_offload"],
            "`opd.placement=cpu_offload` keeps the teacher's head away from the loss",
        ),
        (
            ["opd.support=top_k", "trainer.loss_type=cispo"],
            "`trainer.loss_type=cispo` is a loss of advantages",
        ),
        (
            ["opd.answer_coeff=1", "trainer.loss_type=cispo"],
            "`trainer.loss_type=cispo` is a loss of advantages, and answers have none",
        ),
        (
            ["opd.answer_coeff=1", "opd.teacher=self", "opd.solution_in=question"],
            "`opd.answer_coeff` on the command line has no effect",
        ),
        (
            ["trainer_args.importance_sampling_level=sequence"],
            "`trainer_args.importance_sampling_level=sequence` has no place in student_opd: every token has",
        ),
        (
            ["trainer_args.off_policy_mask_threshold=0.5"],
            "`trainer_args.off_policy_mask_threshold=0.5` has no place in student_opd: every token has",
        ),
        (
            ["trainer_args.delta=0.5", "opd.support=full"],
            "has no place in student_opd: opd.support=full has no",
        ),
        (
            ["trainer_args.top_entropy_quantile=0.2", "opd.support=top_k"],
            "`trainer_args.top_entropy_quantile=0.2` has no place in student_opd: opd.support=top_k has no",
        ),
        (["opd.placement=server"], "`opd.placement=server` needs running servers"),
        (
            ["opd.placement=server", "opd.servers=[http://a:1]", "opd.teacher=start"],
            "`opd.placement=server` serves a model of its own",
        ),
        (
            [
                *("opd.placement=server", "opd.servers=[http://a:1]", "opd.support=top_k"),
                "opd.temperature=2",
            ],
            "`opd.temperature=2` is not the temperature=1",
        ),
        (["opd.placement=zero3", "opd.dtype=float32"], "`opd.placement=zero3` shards the teacher in"),
        (["trainer.scale_rewards=none"], "`trainer.scale_rewards` on the command line has no effect"),
        (["student_model=model"], "model_name_or_path is the student, teacher_model its teacher"),
    ],
)
def test_rules(words, changes, expected):
    if any(change.startswith("opd.teacher=") for change in changes):
        words = [word for word in words if not word.startswith("teacher_model=")]
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose([*words, *changes])))
    assert expected in str(caught.value)


def test_what_acts_on_each_token_is_let_be(words):
    plain = ["trainer_args.importance_sampling_level=token", "trainer_args.top_entropy_quantile=0.2"]
    validate(resolve(compose([*words, *plain])))
    validate(resolve(compose([*words, "trainer_args.top_entropy_quantile=1.0", "opd.support=full"])))
