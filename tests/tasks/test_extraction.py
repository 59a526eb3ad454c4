"""What each rule takes out of a text, which rule comes first, and that length costs no more than length."""

import time

import pytest

from rlt.config.schema import EvaluateSettings
from rlt.tasks.extraction import ORDERS, RULES, extract


def lenient(text, kind="math"):
    return extract(text, ORDERS["lenient"][kind])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\fbox{7}", "7"),
        (r"\boxed {x }", "x"),
        (r"\boxed{a{b}c} and \boxed{cut {off", "a{b}c"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),
        (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\\boxed{5}", "5"),
        ("} \\boxed{5}", "5"),
        (r"\boxed{}", None),
        ("boxed{5}", None),
    ],
)
def test_the_last_box_that_is_closed(text, answer):
    assert RULES["last boxed"](text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 72.", "72"),
        ("the final answer is: **3.5**.", "3.5"),
        ("Answer:\n\n  x = 4\nand more", "x = 4"),
        (r"The answer is $\frac{1}{2}$, because of symmetry.", r"\frac{1}{2}"),
        (r"So the answers are \((1, 2)\) and so on.", "(1, 2)"),
        ("The answer is (1, 2), which is a point.", "(1, 2)"),
        ("The answer is 5 because 2+3 = 5.", "5"),
        ("The answer is 1. No, the answer is 2.", "2"),
        ("The answer is", None),
        ("I answered 5 of them.", None),
    ],
)
def test_answer_phrases(text, answer):
    assert RULES["answer phrase"](text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("from 3 to 1,234.5 of them", "1,234.5"),
        ("it is -5.", "-5"),
        ("it is \u22125.", "\u22125"),
        ("so 7-3", "3"),
        ("about .5", ".5"),
        ("so 3/4 of it", "3/4"),
        ("1,2345", "2345"),
        ("none", None),
    ],
)
def test_the_last_number(text, answer):
    assert RULES["last number"](text) == answer


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"The answer is 3. \boxed{4} or 5", ("4", "last boxes")),
        (r"\boxed{1} and \boxed{2}", ("1, 2", "last boxes")),
        ("<think>\\boxed{1}</think><answer>2</answer>", ("2", "answer tag")),
        (r"It is $\frac{1}{2}$ in all.", (r"\frac{1}{2}", "last formula")),
        ("48/2 = <<48/2=24>>24\n#### 72", ("72", "final mark")),
        ("Not 3: the answer is 4, not 5.", ("4", "answer phrase")),
        (r"x^2 + 2x + 1", ("x^2 + 2x + 1", "whole formula")),
        (r"5\text{ cm}", (r"5\text{ cm}", "whole formula")),
        ("We add 3 and 4 and get 7 apples.", ("7", "last value")),
        ("no real solutions", ("no real solutions", "one line")),
        ("There is nothing\nto be said", (None, "none")),
        (r"It is \boxed{4", ("4", "last value")),
        ("", (None, "none")),
    ],
)
def test_the_order_of_lenient_mathematics(text, found):
    assert lenient(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"Not A. \boxed{C}, rather than B", ("C", "boxed letter")),
        (r"\boxed{\text{(D)}}", ("D", "boxed letter")),
        (r"\boxed{B) 5 m}", ("B", "boxed letter")),
        (r"\boxed{5 m}, so A", ("A", "last letter")),
        ("The answer is **(B)**, since A is no option.", ("B", "letter after phrase")),
        ("Answer: option C. Not D.", ("C", "letter after phrase")),
        ("It must be B, as vitamin B12 and A2 show", ("B", "last letter")),
        ("BAD", (None, "none")),
    ],
)
def test_the_order_of_lenient_choices(text, found):
    assert lenient(text, "choice") == found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("from 3 to 1,234.5 of them", "1,234.5"),
        ("it is -5.", "-5"),
        ("so 7-3", "7-3"),
        ("so 7 - 3 = 4!", "4"),
        ("about .5", ".5"),
        ("so 3/4 of it", "3/4"),
        ("a gain of $18.50 (10%).", "10%"),
        ("it costs $18/hour", "18"),
        ("a 10-year loan", "10"),
        ("it is 2^10, I think", "2^10"),
        (r"it is 3 \sqrt{2}.", r"3 \sqrt{2}"),
        ("at (3, -4) then", "(3, -4)"),
        ("so (there are 5)", "5"),
        ("48/2 = <<48/2=24>>24 clips", "24"),
        ("5 of them, since 2 < 3", "5"),
        ("model AB2C is best of 7", "7"),
        ("model AB2C", None),
        ("none", None),
    ],
)
def test_the_last_value_is_a_whole(text, value):
    assert RULES["last value"](text) == value


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        (r"so $a$ is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("He pays $5 and then $7 of them.", None),
        ("He pays $5 and has $x = 3$ left.", "x = 3"),
        (r"so \[ x = 1 \] and \[ y = 2 \]", "x = 1, y = 2"),
        (r"so $x = 1$. Then there are 12 of them.", None),
        (r"so it is $12$, where $n = 3$ is the size", "12"),
        (r"\begin{align*} x &= 5 \end{align*}", "x &= 5"),
        (r"$\$36$", r"\$36"),
        ("none of $x$ and $y$", None),
    ],
)
def test_the_last_formula(text, formula):
    assert RULES["last formula"](text) == formula


def test_skythoughts_order():
    """As method.md has it: last box, answer phrase, last number; of choices the last letter alone."""
    orders = ORDERS["skythought"]
    assert extract(r"\boxed{1}; the answer is 2, not 3", orders["math"]) == ("1", "last boxed")
    assert extract("the answer is 2, not 3", orders["math"]) == ("2", "answer phrase")
    assert extract("#### 2\nor 3", orders["math"]) == ("3", "last number")
    assert extract(r"\boxed{C}, rather than B", orders["choice"]) == ("B", "last letter")


def test_the_configuration_knows_the_same_orders():
    assert tuple(ORDERS) == EvaluateSettings.__dataclass_fields__["extraction"].metadata["choices"]
    kinds = EvaluateSettings.__dataclass_fields__["grader"].metadata["choices"]
    assert all(tuple(order) == kinds for order in ORDERS.values())


HOSTILE = [
    "\\",
    "\\boxed{",
    "\\boxed ",
    "{",
    "}",
    "9",
    "9,",
    "-",
    "(",
    "$",
    " ",
    "answer ",
    "answer is ",
    "\\(",
]
HOSTILE += ["\\text{", "A ", "A", "####", ".", "*", "the answer is \\(", "\\boxed{A}", "\\f", "9.", "9/"]
HOSTILE += [
    "\\boxed{1} and ",
    "$1$ and ",
    "$1$",
    "\\[",
    "<answer>",
    "</answer>",
    "9 + ",
    "(9, ",
    "since 9 ",
    "9 since ",
]
HOSTILE += ["\\begin{align}", "<<", "9!", "9 \\sqrt{", "a9 ", "9\n", "= 9 "]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("rule", RULES)
def test_long_texts_take_no_time(rule, piece):
    start = time.process_time()
    RULES[rule](piece * (200_000 // len(piece)))
    RULES[rule]("The answer is \\boxed{" + piece * (200_000 // len(piece)))
    assert time.process_time() - start < 2
