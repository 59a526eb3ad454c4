"""Whole answers of models beside labels set by hand, by kind; and texts written to break the grader."""

import time

import held_out_pairs
import pytest
import reading_pairs

from rlt.evaluation.verdicts import GradingPool, Ungraded
from rlt.tasks.extraction import ORDERS

PAIRS = {kind: reading_pairs.PAIRS[kind] + held_out_pairs.PAIRS[kind] for kind in reading_pairs.PAIRS}
HOSTILE = {
    "boxes": r"\boxed{1} and " * 8_000,
    "formulas": "$1$ and " * 12_000,
    "tags": "<answer>" * 12_000,
    "digits": "9" * 100_000,
    "list": "1," * 50_000 + "1",
    "powers": "9^" * 30_000 + "9",
    "exponent": "10^{999999999999}",
    "scientific": "1e99999999999999999999",
    "fonts": r"\mathbf{" * 10_000 + "72" + "}" * 10_000,
    "repeating": r"0.\overline{" + "3" * 90_000 + "}",
    "words": "some word 9 " * 8_000,
    "names": "x=" * 50_000 + "73",
    "points": "(" * 20_000 + "72" + ",1)" * 20_000,
    "superscripts": "2" + "\u2079" * 50_000,
}


@pytest.fixture(scope="module")
def pool():
    with GradingPool(ORDERS["lenient"], seconds=2.0) as pool:
        yield pool


@pytest.mark.parametrize("kind", PAIRS)
def test_the_grader_agrees_with_the_labels(pool, kind):
    verdicts = pool.grade([Ungraded(text, reference, "math", text) for text, reference, _ in PAIRS[kind]])
    others = [
        (text, reference, verdict.extracted, verdict.rule)
        for (text, reference, label), verdict in zip(PAIRS[kind], verdicts, strict=True)
        if verdict.correct is not label
    ]
    assert not others


def test_no_pair_comes_twice():
    assert held_out_pairs.PAIRS.keys() == reading_pairs.PAIRS.keys()
    pairs = [pair[:2] for pairs in PAIRS.values() for pair in pairs]
    assert len(set(pairs)) == len(pairs) > 450


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_wrong_in_a_limited_time(pool, name):
    """Beside plain references, and beside themselves with one more sign."""
    text = HOSTILE[name]
    before = time.process_time()
    verdicts = pool.grade(
        [Ungraded(text, other, "math", text) for other in ("72", r"\{1, 2\}", text + r"+\boxed{7}")]
    )
    assert time.process_time() - before < 5
    assert not any(verdict.correct for verdict in verdicts)
