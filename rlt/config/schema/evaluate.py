"""Benchmarks: which there are, and how they are read, asked and graded."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.setting import setting

BENCHMARKS = (
    *("aime24", "aime25", "aime26", "hmmt_feb25", "hmmt_nov25", "hmmt_feb26", "brumo25", "amc23"),
    *("math500", "minerva", "olympiadbench", "gsm8k", "gpqa_diamond", "supergpqa", "mmlu_pro", "countdown"),
)
"""The names of rlt/tasks/benchmarks/catalog.py."""
LOCAL_TASK = "problems"
"""The task of `evaluate` that reads dataset_id_or_path."""
SLOT = "{question}"
"""The place of the question in `evaluate.prompts`."""
BOXED = r"Put your final answer inside \boxed{}. " + SLOT
"""Asks as SkyThought does, in our own words: the instruction first, then the question."""
MOST_OPTIONS = {"choice": 4, "choice10": 10}
"""Kinds of answers that are the letter of an option -> how many options there may be."""
ANSWER_KINDS = ("math", *MOST_OPTIONS, "countdown")


@dataclass
class BenchmarkSettings:
    """A benchmark: where its rows come from, which columns say what, and what kind of answer is right."""

    name: str = setting("", "what evaluate.tasks calls it: small letters, digits and _")
    hub: str | None = setting(None, "dataset on the Hub; null: evaluate.paths={NAME: FILE} gives the rows")
    revision: str | None = setting(
        None, "its commit, where evaluate.revisions does not name another; null: newest"
    )
    split: str = setting("test", "split of the dataset")
    config_name: str | None = setting(None, "configuration of the dataset")
    question: str = setting("problem", "column of the question")
    answer: str = setting(
        "answer",
        r"column of the right answer: a text, a number, a list of texts, or a solution that ends in \boxed{} "
        "or ####; with options a letter, a place from 0 on, or the column of the right option",
    )
    grader: str = setting("math", "kind of its answers", choices=ANSWER_KINDS)
    options: list[str] = setting([], "with choice or choice10: columns of one option each, or one of a list")
    shuffle: bool = setting(False, "shuffle the options, as evaluate.option_order says")
    most_digits: int = setting(0, "answers are whole numbers of at most so many digits; 0: no rule")
    only: dict[str, str] = setting({}, "column -> text that it holds in the rows of this benchmark")
    groups: list[str] = setting([], "columns by which the accuracy is reported as well, such as level")
    prompt: str = setting(BOXED, "what the user's turn says, with {question} where the question goes")
    num_problems: int | None = setting(None, "how many it has, to notice a file that lacks some")
    num_samples: int | None = setting(
        None, "answers to each problem under evaluate.num_samples=null; null: by the number of problems"
    )
    licence: str = setting("", "of the dataset, for the docs")
    private: bool = setting(False, "its questions must not be passed on: nothing that is written holds one")


@dataclass
class EvaluateSettings:
    """Benchmarks, whatever stage asks them: which questions, asked how, graded how. eval_cfg=skythought and
    =robust set it for the stage evaluate; what is measured while training is in `evaluation`."""

    tasks: list[str] = setting(
        ["aime24", "math500", "gpqa_diamond"],
        f"any of {', '.join(BENCHMARKS)}, and {LOCAL_TASK}: those of dataset_id_or_path",
    )
    benchmarks: list[BenchmarkSettings] = setting(
        [], "benchmarks of your own, one record each (docs/evaluation.md); evaluate.tasks names what is asked"
    )
    paths: dict[str, str] = setting(
        {}, "task -> a file with the dataset's own columns, to read instead of the Hub, e.g. {aime24: FILE}"
    )
    revisions: dict[str, str] = setting({}, "task -> branch, tag or commit of its dataset on the Hub")
    prompts: dict[str, str] = setting(
        {}, "task -> what the user's turn says, with {question} where the question goes; unchanged if absent"
    )
    original: str | None = setting(
        None,
        "SkyThought's package as scripts/setup.sh --skythought unpacks it (.venv/skythought), or a checkout: "
        "asks in the words of its task files, and adds its grader's verdict; null: our words, no second "
        "verdict",
    )
    num_samples: int | None = setting(
        None,
        "answers to each problem; null: what the number of problems asks for (AIME 32, GPQA 8, MATH 2, else "
        "1,000 over the number of problems, at most 32)",
        gt=0,
    )
    option_order: str = setting(
        "row",
        "options of a question are shuffled by a random stream that runs through all rows, or by each row's "
        "own seed",
        choices=("stream", "row"),
    )
    unfinished: str = setting(
        "wrong",
        "a thought that never ends has no answer and is wrong, or the text is graded as a whole",
        choices=("wrong", "whole"),
    )
    extraction: str = setting(
        "lenient",
        "rules that find the answer in a text, in order: those of SkyThought (last box, answer phrase, last "
        "number; last letter), or more careful ones (a formula alone, the letter in a box, ...)",
        choices=("skythought", "lenient"),
    )
    grader: str = setting(
        "math",
        f"kind of answers in {LOCAL_TASK}: mathematics, the letter of one of four or of ten options, or "
        "Countdown expressions",
        choices=ANSWER_KINDS,
    )
    grading_seconds: float = setting(
        5.0, "CPU seconds for grading an answer; one that needs more is wrong", gt=0
    )
    requests_per_server: int = setting(512, "vllm: requests in flight per server", gt=0)
    samples_per_chunk: int = setting(
        16, "transformers: answers of one batch, which is saved or lost as a whole", gt=0
    )
    reference: bool = setting(
        False, "show published accuracies beside the measured ones in summary.md and report.html"
    )
    report_samples: int = setting(
        100, "answers of all tasks together in report.html, each cut to 8,000 characters", ge=0, le=2000
    )
