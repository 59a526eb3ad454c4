"""Make Countdown problems to train on and to hold out, as problem files; nothing is trained."""

from __future__ import annotations

from pathlib import Path

from rlt.config.schema import Config, CountdownSettings
from rlt.io import write_jsonl
from rlt.stages.common import is_main_process, run_directory
from rlt.tasks.countdown_problems import QUESTION, Difficulty, make_problems


def run(config: Config) -> None:
    """Write train.jsonl and test.jsonl to the run directory."""
    with run_directory(config, inputs={}, card=None) as record:
        if not is_main_process():
            return
        # 1. All problems at once, so that no two are the same.
        num_test = config.countdown.num_test
        problems = make_problems(
            difficulty(config.countdown), num_test + config.countdown.num_train, config.countdown.seed
        )

        # 2. The first are held out: the same ones however many there are to train on.
        output, question = Path(config.output_dir), config.countdown.question or QUESTION
        write_jsonl(output / "test.jsonl", [problem.row(question) for problem in problems[:num_test]])
        write_jsonl(output / "train.jsonl", [problem.row(question) for problem in problems[num_test:]])
        record.update(results={"train": len(problems) - num_test, "test": num_test})


def difficulty(countdown: CountdownSettings) -> Difficulty:
    """Return the difficulty that the settings ask for."""
    return Difficulty(
        num_numbers=(countdown.min_numbers, countdown.max_numbers),
        max_number=countdown.max_number,
        targets=(countdown.min_target, countdown.max_target),
        operations=tuple(countdown.operations),
    )
