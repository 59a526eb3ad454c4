"""Published numbers are beside ours unmarked only where both were measured alike."""

import pytest

from rlt.evaluation.published import PROTOCOLS, TRUST, unlike
from rlt.evaluation.table import beside_published, legend

NUMBERS = {"num_problems": 500, "samples_per_problem": 1.0, "accuracy": 0.82, "accuracy_skythought": 0.83}
FACTS = {
    "sampling": {"temperature": 0.0, "top_p": 1.0, "max_tokens": 32768},
    "grading": {"extraction": "skythought", "unfinished": "whole"},
    "prompt_source": {"math500": "SkyThought's"},
}


def test_the_same_protocol_has_no_mark():
    assert unlike("V", "math500", NUMBERS, FACTS) == []
    rows = {row[0]: row for row in beside_published({"math500": NUMBERS}, "ours", FACTS)}
    assert rows["ours"] == ["ours", "82.0", "this run"]
    assert rows["ours, by SkyThought's program"] == ["ours, by SkyThought's program", "83.0", "this run"]
    assert rows["7B, RL without a cold start"] == ["7B, RL without a cold start", "74.2", "N"]
    assert rows["RLT-7B"][1] == "84.3 *"  # the last of that name is the re-evaluation


@pytest.mark.parametrize(
    ("numbers", "facts", "expected"),
    [
        ({"num_problems": 12}, {}, "12 of 500 problems"),
        ({"samples_per_problem": 2.0}, {}, "2 samples a problem, not 1"),
        ({}, {"sampling": {**FACTS["sampling"], "max_tokens": 16}}, "at most tokens 16, not 32768"),
        ({}, {"sampling": {**FACTS["sampling"], "temperature": 0.6}}, "temperature 0.6, not 0.0"),
        ({}, {"sampling": {**FACTS["sampling"], "top_p": 0.95}}, "top_p 0.95, not 1.0"),
        (
            {},
            {"grading": {"extraction": "lenient", "unfinished": "whole"}},
            "answers read by rules lenient, not skythought",
        ),
        ({}, {"prompt_source": {"math500": "ours"}}, "asked in other words than SkyThought's"),
        ({}, {"prompt_source": {}}, "asked in other words than SkyThought's"),
    ],
)
def test_what_differs_is_named(numbers, facts, expected):
    """Before, 12 problems of math500 at 16 tokens stood beside the model cards without a word."""
    changed, how = {**NUMBERS, **numbers}, {**FACTS, **facts}
    assert unlike("V", "math500", changed, how) == [expected]
    assert unlike("N", "math500", changed, how) == [expected]
    rows = beside_published({"math500": changed}, "ours", how)
    assert all(row[1].endswith(" *") for row in rows[3:])
    assert f"V, N: math500: {expected}" in legend({"math500": changed}, how)


def test_the_re_evaluation_is_never_without_a_mark():
    """Its temperature, length and words are not known here; the number of samples is."""
    robust = {**NUMBERS, "samples_per_problem": 2.0}
    assert unlike("I", "math500", robust, FACTS) == ["temperature, length and words are not known there"]
    assert unlike("I", "math500", NUMBERS, FACTS)[0] == "1 samples a problem, not 2"
    assert PROTOCOLS.keys() == TRUST.keys()
