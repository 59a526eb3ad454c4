#!/usr/bin/env python3
"""Seconds for comparing a dataset with benchmarks (data.decontaminate), as one JSON line.

    .venv/bin/python scripts/bench_decontaminate.py [--train FILE] [--sets FILE …]

Without files both are made: questions and solutions of common words, of the lengths of competition problems,
with some of the questions planted in the rows. The planted rows that were found are counted.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from rlt.config.schema import DataSettings
from rlt.data.decontaminate import QuestionIndex, questions_of
from rlt.data.load import load_problems
from rlt.formats.tags import TAG_STYLES
from rlt.records import Problem

SIZES = {"aime24": 30, "math500": 500, "gpqa_diamond": 198, "gsm8k": 1319, "countdown": 1000, "own": 2000}
NUM_PLANTED = 100
VOCABULARY = [
    f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "en", "il", "or", "un", "est")
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=17_000)
    parser.add_argument("--question-words", type=int, default=80)
    parser.add_argument("--solution-words", type=int, default=250)
    parser.add_argument("--train", type=Path, help="a data file, instead of rows that are made")
    parser.add_argument("--sets", type=Path, nargs="*", default=[], help="files with questions")
    options = parser.parse_args()
    sets, rows, planted = made(options)
    start = time.perf_counter()
    if options.sets:
        sets = {str(path): questions_of(str(path)) for path in options.sets}
    if options.train:
        data = DataSettings(columns=gsm8k_columns(options.train))
        rows = load_problems(data, str(options.train), TAG_STYLES["bespoke"], need_trace=False).values
    read = time.perf_counter()
    index = QuestionIndex(sets)
    indexed = time.perf_counter()
    hits = {
        place: found for place, row in enumerate(rows) if (found := index.hits(row.question, row.solution))
    }
    end = time.perf_counter()
    result = {
        "rows": len(rows),
        "questions": {name: len(questions) for name, questions in sets.items()},
        "rows_found": dict(Counter(hit.benchmark for found in hits.values() for hit in found)),
        "planted": len(planted),
        "planted_found": len(planted & hits.keys()),
        "seconds": {
            "read": round(read - start, 2),
            "index": round(indexed - read, 2),
            "search": round(end - indexed, 2),
            "cpu": round(time.process_time(), 2),
        },
    }
    if options.train:
        result["first"] = [f"row {place + 1}: {found[0]}" for place, found in list(hits.items())[:5]]
    sys.stdout.write(json.dumps(result) + "\n")


def made(options: argparse.Namespace) -> tuple[dict[str, list[str]], list[Problem], set[int]]:
    """Return questions by set, rows, and the places of the rows in which a question was planted."""
    rng = random.Random(0)

    def text(mean: int) -> str:
        return " ".join(rng.choices(VOCABULARY, k=rng.randint(mean // 2, 3 * mean // 2)))

    sets = {name: [text(options.question_words) for _ in range(size)] for name, size in SIZES.items()}
    rows = [
        Problem(str(i), text(options.question_words), text(options.solution_words))
        for i in range(options.rows)
    ]
    planted = set() if options.train or options.sets else set(rng.sample(range(len(rows)), NUM_PLANTED))
    questions = [question for of_set in sets.values() for question in of_set]
    for place in planted:
        whole = rng.choice(questions).split()
        start = rng.randrange(len(whole) - 12)
        part = " ".join(whole[start : start + 13]).capitalize()
        rows[place] = Problem(str(place), f"{text(20)} {part}, {text(20)}", text(options.solution_words))
    return sets, rows, planted


def gsm8k_columns(path: Path) -> dict[str, str]:
    """Return the column map of files that call the solution `answer`, as GSM8K does."""
    with path.open(encoding="utf-8") as lines:
        return {} if "solution" in json.loads(next(lines)) else {"solution": "answer"}


if __name__ == "__main__":
    main()
