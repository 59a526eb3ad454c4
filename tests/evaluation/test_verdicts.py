"""What is taken out of an answer, and whether it is right."""

import pytest
from helpers.skythought_stand_in import stand_in

from rlt.config.original.skythought import grader_paths
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


def test_a_thought_that_never_ends_has_no_answer(pool):
    turn = r"it may be \boxed{4}"
    (verdict,) = pool.grade([Ungraded(None, "4", "math", turn)])
    assert verdict == Verdict(False, None, UNFINISHED)


def test_skythoughts_verdict_stands_beside_ours(tmp_path, monkeypatch):
    """The stand-in takes a whole turn that is the reference with a mark behind it."""
    paths = grader_paths(str(stand_in(tmp_path, monkeypatch)))
    answers = [
        Ungraded("4", "4", "math", "4!", "math500"),
        Ungraded("4", "4", "math", "4", "math500"),
        Ungraded(None, "4", "math", "4!", "math500"),  # a thought that never ends
        Ungraded("1 + 2", "2 + 1", "countdown", "1 + 2", "countdown"),  # no task of SkyThought's
    ]
    with GradingPool(ORDERS["lenient"], seconds=2, original=paths) as pool:
        verdicts = [(v.correct, v.correct_skythought) for v in pool.grade(answers)]
    assert verdicts == [(True, True), (True, False), (False, True), (True, None)]
