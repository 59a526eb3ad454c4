"""show_traces: which traces are chosen, and that the page says what score_traces said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.stage_runs import run_here

from rlt.config.schema import ShowSettings
from rlt.errors import DataError
from rlt.records import Problem, Trace
from rlt.stages.show_traces import choose


def trace(name: str, score: float | None, index: int = 0) -> Trace:
    extra = {} if score is None else {"score": score}
    return Trace(Problem(name, name, "s", extra=extra), index, "t")


TRACES = [trace("a", -3.0), trace("b", None), trace("c", -1.0), trace("d", -2.0), trace("d", -1.0, 1)]
NUMBERS = [1, 2, 3, 5, 5]


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        (ShowSettings(best=1, worst=1), ["1 of 4 · row 3", "4 of 4 · row 1"]),
        (ShowSettings(best=2, worst=0), ["1 of 4 · row 3", "2 of 4 · row 5"]),
        (ShowSettings(best=3, worst=3), [f"{i} of 4 · row {row}" for i, row in enumerate((3, 5, 5, 1), 1)]),
        (ShowSettings(rows=[5, 2]), ["row 2, explanation 0", "row 5, explanation 0", "row 5, explanation 1"]),
    ],
)
def test_chosen(show, expected):
    assert [item.title for item in choose(TRACES, NUMBERS, show, "x.jsonl")] == expected


def test_what_cannot_be_chosen():
    with pytest.raises(DataError, match=r"x.jsonl has no usable row 4, which show.rows asks for"):
        choose(TRACES, NUMBERS, ShowSettings(rows=[4, 5]), "x.jsonl")
    with pytest.raises(DataError, match=r"no column `score` .* score it first \(run_cfg=score_traces\)"):
        choose([TRACES[1]], [1], ShowSettings(), "x.jsonl")


def test_the_page_shows_the_scores_of_score_traces(tiny_student, tiny_teacher, tmp_path: Path, capsys):
    rows = [{"question": "1+2*2", "solution": "6", "completions": ["1+2=3\n3*2=6", "1+2=4", None]}]
    (tmp_path / "traces.jsonl").write_text(json.dumps(rows[0]) + "\n")
    words = [
        f"student_model={tiny_student}",
        f"model_name_or_path={tiny_teacher}",
        "model.dtype=float32",
        "reward.dtype=float32",
    ]
    source, scored = f"dataset_id_or_path={tmp_path / 'traces.jsonl'}", tmp_path / "scored"
    run_here(["run_cfg=score_traces", source, f"output_dir={scored}", *words], "score_traces")
    lines = [json.loads(line) for line in (scored / "scores.jsonl").read_text().splitlines()]
    source, shown = f"dataset_id_or_path={scored / 'scores.jsonl'}", tmp_path / "shown"
    choice = ["data.on_bad_row=skip", "show.best=2"]
    run_here(["run_cfg=show_traces", source, f"output_dir={shown}", *choice, *words], "show_traces")
    best, worst = sorted(
        (line for line in lines if line["score"] is not None), key=lambda line: -line["score"]
    )
    titles = re.findall(r"<h2>(.*?)</h2>", (shown / "traces.html").read_text())
    rows_of = {id(line): number for number, line in enumerate(lines, 1)}
    assert titles == [
        f"{rank} of 2 · row {rows_of[id(line)]} · problem {line['problem_id']} · student · reward "
        f"{line['score']:.4g}"
        for rank, line in ((1, best), (2, worst))
    ]
    printed = capsys.readouterr().out
    assert f"{best['breakdown']['r_ss']:.5g}" in printed
    assert json.loads((shown / "run.json").read_text())["shown"] == 2
