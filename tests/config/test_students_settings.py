"""Several students in the settings."""

from __future__ import annotations

import pytest

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.students import all_students
from rlt.config.validate import validate
from rlt.errors import ConfigError


@pytest.fixture
def config(teacher_rl, place):
    def build(*words: str):
        config = resolve(compose([*teacher_rl, *words]))
        validate(config, servers_follow=True)
        return config

    return build


def test_what_a_student_leaves_open_comes_from_the_reward(config):
    words = (
        "reward.students=[{name: a, model: student}, {name: b, model: student, weight: 2, temperature: 1}]"
    )
    first, a, b = all_students(config(words, "layout.student_prompt=Think."))
    assert (first.name, a.name, b.name) == ("student", "a", "b")
    assert (first.weight, a.weight, b.weight) == (1, 1, 2)
    assert (first.temperature, a.temperature, b.temperature) == (0.7, 0.7, 1)
    assert (a.model, a.prompt) == ("student", "Think.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reward.students=[{model: student}]"], "must give each student its own name"),
        (["reward.students=[{name: student, model: student}]"], "other than student"),
        (["reward.students=[{name: a, model: student}, {name: a, model: student}]"], "got 'a'"),
        (["reward.students=[{name: a}]"], "must give a a model"),
        (["reward.students=[{name: a, model: student, weight: 0}]"], "a weight above 0, got 0"),
        (["reward.students=[{name: a, model: student, temperature: -1}]"], "a temperature above 0, got -1"),
        (
            ["reward.students=[{name: a, model: ./nowhere}]"],
            "`reward.students.a.model=./nowhere` does not exist",
        ),
        (["reward.students=[{name: a, model: student, wieght: 1}]"], "weight"),
        (
            ["reward.students=[{name: a, model: student, weight: 2}]", "reward.combine=min"],
            "gives a the weight 2, which has no effect with reward.combine=min: remove it, or take",
        ),
        (
            ["reward.combine=min"],
            "has no effect with reward.students=[]: remove it, or take",
        ),
        (
            ["reward.students=[{name: a, model: bespokelabs/Bespoke-Stratos-32B, prompt: Think.}]"],
            "`reward.students.a.prompt` must be from_dataset or file:PATH with model=bespokelabs",
        ),
        (
            [
                "reward.students=[{name: a, model: student}]",
                "reward.placement=server",
                "reward.servers=[http://127.0.0.1:8100]",
            ],
            "cannot use the servers of student_model",
        ),
    ],
)
def test_one_sentence_for_a_wrong_student(config, words, said):
    with pytest.raises(ConfigError) as error:
        config(*words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
