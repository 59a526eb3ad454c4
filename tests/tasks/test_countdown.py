"""The Countdown grader against Python's own parser, and hostile answers."""

import ast
import operator
import random
import time
from fractions import Fraction

import pytest

from rlt.errors import DataError
from rlt.tasks.countdown import MAX_CHARACTERS, CountdownGrader, parse_expression, tinyzero_reward

PYTHON = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def by_python(text: str) -> Fraction | None:
    """Return an expression's value through Python's parser, None for a division by zero."""

    def value(node) -> Fraction:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int)
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand) if isinstance(node.op, ast.USub) else value(node.operand)
        return PYTHON[type(node.op)](value(node.left), value(node.right))

    try:
        return value(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        return None


def random_expression(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return str(rng.randrange(12))
    left, right = (random_expression(rng, depth - 1) for _ in range(2))
    text = f"{left}{rng.choice(['', ' '])}{rng.choice('+-*/')}{right}"
    return rng.choice([text, f"({text})", f"-({text})"])


def test_values_agree_with_python():
    rng = random.Random(0)
    for _ in range(2000):
        text = random_expression(rng, 4)
        if len(text) > MAX_CHARACTERS:
            continue
        expression = parse_expression(text)
        assert expression is not None, text
        assert expression.value == by_python(text), text


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("8 / (3 - 8 / 3)", 1.0),  # 8 / (1/3): only exact fractions make it 24
        ("8\N{DIVISION SIGN}(3\N{MINUS SIGN}8\N{DIVISION SIGN}3)", 1.0),
        ("8 * 3 * (8 - 7)", 0.1),  # 24 of other numbers
        ("8 + 8 + 3 + 3", 0.1),
        ("8 * 3", 0.1),  # 24, but two numbers are left
        ("8 / (3 - 8 / 3) + 3 - 3", 0.1),  # a number too often
        ("8 / (3 - 3) + 8", 0.1),
        ("24", 0.1),
        ("", 0.0),
        ("8 *", 0.0),
        ("(8", 0.0),
        ("8)", 0.0),
        ("8 3", 0.0),
        ("8 (3)", 0.0),
        ("()", 0.0),
        ("8 ** 3", 0.0),
        ("8 // 3", 0.0),
        ("8.0 + 3", 0.0),
        ("8 / (3 - 8 / 3) = 24", 0.0),
        ("٨ + ٣", 0.0),
        ("__import__('os')", 0.0),
    ],
)
def test_tinyzero_reward_by_hand(answer, reward):
    assert tinyzero_reward(answer, "8/(3-8/3)") == reward
    assert CountdownGrader()(answer, "8/(3-8/3)") is (reward == 1.0)


@pytest.mark.parametrize("reference", ["72", "seventy-two", "1/0", ""])
def test_a_reference_must_have_a_value(reference):
    if reference == "72":
        assert CountdownGrader()("72", reference)
        return
    with pytest.raises(DataError, match="must be an expression such as"):
        CountdownGrader()("72", reference)


def test_hostile_answers_neither_crash_nor_hang():
    rng = random.Random(0)
    letters = "0123456789+-*/()\u2212\u00d7\u00f7 .=^eE_\n\t٣²½\u2028\ud800\x00∞"
    hostile = ["".join(rng.choices(letters, k=rng.randrange(200))) for _ in range(10_000)]
    most = MAX_CHARACTERS
    hostile += ["(" * n + "8" + ")" * n for n in (most // 2 - 1, 10**6)]
    hostile += ["9" * most, "9" * 10**6, "-" * (most - 1) + "8", "1/" * (most // 2 - 1) + "3", "(" * most]
    hostile += ["9" * 250 + "*" + "9" * 250, "1/0*" * 100 + "1"]
    start = time.process_time()
    rewards = {tinyzero_reward(text, "8/(3-8/3)") for text in hostile}
    assert time.process_time() - start < 5
    assert rewards == {0.0, 0.1}
