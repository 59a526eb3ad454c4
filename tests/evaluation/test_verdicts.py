"""What is taken out of an answer, and whether it is right."""

import pytest

from rlt.evaluation.verdicts import GradingPool
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
    (verdict,) = pool.grade([(text, reference, kind)])
    assert verdict.correct is correct
    if extracted is not None or not correct:
        assert verdict.extracted == extracted
