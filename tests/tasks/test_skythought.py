"""SkyThought's way of comparing answers; expectations come from reading its rules at 4bb8f3e."""

import random

import pytest

from rlt.tasks.skythought import read, says_same


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("025", "25", True),  # AIME's leading zeros
        ("1,000", "1000", False),  # it sorts whole numbers between commas: 0,1
        ("1,000.5", "1000.5", True),
        ("25.00", "25", True),
        ("25", "26", False),
        ("100.009", "100", True),  # within 1e-4 of it
        ("100.011", "100", False),
        (r"25\%", "0.25", True),
        ("0.25", "25", True),
        (r"5\text{ cm}", "5", True),
        (r"90^\circ", "90", True),
        ("x=5", "5", True),
        ("3, 1, 2", "1,2,3", True),
        ("1/2", r"\dfrac{1}{2}", True),
        (r"\frac12", r"\frac{1}{2}", True),
        (r"\left(0, 1\right]", "[0, 1)", True),
        ("(1, 2)", "(1.0, 2.00)", True),
        ("(1, 2)", "(2, 1)", None),
        (r"\begin{pmatrix}1 & 2\\ 3 & 4\end{pmatrix}", r"\begin{bmatrix} 1&2\\3&4.0 \end{bmatrix}", True),
        (r"\text{East}", "east", True),
        (r"2\sqrt{2}", r"\sqrt{8}", None),
        ("", "5", None),
    ],
)
def test_comparison(answer, reference, verdict):
    assert says_same(answer, reference) is verdict


def test_the_whole_turn_is_read():
    assert read(r"<think> \boxed{3}, no: \boxed{4} </think> four", "math") == "4"
    assert read("is it a or d? An apple a day", "choice") == "A"  # in capitals, where an article is an option
    assert read("nothing", "choice") is None


def test_hostile_texts_end_in_a_verdict():
    rng = random.Random(0)
    signs = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&",
        "\\",
        r"\\",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        "=",
        "9",
        "x",
    ]
    texts = ["".join(rng.choices(signs, k=rng.randrange(1, 40))) for _ in range(2000)]
    texts += ["(" * 10**5 + ")" * 10**5, "9" * 10**6, "," * 10**5, "1," * 10**5 + "1", r"\text{" * 10**4]
    for text in texts:
        assert says_same(text, text) is True
        assert says_same(text, "7") in (True, False, None)
