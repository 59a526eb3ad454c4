"""What is taken out of an answer, and whether it is right."""

import pytest

from rlt.evaluation.verdicts import UNFINISHED, GradingPool, Ungraded, Verdict
from rlt.tasks.extraction import ORDERS


@pytest.fixture(scope="module")
def pool():
    with GradingPool(ORDERS["lenient"], seconds=2) as pool:
        yield pool


@pytest.mark.parametrize(
    ("text", "reference", "kind", "correct", "extracted"),
    [
        (r"First \boxed{3}, then \boxed{025}.", "25", "math", True, "025"),
        (r"So it is \boxed{\frac{2}{4}}.", "0.5", "math", True, r"\frac{2}{4}"),
        (r"25, or \boxed{26}", "25", "math", False, "26"),
        (r"\boxed{\left( 3, \frac{\pi}{2} \right)}", r"\left( 3, \frac{\pi}{2} \right)", "math", True, None),
        ("18", "18", "math", True, "18"),
        ("", "18", "math", False, None),
        (r"Not A. \boxed{C}", "C", "choice", True, "C"),
        ("BAD", "D", "choice", False, None),
        (r"\boxed{(1 + 2) * 3}", "3 * (2 + 1)", "countdown", True, "(1 + 2) * 3"),
        ("(1 + 2) * 4", "3 * (2 + 1)", "countdown", False, "(1 + 2) * 4"),
    ],
)
def test_verdicts(pool, text, reference, kind, correct, extracted):
    (verdict,) = pool.grade([Ungraded(text, reference, kind, text)])
    assert verdict.correct is correct
    if extracted is not None or not correct:
        assert verdict.extracted == extracted


def test_a_thought_that_never_ends_has_no_answer_but_for_skythought(pool):
    turn = r"it may be \boxed{4}"
    (verdict,) = pool.grade([Ungraded(None, "4", "math", turn)])
    assert verdict == Verdict(False, None, UNFINISHED, correct_skythought=True)


def test_both_verdicts_stand_side_by_side(pool):
    answers = [
        Ungraded(text, reference, kind, text)
        for text, reference, kind in [
            (r"\boxed{0.25}", "25", "math"),  # a hundredth passes there
            (r"\boxed{(0, 1]}", "[0, 1)", "math"),  # brackets do not count there
            (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", "math"),  # for computer algebra
            (r"\boxed{\sqrt{8}}", r"3\sqrt{2}", "math"),
            (r"\boxed{C}, not a surprise", "C", "choice"),  # the article is option A there
            ("1 + 2", "2 + 1", "countdown"),  # no task of SkyThought's
        ]
    ]
    verdicts = [(v.correct, v.correct_skythought) for v in pool.grade(answers)]
    assert verdicts == [
        (False, True),
        (False, True),
        (True, True),
        (False, False),
        (True, False),
        (True, None),
    ]
