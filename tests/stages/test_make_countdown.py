"""make_countdown as one types it: the same bytes for a seed, rows that load, answers that are graded."""

import json
import sys
from pathlib import Path

import pytest
from helpers.stage_runs import ROOT, run_command, run_here

from rlt.config.schema import DataSettings
from rlt.data.load import load_problems
from rlt.formats.tags import TAG_STYLES
from rlt.tasks.graders import GRADERS

WORDS = ["run_cfg=make_countdown", "countdown.num_train=50", "countdown.num_test=10", "countdown.seed=3"]


@pytest.mark.slow
def test_files_and_their_reading(tmp_path: Path):
    done = run_command(
        [sys.executable, str(ROOT / "train.py"), *WORDS, f"output_dir={tmp_path / 'a'}"], timeout=1000
    )
    assert done.returncode == 0, done.stdout
    run_here([*WORDS, f"output_dir={tmp_path / 'b'}"], "make_countdown")
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert (record["status"], record["results"]) == ("finished", {"train": 50, "test": 10})
    assert (tmp_path / "a" / "config.yaml").is_file()

    tags, grade = TAG_STYLES["bespoke"], GRADERS["countdown"](5.0)
    train, test = (
        load_problems(DataSettings(), str(tmp_path / "a" / f"{name}.jsonl"), tags, need_trace=False).values
        for name in ("train", "test")
    )
    assert (len(train), len(test)) == (50, 10)
    keys = [{(*sorted(p.extra["numbers"]), p.extra["target"]) for p in part} for part in (train, test)]
    assert not keys[0] & keys[1]
    for problem in (*train, *test):
        assert problem.answer is not None
        assert grade(problem.solution, problem.answer)
        assert not grade(f"{problem.solution} + 1", problem.answer)
        assert all(str(number) in problem.question for number in problem.extra["numbers"])
