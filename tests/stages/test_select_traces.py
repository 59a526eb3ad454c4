"""select_traces through the real entry point: rows kept, choices explained, several sources."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from helpers.stage_runs import ROOT, run_command, run_here, succeed
from pyarrow import parquet

from rlt.errors import DataError
from rlt.records import problem_id
from rlt.rundir.run_record import read_run

STAGE = "select_traces"


def row(question: str, index: int, explanation: str | None, **said) -> dict:
    """Return a row as collect_traces writes it."""
    return {
        "problem_id": problem_id(question, "2"),
        "sample_index": index,
        "question": question,
        "solution": "2",
        "explanation": explanation,
        "num_tokens": 3,
        "finish_reason": "stop",
        "teacher": "results/teacher_rl",
        "sampling": {"temperature": 0.7, "seed": index},
        "well_formed": True,
        "score": None,
        "breakdown": None,
        "selected": None,
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": str(explanation)},
        ],
        "level": "easy",
        **said,
    }


ROWS = [
    row("1+1?", 0, "1+1=", well_formed=False, finish_reason="length"),
    row("1+1?", 1, "1+1=2", score=-2.0, breakdown={"r_ss": -2.0}),
    row("1+1?", 2, "one more than 1 is 2", score=-1.0, breakdown={"r_ss": -1.0}),
    row("0+2?", 0, "0+2=2"),
    row("0+2?", 1, "2"),
]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def select(tmp_path: Path, rows: list[dict], *words: str, name: str = "run") -> list[dict]:
    source = write(tmp_path / f"{name}.jsonl", rows)
    usual = ["run_cfg=select_traces", f"dataset_id_or_path={source}", f"output_dir={tmp_path / name}"]
    return read(run_here([*usual, *words], STAGE) / "traces.jsonl")


def choice(rows: list[dict]) -> dict[tuple[str, int], bool]:
    return {(r["question"], r["sample_index"]): r["selected"] for r in rows}


@pytest.mark.slow
def test_the_best_of_each_problem_with_every_row_kept_and_every_drop_explained(tmp_path):
    source = write(tmp_path / "traces.jsonl", ROWS)
    output = tmp_path / "chosen"
    words = [
        "run_cfg=select_traces",
        f"dataset_id_or_path={source}",
        "select.rule=best",
        f"output_dir={output}",
    ]
    succeed(run_command([sys.executable, str(ROOT / "train.py"), *words], timeout=1000))
    rows = read(output / "traces.jsonl")
    assert rows == [{**r, "selected": i == 2} for i, r in enumerate(ROWS)]
    table = parquet.read_table(output / "traces.parquet").to_pylist()
    for stored, r in zip(table, rows, strict=True):
        assert stored == {**r, "sampling": json.dumps(r["sampling"])}
    first, second = ROWS[0]["problem_id"], ROWS[3]["problem_id"]
    assert [(d["problem_id"], d["sample_index"], d["why"]) for d in read(output / "dropped.jsonl")] == [
        (first, 0, "no score"),
        (first, 1, "another explanation was chosen"),
        (second, 0, "no score"),
        (second, 1, "no score"),
    ]
    report = (output / "selection.md").read_text()
    assert "| selected |            1 |        1 |" in report
    assert "| no score                       |            3 |           2 |" in report
    card = (output / "README.md").read_text()
    assert report.strip() in card
    assert "data_files: traces.parquet" in card
    assert "| `select.rule` | `best` |" in card
    run = read_run(output)
    assert (run["status"], run["results"]["problems_without_selection"]) == ("finished", 1)


def test_what_score_traces_selects_is_the_best_fallbacks_included(tiny_student, tmp_path):
    rows = [
        {"question": "1+2*2", "solution": "6", "completions": ["1+2=3\n3*2=6", "1+2=4", "6"]},
        {"question": "2+2*2", "solution": "8", "completions": [None, "1+1=2\n" * 400, "2+2=4"]},
        {"question": "3+2*2", "solution": "0", "completions": [None, "1+1=2\n" * 400, None]},
    ]
    source = write(tmp_path / "samples.jsonl", rows)
    words = ["run_cfg=score_traces", f"dataset_id_or_path={source}", f"student_model={tiny_student}"]
    words += ["reward.dtype=float32", "score.fallback_index=-1", f"output_dir={tmp_path / 'scored'}"]
    scored = read(run_here(words, "score_traces") / "scores.jsonl")
    assert [r["selected"] for r in scored].count(True) == 2
    chosen = select(tmp_path, scored, "select.rule=best")
    assert choice(chosen) == choice(scored)
    assert [{**r, "selected": None} for r in chosen] == [
        {**dict.fromkeys(("well_formed",)), **r, "selected": None} for r in scored
    ]


def test_the_order_of_the_file_changes_no_choice(tmp_path):
    shuffled = list(ROWS)
    random.Random(3).shuffle(shuffled)
    for rule in ("first", "random"):
        ours = select(tmp_path, ROWS, f"select.rule={rule}", name=f"{rule}_ordered")
        theirs = select(tmp_path, shuffled, f"select.rule={rule}", name=f"{rule}_shuffled")
        assert [r["explanation"] for r in theirs] == [r["explanation"] for r in shuffled]
        assert choice(ours) == choice(theirs)
        assert sum(choice(ours).values()) == 2


def test_what_was_collected_again_joins_and_the_shortest_that_fits_is_chosen(tiny_student, tmp_path):
    again = write(tmp_path / "again.jsonl", [row("0+2?", 0, "3-1"), row("0+2?", 1, " ")])
    rows = [row("0+2?", 0, "1+1=2\n" * 50), row("0+2?", 1, "0+2=2\n1+1=2"), ROWS[1]]
    words = [f"student_model={tiny_student}", f"traces.more=[{again}]", "select.rule=shortest"]
    words += ["select.max_length=100", "layout.student_prompt=Think."]
    chosen = select(tmp_path, rows, *words)
    assert [(r["question"], r["sample_index"], r["selected"]) for r in chosen] == [
        ("0+2?", 0, False),
        ("0+2?", 1, False),
        ("1+1?", 1, True),
        ("0+2?", 2, True),
        ("0+2?", 3, False),
    ]
    dropped = read(tmp_path / "run" / "dropped.jsonl")
    assert [d["why"] for d in dropped] == [
        "longer than 100 tokens",
        "another explanation was chosen",
        "not well-formed",
    ]
    inputs = read_run(tmp_path / "run")["inputs"]
    assert inputs["dataset 2"]["file"] == str(again)


def test_a_chat_gets_the_columns_of_the_contract_and_its_own_prompt(shared, tmp_path):
    lines = (shared / "data" / "traces_sky_t1_amc23.jsonl").read_text().splitlines()[:3]
    rows = [json.loads(line) for line in lines]
    chosen = select(tmp_path, rows, "layout.student_prompt=from_dataset")
    for ours, theirs in zip(chosen, rows, strict=True):
        system, user, assistant = ours["messages"]
        assert system == {"role": "system", "content": theirs["system"]}
        assert user["content"] == theirs["conversations"][0]["value"]
        squeezed = [
            "".join(text.split()) for text in (assistant["content"], theirs["conversations"][1]["value"])
        ]
        assert squeezed[0] == squeezed[1]
        assert (ours["selected"], ours["num_tokens"], ours["correct"]) == (True, None, theirs["correct"])
    without = [{k: v for k, v in r.items() if k != "system"} for r in rows]
    with pytest.raises(DataError, match=r"no system prompt, which layout\.student_prompt=from_dataset reads"):
        select(tmp_path, without, "layout.student_prompt=from_dataset", name="without")


def test_a_rule_that_reads_scores_needs_some(tmp_path):
    with pytest.raises(DataError, match=r"no column `score` .* score it first \(run_cfg=score_traces\)"):
        select(tmp_path, ROWS[3:], "select.rule=rank", "select.rank_bucket=[1,2]")


def test_by_distance_from_the_student_with_its_report_and_a_sentence_without(tmp_path):
    far = [{"log_ratio": 0.25, "student_nll": 2.0}, {"log_ratio": 1.5, "student_nll": 1.0}]
    rows = [row("1+1?", i, text, breakdown=far[i]) for i, text in enumerate(("1+1=2", "one more is 2"))]
    assert choice(select(tmp_path, rows, "select.rule=farthest")) == {("1+1?", 0): False, ("1+1?", 1): True}
    report = (tmp_path / "run" / "selection.md").read_text()
    assert "Distance from the student: log p of the teacher less log p of the student" in report
    assert "| selected                |            1 |   1.5 |    1.5 |     1.5 |" in report
    assert "| read                    |            2 | 0.875 |   0.25 |     1.5 |" in report
    with pytest.raises(DataError, match=r"holds no measure .* score all of them again"):
        select(tmp_path, ROWS, "select.rule=nearest", name="without")
