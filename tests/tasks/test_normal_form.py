"""Answers in one writing, verdicts without computer algebra, and the time that long ones take."""

import time
from fractions import Fraction

import pytest

from rlt.tasks.normal_form import decide, normal_form, read_number


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("025", "25"),
        ("25.0", "25"),
        (r"$\dfrac{2}{4}$", "1/2"),
        ("0.50", "1/2"),
        (r"1\frac{1}{2}", "3/2"),
        ("1,234", "1234"),
        (r"\left( 3, \frac12 \right)", r"(3,\frac{1}{2})"),
        (r"\text{Even}", "even"),
        ("1 2", "1 2"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
)
def test_normal_forms(text, form):
    assert normal_form(text) == form
    assert normal_form(form) == form


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("-1 1/2", Fraction(-3, 2)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        ("1.5e3", 1500),
        (r"2 \times 10^{-2}", Fraction(1, 50)),
        ("1,23", None),
        ("1/0", None),
        ("x", None),
        (".", None),
        ("", None),
    ],
)
def test_numbers(text, number):
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("1/2", "0.5", True),
        ("1/2", "0.51", False),
        ("0.3333333", "1/3", None),
        ("5 cm", r"5\text{ cm}", True),
        ("5 cm", "5 m", False),
        (r"50\%", "0.5", True),
        (r"50\%", r"49\%", False),
        ("101_2", "101_3", False),
        (r"\sqrt{8}", r"2\sqrt{2}", None),
        ("3ab", "3", None),
        ("", "", False),
    ],
)
def test_verdicts_without_algebra(answer, reference, verdict):
    assert decide(answer, reference) is verdict


PIECES = [
    "\\",
    "{",
    "}",
    "9",
    "9,",
    "9 ",
    " ",
    "$",
    "\\frac{",
    "\\frac{a}",
    "\\text{",
    "\\text{a} ",
    "^{",
    "/",
    "cm ",
]
PIECES += ["%", ".", " a", "Ab ", "\\sqrt", "sqrt(", "\u221a(", "^\\circ", "} aa", " and ", "-", "_{", "\\\\"]
PIECES += [
    "9, ",
    "x=",
    "(",
    "\\{",
    "\\cup ",
    "\\mathrm{",
    "\\mathbf{x",
    "\\overline{9",
    "9.\\overline{9}",
    "word ",
    "9 word ",
]
PIECES += ["\\rm ", "\u00bd", "\u00b2", "\\approx", "<", "x<9", "9,\\! 999", "\\text{word} 9 "]


@pytest.mark.parametrize("piece", PIECES)
def test_long_texts_take_no_time(piece):
    for start in ("", "5 ", "\\text{", "-"):
        before = time.process_time()
        decide(start + piece * (20_000 // len(piece)), "5 cm")
        assert time.process_time() - before < 2, start
