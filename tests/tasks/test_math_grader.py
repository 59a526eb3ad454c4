"""Answers that are right, wrong, or written to break the grader."""

from __future__ import annotations

import threading

import psutil
import pytest

from rlt.tasks.grading_process import as_math
from rlt.tasks.math_grader import MathGrader


@pytest.fixture(scope="module")
def grader():
    with MathGrader(seconds=100, most_children=1) as grader:
        yield grader


@pytest.fixture(scope="module")
def hasty_grader():
    with MathGrader(seconds=1, most_children=1) as grader:
        yield grader


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("72", "72"),
        ("The answer is 72.", "72"),
        ("#### 72", "She sold 48/2 = <<48/2=24>>24 clips.\n#### 72"),
        ("1,234", "1234"),
        ("0.5", r"\frac{1}{2}"),
        (r"So $x = \boxed{\frac{2}{4}}$.", "1/2"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("x^2 + 2x + 1", "$(x+1)^2$"),
        ("(1, 2)", r"\((1,2)\)"),
        ("Paris", " Paris "),
        ("It is 5, no, \\boxed{7}", "7"),
    ],
)
def test_right_answers(grader, answer, reference):
    assert grader(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("73", "72"),
        ("", "72"),
        ("  \n", ""),
        ("no idea", "72"),
        (r"\sqrt{2}", "2"),
        ("2", r"\sqrt{2}"),
        ("London", "Paris"),
        ("(2, 1)", "(1, 2)"),
        ("3:4", "3"),
        ("72 and then \\boxed{73}", "72"),
    ],
)
def test_wrong_answers(grader, answer, reference):
    assert not grader(answer, reference)


ENDLESS = r"\prod_{i=1}^{10^{9}} i"
"""What computer algebra never comes to an end with."""
HOSTILE = [
    "9^{9^{9^{9^{9}}}}",
    "(" * 5000 + ")" * 5000,
    r"\frac{1}{" * 400 + "1" + "}" * 400,
    r"\boxed{" * 3000,
    r"\int_0^1 x^{x^{x^{x}}} \sin(x^{99999}) dx",
    "100000000000!!",
    r"\prod_{i=1}^{10^{9}} i",
    "\x00\ud7ff$\\",
    "__import__('os').system('false')",
]


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_are_wrong_in_a_limited_time(hasty_grader, grader, answer):
    assert not hasty_grader(answer, r"\boxed{72}")
    assert grader("$36*2$", "72")


@pytest.mark.slow  # its threads start processes
def test_a_time_limit_holds_in_any_thread():
    with MathGrader(seconds=5) as grader:
        found = []
        thread = threading.Thread(target=lambda: found.append(grader(ENDLESS, "72")))
        thread.start()
        thread.join()
        assert found == [False]
        assert grader.undecided == 1
        assert grader("2/2", "1")


def test_a_child_that_was_killed_is_started_again():
    others = children()
    with MathGrader(seconds=100, most_children=1) as grader:
        assert grader("x+x", "2x")
        (pid,) = children() - others
        child = psutil.Process(pid)
        child.kill()
        child.wait()
        assert grader("y+y", "2y")
        assert len(children() - others - {pid}) == 1
        assert grader.undecided == 0
    assert children() == others


def children() -> set[int]:
    """Return the grading processes of this one."""
    found = psutil.Process().children()
    return {p.pid for p in found if p.status() != "zombie" and "rlt.tasks.grading_process" in p.cmdline()}


def test_an_answer_that_ends_its_child_takes_no_other_with_it():
    """More pairs than children, in one call; each verdict is that of its own pair."""
    pairs = [(f"x+{i}x" if i % 3 else "y", f"{i + 1}x") for i in range(40)]
    pairs[17] = (ENDLESS, "72")
    with MathGrader(seconds=1) as grader:
        assert grader.grade(pairs) == [bool(i % 3) and i != 17 for i in range(40)]
        assert grader.undecided == 1
        assert grader.grade(pairs)[17] is False
        assert grader.undecided == 1, "what ended a child once is not tried again"


def test_what_has_no_words_is_read_as_one_formula():
    assert as_math(r"\frac{1}{2}") == r"$\frac{1}{2}$"
    assert as_math("It is 2 to 3.\n#### 5") == "$5$"
    assert as_math("72 apples") == "72 apples"
    assert as_math(r"\(2\)") == r"\(2\)"
