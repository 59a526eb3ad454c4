"""What make_countdown asks of a configuration."""

import pytest

from rlt.config.compose import compose
from rlt.config.schema import AnswerSettings
from rlt.config.tree import rows
from rlt.config.validate import validate
from rlt.errors import ConfigError
from rlt.tasks.graders import GRADERS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["countdown.min_numbers=5"], "`countdown.min_numbers=5` must be at most countdown.max_numbers=4"),
        (["countdown.min_target=101"], "must be at most countdown.max_target=100"),
        (["countdown.max_numbers=7"], "`countdown.max_numbers` must be at most 6"),
        (["countdown.operations=[+,+]"], "must hold some of"),
        (["countdown.operations=['^']"], "must hold some of"),
        (["countdown.operations=[]"], "must hold some of"),
        (["countdown.question='make {target}'"], r"`countdown.question` must hold \{numbers\}"),
        (
            ["countdown.min_target=50", "countdown.max_number=10", "countdown.operations=['+','-']"],
            "`countdown.min_target=50` is more than 4 numbers up to 10 can make with .* take at most 40",
        ),
        # C(4, 3) + C(5, 4) = 9 choices of numbers up to 2, and the target 1
        (["countdown.max_number=2", "countdown.max_target=1"], r"= 1100` must be at most 9, because"),
    ],
)
def test_rules(words, expected):
    with pytest.raises(ConfigError, match=expected):
        validate(compose(["run_cfg=make_countdown", *words]))


def test_every_grader_can_be_chosen():
    assert rows()["reward.answers.grader"].choices == tuple(GRADERS)
    assert AnswerSettings().grader == "math"
