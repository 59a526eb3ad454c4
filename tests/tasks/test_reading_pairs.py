"""Whole answers of models beside labels set by hand, by kind."""

import pytest
from reading_pairs import PAIRS

from rlt.evaluation.verdicts import GradingPool, Ungraded
from rlt.tasks.extraction import ORDERS


@pytest.fixture(scope="module")
def pool():
    with GradingPool(ORDERS["lenient"], seconds=5.0) as pool:
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
    pairs = [pair[:2] for pairs in PAIRS.values() for pair in pairs]
    assert len(set(pairs)) == len(pairs) > 150
