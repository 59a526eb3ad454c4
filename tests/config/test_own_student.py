"""The policy or its reference as the student: where they may judge, and what each refusal says."""

import pytest

from rlt.config.compose import compose
from rlt.config.files import models_of
from rlt.config.judges import moves
from rlt.config.resolve import resolve
from rlt.config.students import frozen_students
from rlt.config.validate import validate
from rlt.errors import ConfigError


def words_of(stage: str, *changes: str) -> list[str]:
    given = [f"run_cfg={stage}", "dataset_id_or_path=rows.jsonl", "layout.student_prompt=default"]
    return [*given, *changes]


def teacher_rl(*changes: str) -> list[str]:
    return words_of("teacher_rl", "model_name_or_path=model", "generation.backend=transformers", *changes)


@pytest.mark.parametrize(
    ("changes", "moving"),
    [
        (["student_model=policy"], True),
        (["student_model=reference"], True),
        (["student_model=reference", "trainer.ref_sync_steps=0"], False),
        (["student_model=reference", "model.lora.rank=4"], False),
        (["student_model=policy", "trainer.beta=0"], True),
        (["student_model=reference", "trainer.beta=0", "model.lora.rank=4"], False),
        (["student_model=student"], False),
        (["reward_cfg=nover"], True),
        (["reward_cfg=jepo"], True),
        (["reward_cfg=verifree"], True),
        (["reward_cfg=rlpr"], True),
    ],
)
def test_own_students_and_presets_are_whole(place, changes, moving):
    config = resolve(compose(teacher_rl(*changes)))
    validate(config)
    assert moves(config) == moving
    is_frozen = "student_model=student" in changes
    assert [s.model for s in frozen_students(config)] == (["student"] if is_frozen else [])
    assert ("student_model" in models_of(config)) == is_frozen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            teacher_rl("student_model=reference", "trainer.beta=0"),
            "`student_model=reference` is the reference model of the KL term, and trainer.beta=0 loads",
        ),
        (
            teacher_rl("student_model=policy", "reward.placement=server", "reward.servers=[http://h:1]"),
            "so reward.placement=server has nothing to place: take replicated, or give a student of its own",
        ),
        (
            teacher_rl("student_model=policy", "reward.placement=zero3"),
            "so reward.placement=zero3 has nothing to place: take replicated",
        ),
        (
            teacher_rl("student_model=policy", "reward.placement=server"),  # and not: start servers of it
            "so reward.placement=server has nothing to place: take replicated",
        ),
        (
            teacher_rl("student_model=policy", "reward.students=[{name: s, model: student}]"),
            "`student_model=policy` judges alone, because reward.students would be frozen where it moves",
        ),
        (
            teacher_rl("student_model=policy", "reward.answers.weight=1"),
            "`student_model=policy` answers nothing, because only a frozen student is whole in each process",
        ),
        (
            words_of("score_traces", "student_model=policy"),
            "`student_model=policy` is a model of an RL training, and score_traces trains none: give a",
        ),
        (
            words_of("select_traces", "student_model=reference", "select.max_length=99"),
            "is a model of an RL training, and select_traces trains none",
        ),
        (
            words_of("plan_traces", "student_model=policy"),
            "is a model of an RL training, and plan_traces trains none",
        ),
        (words_of("score_traces", "student_model=student", "reward.answer_group=rank"), "has no effect in"),
    ],
)
def test_what_they_cannot_do_is_one_sentence(place, words, expected):
    with pytest.raises(ConfigError) as caught:
        validate(resolve(compose(words)))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
