"""Which samples are drawn, under which seeds, and what counts as malformed."""

import pytest

from rlt.formats.encode import Piece, encode
from rlt.formats.layout import TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.generation.seeds import spread_seed
from rlt.records import Completion, Problem
from rlt.traces.collect import Prompted, Sample, plan_samples, read_sample, samples_digest, summarize

TAGS = TAG_STYLES["bespoke"]
CLOSE = TAGS.explanation.close


def row(problem_id: str) -> Prompted:
    return Prompted(Problem(problem_id, f"{problem_id}?", "1"), [1, 2, int(problem_id, 16)])


A, B = row("a1"), row("b2")


def keys(samples):
    return [sample.key for sample in samples]


def test_rows_are_numbered_within_their_problem():
    assert keys(plan_samples([A, B], 2)) == [("a1", 0), ("a1", 1), ("b2", 0), ("b2", 1)]
    assert keys(plan_samples([A, B, A], 2, first_index=4)) == [
        *(("a1", 4), ("a1", 5), ("b2", 4), ("b2", 5)),
        *(("a1", 6), ("a1", 7)),
    ]


def test_wanted_samples_are_drawn_once_and_open_ones_as_usual():
    samples = plan_samples([A, B, A], 2, requested={"a1": [7, 3], "b2": []})
    assert keys(samples) == [("a1", 7), ("a1", 3), ("b2", 0), ("b2", 1)]


def test_a_seed_depends_on_run_problem_and_number_alone():
    sample = Sample(A, 3)
    assert sample.seed(42) == spread_seed(42, 0xA1, 3)
    others = [Sample(A, 3).seed(43), Sample(A, 4).seed(42), Sample(B, 3).seed(42)]
    assert len({sample.seed(42), *others}) == 4
    (again,) = [s for s in plan_samples([B, A], 9) if s.key == sample.key]
    assert again.seed(42) == sample.seed(42)


def test_the_digest_sees_keys_and_prompts():
    samples = plan_samples([A, B], 2)
    variants = [
        samples[:3],
        samples[::-1],
        plan_samples([A, B], 2, first_index=1),
        plan_samples([A, Prompted(B.problem, [9])], 2),
    ]
    assert len({samples_digest(v) for v in [samples, *variants]}) == 5


@pytest.fixture(scope="module")
def layout(tiny_tokenizer):
    return TeacherLayout(tiny_tokenizer, TAGS, "Explain.")


@pytest.mark.parametrize(
    ("text", "finish_reason", "explanation", "why"),
    [
        (f"1+1=2\n\n{CLOSE}", "stop", "1+1=2\n\n", None),
        (f"1+1=2\n\n{CLOSE} and on", "length", "1+1=2\n\n", None),
        ("1+1=2", "length", "1+1=2", "cut by max_completion_length"),
        ("1+1=2", "stop", "1+1=2", "no closing explanation tag"),
        (f"\n\n{CLOSE}", "stop", "\n\n", "empty"),
        (f"{TAGS.thought.open}1{CLOSE}", "stop", f"{TAGS.thought.open}1", f"contains {TAGS.thought.open}"),
    ],
)
def test_malformed_explanations_are_kept_and_marked(layout, text, finish_reason, explanation, why):
    ids = encode(layout.tokenizer, [Piece(text, trusted=True)]).ids
    end = [layout.chat.end_of_turn_id] if finish_reason == "stop" else []
    made = read_sample(Sample(A, 2), Completion((*ids, *end), (), finish_reason), layout)
    assert (made["problem_id"], made["sample_index"], made["finish_reason"]) == ("a1", 2, finish_reason)
    assert (made["explanation"], made["why"]) == (explanation, why)
    assert made["num_tokens"] == len(encode(layout.tokenizer, [Piece(explanation, trusted=True)]).ids)


def test_summary_by_hand():
    made = [
        {"problem_id": "a1", "num_tokens": 10, "finish_reason": "stop", "why": None},
        {
            "problem_id": "a1",
            "num_tokens": 20,
            "finish_reason": "length",
            "why": "cut by max_completion_length",
        },
        {"problem_id": "b2", "num_tokens": 1, "finish_reason": "stop", "why": "empty"},
        {"problem_id": "b2", "num_tokens": 2, "finish_reason": "length", "why": None},
    ]
    assert summarize(made) == {
        "problems": 2,
        "explanations": 4,
        "well_formed": 2,
        "malformed": {"cut by max_completion_length": 1, "empty": 1},
        "truncated": 2,
        "tokens": 33,
        "mean_tokens": 8.2,
    }
