"""The benchmarks that are known, one record each; `evaluate.benchmarks` adds others in the same form.

Names, splits, columns, numbers of problems and licences are those of the datasets' cards on the Hub. A
revision is here where a whole commit hash was found; elsewhere the newest is read, and manifest.json says
which that was. LiveCodeBench is not here: its answers are programs that would have to be run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from rlt.config.schema import SLOT, BenchmarkSettings

_MATHARENA_LICENCE = "CC BY-NC-SA 4.0"
_matharena = partial(
    BenchmarkSettings, split="train", licence=_MATHARENA_LICENCE, num_problems=30, num_samples=32
)
_LETTER = r"Put only the letter of the right option inside \boxed{}. " + SLOT
_GPQA_OPTIONS = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]

_RECORDS = (
    BenchmarkSettings(
        "aime24",
        hub="AI-MO/aimo-validation-aime",
        revision="8c6be017548b0fe2eb9fdf2239fca99700b9bccf",
        split="train",
        only={"url": "2024"},
        most_digits=3,
        num_problems=30,
        num_samples=32,
        licence="Apache 2.0",
    ),
    _matharena("aime25", hub="MathArena/aime_2025", most_digits=3),
    _matharena("aime26", hub="MathArena/aime_2026", most_digits=3),
    _matharena("hmmt_feb25", hub="MathArena/hmmt_feb_2025"),
    _matharena("hmmt_nov25", hub="MathArena/hmmt_nov_2025"),
    _matharena("hmmt_feb26", hub="MathArena/hmmt_feb_2026", num_problems=33),
    _matharena("brumo25", hub="MathArena/brumo_2025"),
    BenchmarkSettings(
        "amc23",
        hub="AI-MO/aimo-validation-amc",
        split="train",
        only={"url": "2023"},
        num_problems=40,
        num_samples=32,
    ),
    BenchmarkSettings(
        "math500", hub="qq8933/MATH500", groups=["subject", "level"], num_problems=500, num_samples=2
    ),
    BenchmarkSettings(
        "minerva",
        hub="svc-huggingface/minerva-math",
        answer="solution",
        num_problems=272,
        num_samples=4,
        licence="MIT",
    ),
    BenchmarkSettings(
        "olympiadbench",
        hub="Hothan/OlympiadBench",
        revision="3b426ee1d587c71b495146dde9f3e995ee7ac59f",
        split="train",
        config_name="OE_TO_maths_en_COMP",
        question="question",
        answer="final_answer",
        groups=["subfield"],
        num_problems=674,
        num_samples=2,
        licence="Apache 2.0",
    ),
    BenchmarkSettings(
        "gsm8k",
        hub="openai/gsm8k",
        config_name="main",
        question="question",
        num_problems=1319,
        num_samples=1,
        licence="MIT",
    ),
    BenchmarkSettings(
        "gpqa_diamond",
        hub="Idavidrein/gpqa",
        revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        split="train",
        config_name="gpqa_diamond",
        question="Question",
        answer=_GPQA_OPTIONS[0],
        grader="choice",
        options=_GPQA_OPTIONS,
        shuffle=True,
        groups=["High-level domain"],
        prompt=r"Put only the letter of the right option, A, B, C or D, inside \boxed{}. " + SLOT,
        num_problems=198,
        num_samples=8,
        licence="CC BY 4.0",
        private=True,
    ),
    BenchmarkSettings(
        "supergpqa",
        hub="m-a-p/SuperGPQA",
        revision="4430d4458112c7d4497fdcf94d7cc223313d6acf",
        split="train",
        question="question",
        answer="answer_letter",
        grader="choice10",
        options=["options"],
        groups=["discipline", "difficulty"],
        prompt=_LETTER,
        num_problems=26529,
        num_samples=1,
        licence="ODC-BY",
    ),
    BenchmarkSettings(
        "mmlu_pro",
        hub="TIGER-Lab/MMLU-Pro",
        revision="3373e0b32277875b8db2aa555a333b78a08477ea",
        config_name="default",
        question="question",
        answer="answer",
        grader="choice10",
        options=["options"],
        groups=["category"],
        prompt=_LETTER,
        num_problems=12032,
        num_samples=1,
        licence="MIT",
    ),
    BenchmarkSettings("countdown", question="question", grader="countdown", prompt=SLOT),
)

BENCHMARKS: Mapping[str, BenchmarkSettings] = {record.name: record for record in _RECORDS}
"""The known ones by name."""


def known(own: Iterable[BenchmarkSettings]) -> dict[str, BenchmarkSettings]:
    """Return the records by name, a user's own after those of this file."""
    return {**BENCHMARKS, **{record.name: record for record in own}}


def table() -> list[list[str]]:
    """Return the records as the rows of a table, the head first; `-` where nothing is known."""
    head = ["name", "dataset on the Hub", "split", "question, answer", "kind", "problems", "k", "licence"]
    rows = [
        [
            f"`{record.name}`",
            _source(record),
            record.split,
            f"{record.question}, {record.answer}",
            record.grader,
            f"{record.num_problems:,}" if record.num_problems else "-",
            str(record.num_samples or "-"),
            record.licence or "-",
        ]
        for record in BENCHMARKS.values()
    ]
    return [head, *rows]


def _source(record: BenchmarkSettings) -> str:
    if record.hub is None:
        return "made by `run_cfg=make_countdown`"
    config = f" ({record.config_name})" if record.config_name else ""
    return f"{record.hub}{config}" + (f" at {record.revision[:7]}" if record.revision else "")
