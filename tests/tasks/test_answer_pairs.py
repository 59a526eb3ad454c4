"""The grader beside labels set by hand: every pair, known limits, and random texts that must not stop it."""

import os
import random

import pytest
from answer_pairs import CHOICES, LIMITS, RIGHT, WRONG

from rlt.evaluation.verdicts import GradingPool, Ungraded
from rlt.tasks.extraction import ORDERS

SECONDS = 2.0
PAIRS = [(*pair, True) for pairs in RIGHT.values() for pair in pairs]
PAIRS += [(*pair, False) for pairs in WRONG.values() for pair in pairs]


@pytest.fixture(scope="module")
def pool():
    with GradingPool(ORDERS["lenient"], seconds=SECONDS) as pool:
        yield pool


@pytest.mark.slow
def test_the_grader_agrees_with_the_labels(pool):
    verdicts = pool.grade([Ungraded(answer, reference, "math", answer) for answer, reference, _ in PAIRS])
    others = {
        (answer, reference)
        for (answer, reference, label), verdict in zip(PAIRS, verdicts, strict=True)
        if verdict.correct is not label
    }
    new, mended = others - LIMITS, LIMITS - others
    assert not new, [tuple(text[:60] for text in pair) for pair in new]
    assert not mended, "take these out of LIMITS"


def test_choices(pool):
    verdicts = pool.grade([Ungraded(answer, reference, "choice", answer) for answer, reference, _ in CHOICES])
    wrong = [one for one, v in zip(CHOICES, verdicts, strict=True) if v.correct is not one[2]]
    assert not wrong


def test_there_are_enough_of_both():
    texts = {(answer, reference) for answer, reference, _ in PAIRS}
    assert len(texts) == len(PAIRS)
    assert len(PAIRS) > 200
    assert sum(label for *_, label in PAIRS) > 100
    assert texts > LIMITS
    assert len(LIMITS) < len(PAIRS) / 20


PIECES = [
    "\\",
    "{",
    "}",
    "$",
    "^",
    "_",
    "&",
    "%",
    "#",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    "-",
    "=",
    "<",
    "|",
    "!",
    "/",
]
PIECES += [
    "\\boxed{",
    "\\frac",
    "\\sqrt",
    "\\left(",
    "\\right)",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "\\text{",
]
PIECES += [
    "\\int",
    "\\sum_",
    "\\infty",
    "\\cup",
    "\\pm",
    "\\in",
    "\\circ",
    "\\log",
    "\\{",
    "\\}",
    "\\\\",
    "\\(",
]
PIECES += [
    "The answer is ",
    "####",
    " and ",
    " cm",
    "percent",
    "lambda x: ",
    "__import__('os')",
    "\n",
    " ",
    "  ",
]
PIECES += [
    "1",
    "2",
    "9",
    "0",
    "123",
    "1,000",
    "1e9",
    "x",
    "y",
    "i",
    "e",
    "A",
    "n!",
    "\x00",
    "\ud83d",
    "\u0663",
    "\u221e",
]


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.choice([1, 3, 8, 20, 60])))


def test_random_texts_raise_nothing_and_come_to_an_end():
    """RLT_FUZZ=10000 tries more of them."""
    rng = random.Random(0)
    references = [pair[1] for pairs in RIGHT.values() for pair in pairs if len(pair[1]) < 1000]
    with GradingPool(ORDERS["lenient"], seconds=1) as pool:
        pool.grade([Ungraded("x+x", "2x", "math", "x+x")])
        for _ in range(int(os.environ.get("RLT_FUZZ", "1000"))):
            answer = random_text(rng)
            reference = rng.choice([rng.choice(references), random_text(rng)])
            kind = rng.choice(["math", "math", "choice"])
            (verdict,) = pool.grade([Ungraded(answer, reference, kind, answer)])
            assert not verdict.correct or verdict.extracted
