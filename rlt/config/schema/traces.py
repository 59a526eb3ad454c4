"""Collecting, scoring, choosing and showing traces, and training a student on them."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.setting import setting

SELECTION_RULES = ("none", "first", "best", "shortest", "random", "rank", "nearest", "farthest")


@dataclass
class CollectSettings:
    """Collecting explanations of a dataset. A seed, a problem_id and a sample_index decide a sample."""

    num_samples: int = setting(1, "explanations of each row", gt=0)
    first_sample_index: int = setting(
        0, "sample_index of a row's first one: the number that there are already, to collect others", ge=0
    )
    only: str | None = setting(
        None,
        "a .jsonl file with `problem_id`, and `sample_index` to choose one sample: collect for "
        "these problems alone; null: for all",
    )
    requests_per_server: int = setting(
        512, "vllm: requests in flight per server; those that it cannot run yet wait in its queue", gt=0
    )
    samples_per_chunk: int = setting(
        16, "transformers: explanations of one batch, which is saved or lost as a whole", gt=0
    )
    push_to_hub: str | None = setting(
        None, "upload traces and card to this dataset on the Hub, OWNER/NAME, private if new; null: don't"
    )


@dataclass
class ScoreSettings:
    """Scoring and ranking of traces that exist already."""

    rows_per_shard: int = setting(
        256, "traces scored between two saves; a killed run loses no more than that", gt=0
    )
    fallback_index: int | None = setting(
        None,
        "place among a problem's explanations (negative: from the end) of the one that is chosen only where "
        "no other has a score; null: none",
    )
    rank_buckets: int = setting(4, "rows of the table of mean scores by rank, at most", gt=0)


@dataclass
class ShowSettings:
    """Which traces are shown by token."""

    rows: list[int] = setting([], "rows of the source, counted from 1; each with all its explanations")
    best: int = setting(3, "how many of the traces with the highest score", ge=0)
    worst: int = setting(3, "how many of the traces with the lowest score", ge=0)


@dataclass
class TracesSettings:
    """Further sources of traces (select_traces, plan_traces)."""

    more: list[str] = setting(
        [],
        "files whose explanations join those of dataset_id_or_path, e.g. what was collected again; numbered "
        "on where a sample_index is taken",
    )


@dataclass
class SelectSettings:
    """Which explanations students are trained on."""

    rule: str = setting(
        "none",
        "none: all; of each problem: the first that is well-formed, the best by score, the shortest, a "
        "random one, all whose rank by score lies in rank_bucket (rank), or the one that the student is "
        "nearest to or farthest from, as score_traces measures it",
        choices=SELECTION_RULES,
    )
    max_length: int | None = setting(
        None,
        "choose only among those whose whole sequence, in student_model's tokens, is no longer; null: all",
        gt=0,
    )
    rank_bucket: list[int] = setting([], "[first, last] rank by score within the problem, for rule rank")


@dataclass
class PlanSettings:
    """How many traces fit a context budget."""

    max_length: int = setting(16384, "tokens of the student's whole training sequence that fit", gt=0)
    cutoffs: list[int] = setting([4096, 8192, 16384, 32768], "further budgets to compare")
    recollect_samples: int = setting(
        1, "further explanations that recollect.jsonl asks for, of each problem of which none fits", gt=0
    )


@dataclass
class DistillSettings:
    """Fine-tuning a student on traces."""

    turn_end: str = setting(
        "end_of_turn",
        "the token that the student learns to stop with: that of its chat template (Qwen: <|im_end|>), or "
        "the end of text (<|endoftext|>), as the published students do",
        choices=("end_of_turn", "end_of_text"),
    )
    malformed: str = setting(
        "keep",
        "traces that are marked as malformed, are empty, or hold tags of the student's layout: train on "
        "them as they are, or remove them",
        choices=("keep", "drop"),
    )
