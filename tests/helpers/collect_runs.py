"""Collecting in a process that is killed, and reading what it left on disk."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

from helpers.moments import Moment, run_until_killed
from helpers.stage_runs import later_win

NUM_PROBLEMS = 30


def problem_file(path: Path) -> Path:
    """Return a file of short problems with an extra column."""
    rows = [
        {
            "question": f"{a}+{b}*2",
            "solution": str((a + b) * 2 % 10),
            "answer": str((a + b) * 2 % 10),
            "level": a,
        }
        for b in range(6)
        for a in range(5)
    ]
    assert len(rows) == NUM_PROBLEMS
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def collect_words(teacher: Path, problems: Path, output: Path, *changes: str) -> list[str]:
    """Return what one would type for a small collection; later words win."""
    on_servers = "generation.backend=transformers" not in changes
    return later_win(
        "run_cfg=collect_traces",
        f"model_name_or_path={teacher}",
        f"dataset_id_or_path={problems}",
        f"output_dir={output}",
        "model.dtype=float32",
        *(["generation.dtype=float32"] if on_servers else []),
        "max_prompt_length=200",
        "max_completion_length=32",
        "collect.num_samples=2",
        *changes,
    )


def lines_of(output: Path) -> list[dict[str, Any]]:
    """Return the collected rows."""
    return [
        json.loads(line) for line in (output / "traces.jsonl").read_text(encoding="utf-8").split("\n") if line
    ]


def journal_rows(output: Path) -> list[dict[str, Any]]:
    """Return the whole lines of the journal."""
    path = output / "samples" / "journal.jsonl"
    *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
    return [json.loads(line) for line in lines]


def kill_moments(total: int, num_kills: int, seed: int) -> list[int]:
    """Return so many numbers of journal lines to kill at, at random; of several, the first is 0."""
    moments = sorted(random.Random(seed).sample(range(1, 2 * total // 3), num_kills))
    return [0, *moments[1:]] if num_kills > 1 else moments


def killed_at(words: list[str], output: Path, num_lines: int, *, torn: bool = False) -> None:
    """Run until the journal holds so many lines, and more than before. `torn`: until it is amid the last."""
    journal = output / "samples" / "journal.jsonl"
    before = journal.read_bytes().count(b"\n") if journal.exists() else 0
    moment = Moment(str(journal), lines=max(num_lines, before + 1), torn=torn, signal=signal.SIGKILL)
    run_until_killed(words, moment)
    *whole, rest = journal.read_bytes().split(b"\n")
    assert len(whole) >= (before if torn else moment.lines)
    assert bool(rest) == torn
