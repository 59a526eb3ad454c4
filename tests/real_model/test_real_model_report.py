"""The report of a folder: its numbers are those of the runs, and texts of a model cannot become mark-up."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.scored_rows import row, write_rows

from rlt.real_model.calls import Call
from rlt.real_model.report import write_report
from rlt.real_model.sizes import short_sizes

EVIL = "<script>alert(1)</script>\n```\n| 72"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder as the runs leave it, with two problems in each part."""
    four = [row(p, place, -3.0 + place / 10, 6.0 + place) for p in "ab" for place in range(4)]
    for name in ("training/kinds", "measures/kinds_teacher"):
        write_rows(tmp_path / f"{name}/scores.jsonl", four)
    steps = [{"step": n, "time": n, "reward": -8.0 + n, "r_ss": -2.0, "r_kl": 6.0 - n} for n in range(1, 9)]
    write_rows(
        tmp_path / "training/teacher_rl/metrics.jsonl", [*steps, {"step": 8, "time": 9, "eval_loss": 1}]
    )
    for when, r_kl in (("before", 5.0), ("after", 4.0)):
        rows = [row(p, sample, -2.0, r_kl, EVIL) for p in "ab" for sample in range(2)]
        write_rows(tmp_path / f"measures/scores_{when}/scores.jsonl", rows)
    write_rows(tmp_path / "measures/likelihood_base/scores.jsonl", [row(p, 0, -3.0, 6.0) for p in "ab"])
    for rank in (1, 2, 3, 4):
        write_rows(tmp_path / f"measures/rank_{rank}/traces.jsonl", [{"score": -rank, "selected": True}])
        write_rows(
            tmp_path / f"measures/likelihood_{rank}/scores.jsonl", [row(p, 0, -rank, 6.0) for p in "ab"]
        )
    log = tmp_path / "measures/tokens/logs/train.log"
    log.parent.mkdir(parents=True)
    log.write_text("loading\n── row 1 ──\nIt_is_72 -0.31\n── row 1 again ──\nmore\n")
    step = tmp_path / "training/teacher_sft"
    for run in (
        step,
        *(path.parent for path in tmp_path.glob("*/*/scores.jsonl")),
        tmp_path / "measures/tokens",
    ):
        run.mkdir(exist_ok=True)
        record = {"status": "finished", "seconds": 60.0, "earlier": [{"seconds": 30.0}]}
        (run / "run.json").write_text(json.dumps({**record, "code": {"commit": "abcdef1234"}}))
    (tmp_path / "sizes.json").write_text(json.dumps(asdict(short_sizes("float32"))))
    pipeline = {"steps": [{"name": "teacher_sft", "directory": "where/it/was"}]}
    (tmp_path / "training/pipeline.json").write_text(json.dumps(pipeline))
    write_rows(
        tmp_path / "calls.jsonl", [asdict(Call("10:00", "real 3", "abcdef", 2, [], [0.5, 9.0], "13:00"))]
    )
    return tmp_path


def test_the_numbers_of_the_report(folder):
    text = " ".join(write_report(folder).read_text().split())
    assert "2 CPU cores, GPUs: none; load 0.5, 9.0 at the start" in text
    assert "| teacher_sft | finished | 1.5 | abcdef1 |" in text  # 60 s and 30 s before an interruption
    assert "| the answer alone | -2.70 | +9.00 | -11.70 | 2 | 0 | -2.700 [-2.700, -2.700] |" in text
    assert "8 steps of RL" in text
    assert "| reward | -6.000 | -1.000 |" in text  # means of -7, -6, -5 and of -2, -1, 0
    assert "| r_KL | +5.000 | +4.000 | -1.000 [-1.000, -1.000] | 2 |" in text
    assert "| 1 | -1.000 | +0.000 [+0.000, +0.000] | +2.000 [+2.000, +2.000] |" in text
    assert "+1.00 (solution)" in text
    assert "It_is_72 -0.31" in text
    assert "more" not in text.split("token by token")[1].split("## ")[0]


def test_a_models_text_stays_text(folder):
    write_report(folder)
    assert "<script>" not in (folder / "report.html").read_text()
    blocks = (folder / "report.md").read_text().split("## Five explanations")[1].split("## ")[0]
    assert blocks.count("\n```\n") == 2 * 2 * 2  # of two problems, by two teachers: opened and closed


def test_what_has_not_finished_is_left_out_and_named(folder):
    for run in ("scores_after", "likelihood_3"):
        path = folder / f"measures/{run}/run.json"
        path.write_text(path.read_text().replace("finished", "interrupted"))
    (folder / "measures/kinds_teacher/run.json").unlink()
    steps = [{"name": name, "directory": "where/it/was"} for name in ("likelihood_3", "kinds_teacher")]
    (folder / "measures/pipeline.json").write_text(json.dumps({"steps": steps}))
    text = " ".join(write_report(folder).read_text().split())
    assert "the answer alone" in text
    assert not any(title in text for title in ("## Held-out", "## Does the reward", "## The four kinds"))
    assert "| likelihood_3 | interrupted | 1.5 | abcdef1 |" in text
    assert "| kinds_teacher | not begun |" in text
