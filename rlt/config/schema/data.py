"""Where problems come from, and what becomes of rows that do not fit."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.evaluate import BENCHMARKS
from rlt.config.schema.setting import setting

NO_DATASET = "none"
"""dataset_id_or_path of a stage that reads nothing there."""
REQUIRED_FIELDS = {
    "columns": ("question", "solution"),
    "sharegpt": ("conversations",),
    "messages": ("messages",),
}
"""Per `data.format`, the fields that a row must fill."""
OPTIONAL_FIELDS = {
    "columns": ("reasoning_trace", "answer", "system"),
    "sharegpt": ("answer", "system"),
    "messages": ("answer", "system"),
}
TRACE_FIELDS = ("explanation", "explanations", "sample_index")
"""Further fields of rows with explanations, whatever their format (stages that read traces)."""
DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
"""May follow a data suffix: such a file is unpacked while it is read."""


@dataclass
class SubsetSettings:
    """A reproducible random part of the dataset."""

    n: int | None = setting(None, "number of rows; null takes all", gt=0)
    seed: int = setting(0, "seed of the choice")


@dataclass
class DataSettings:
    """Where problems come from and what happens to rows that do not fit."""

    format: str = setting(
        "auto",
        "shape of a row: question/solution columns, ShareGPT conversations, or messages",
        choices=("auto", "columns", "sharegpt", "messages"),
    )
    split: str = setting("train", "split of a Hub dataset or of a dataset folder")
    config_name: str | None = setting(None, "configuration of a Hub dataset")
    revision: str | None = setting(None, "branch, tag or commit on the Hub")
    columns: dict[str, str] = setting(
        {}, "our field -> the dataset's column, e.g. {question: problem, solution: answer}"
    )
    tag_match: str = setting(
        "once",
        "tags in an assistant's turn: each once, in order and with nothing around them, else the row is bad; "
        "or the first match of each pair counts, and the rest is ignored, as the original reads its data",
        choices=("once", "first"),
    )
    on_bad_row: str = setting("error", "stop at a bad row, or skip and list it", choices=("error", "skip"))
    on_long_row: str = setting(
        "drop",
        "rows over the length limits: drop them, keep their first data.max_length tokens (SFT only), or stop",
        choices=("drop", "truncate", "error"),
    )
    missing_trace: str = setting(
        "error",
        "SFT rows without a reasoning trace: stop, or use the solution in its place",
        choices=("error", "solution"),
    )
    max_length: int = setting(16384, "SFT: tokens of a whole row", gt=0)
    shortest: int | None = setting(
        None,
        "use no more than so many rows, the shortest, after all have been checked (SFT: their last 1,024 "
        "tokens; RL: of held-out ones alone). For rehearsals; null: all",
        gt=0,
    )
    decontaminate: list[str] = setting(
        [],
        f"benchmarks ({', '.join(BENCHMARKS)}, read as `evaluate` reads them) or files with questions: rows "
        "whose question or solution shares 13 words in sequence with one of theirs are found, "
        "e.g. [math500, aime24, FILE]",
    )
    on_contaminated: str = setting(
        "drop",
        "rows that data.decontaminate finds: remove them, or keep them; overlap.jsonl lists them",
        choices=("drop", "report"),
    )
    deduplicate: str = setting(
        "off",
        "rows that repeat an earlier one (its question, with its trace where traces are trained on): leave "
        "them out, or keep them and list them in overlap.jsonl",
        choices=("off", "drop", "report"),
    )
    subset: SubsetSettings = setting(SubsetSettings, "train on a random part only")
