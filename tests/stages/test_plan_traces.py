"""plan_traces: token counts against an independent count, and the way from a plan to another collection."""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

import pytest
from helpers.stage_runs import ROOT, run_command, run_here, succeed

from rlt.records import problem_id
from rlt.rundir.run_record import read_run

STAGE = "plan_traces"
BUDGET, CUTOFFS = 3000, [1500, 6000]
TURN = re.compile(
    r"<\|begin_of_thought\|>(.*)<\|end_of_thought\|>\s*<\|begin_of_solution\|>(.*)<\|end_of_solution\|>",
    re.DOTALL,
)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def sky_plan(shared, tmp_path_factory) -> Path:
    """Return the run directory of a plan for the real traces, by the real tokenizer alone."""
    output = tmp_path_factory.mktemp("plan") / "run"
    words = [
        "run_cfg=plan_traces",
        f"dataset_id_or_path={shared / 'data' / 'traces_sky_t1_amc23.jsonl'}",
        f"student_model={shared / 'tokenizers' / 'qwen2.5'}",
        "layout.student_prompt=from_dataset",
        f"plan.max_length={BUDGET}",
        f"plan.cutoffs={CUTOFFS}".replace(" ", ""),
        f"output_dir={output}",
    ]
    succeed(run_command([sys.executable, str(ROOT / "train.py"), *words], timeout=1000))
    return output


@pytest.fixture(scope="module")
def sky_texts(shared) -> list[tuple[str, str]]:
    """Return problem id and whole chat of every row, written out by hand."""
    texts = []
    for row in read(shared / "data" / "traces_sky_t1_amc23.jsonl"):
        question, reply = (turn["value"] for turn in row["conversations"])
        thought, solution = (part.strip() for part in TURN.search(reply).groups())
        texts.append(
            (
                problem_id(question, solution),
                f"<|im_start|>system\n{row['system']}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
                f"<|im_start|>assistant\n<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
                f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|><|im_end|>",
            )
        )
    return texts


def test_lengths_are_those_of_the_text_under_the_real_tokenizer(sky_plan, sky_texts, qwen_tokenizer):
    ids = qwen_tokenizer([text for _, text in sky_texts], add_special_tokens=False)["input_ids"]
    lengths = [len(row) for row in ids]
    plan = json.loads((sky_plan / "plan.json").read_text())
    assert plan["rows"] == len(lengths) == 283
    assert plan["mean"] == pytest.approx(statistics.fmean(lengths))
    assert (plan["quantiles"]["0%"], plan["quantiles"]["100%"]) == (min(lengths), max(lengths))
    assert plan["quantiles"]["50%"] == sorted(lengths)[141]
    assert [(b["cutoff"], b["rows_over"]) for b in plan["budgets"]] == [
        (cutoff, sum(length > cutoff for length in lengths)) for cutoff in (1500, BUDGET, 6000)
    ]
    for low, high, rows in plan["histogram"]:
        assert rows == sum(low <= length <= high for length in lengths)
    shortest: dict[str, int] = {}
    for (problem, _), length in zip(sky_texts, lengths, strict=True):
        shortest[problem] = min(length, shortest.get(problem, length))
    too_long = {problem for problem, length in shortest.items() if length > BUDGET}
    assert too_long
    assert {line["problem_id"] for line in read(sky_plan / "recollect.jsonl")} == too_long


def test_page_and_markdown_say_the_same(sky_plan):
    plan = json.loads((sky_plan / "plan.json").read_text())
    markdown, page = (sky_plan / "plan.md").read_text(), (sky_plan / "plan.html").read_text()
    over = next(b["rows_over"] for b in plan["budgets"] if b["cutoff"] == BUDGET)
    sentence = f"{over} of 283 rows would be truncated at {BUDGET} tokens."
    assert sentence in markdown
    assert sentence in page
    assert f"{plan['to_collect']} problems have no well-formed explanation that fits" in markdown
    for low, high, rows in plan["histogram"]:
        assert re.search(rf"\| +{low}-{high} +\| +{rows} \|", markdown)
        assert f'<td>{low}-{high}</td><td class="n">{rows}</td>' in page
    assert "<script" not in page
    assert read_run(sky_plan)["results"] == plan


def test_from_a_plan_to_a_collection_of_what_is_missing_and_back(tiny_student, tmp_path):
    def write(name: str, rows: list[dict]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    easy, hard = {"question": "1+1", "solution": "2"}, {"question": "2+2", "solution": "4"}
    full = {"question": "1" * 150, "solution": "1"}
    source = write(
        "traces.jsonl",
        [
            {**easy, "explanation": "1+1=2\n" * 50, "sample_index": 0},
            {**easy, "explanation": "1+1=2", "sample_index": 1},
            {**hard, "explanation": "2+2=4\n" * 50, "sample_index": 0},
            {**hard, "explanation": "2+", "finish_reason": "length", "sample_index": 1},
            {**full, "explanation": "1", "sample_index": 0},
        ],
    )
    words = ["run_cfg=plan_traces", f"dataset_id_or_path={source}", f"student_model={tiny_student}"]
    words += ["plan.max_length=150", "plan.cutoffs=[]"]
    first = run_here([*words, f"output_dir={tmp_path / 'first'}"], STAGE)
    (missing,) = read(first / "recollect.jsonl")
    assert (missing["problem_id"], missing["question"]) == (problem_id("2+2", "4"), "2+2")
    assert missing["sample_index"] == 2
    assert missing["reason"].endswith("with the shortest of 1 well-formed ones")
    (no_room,) = read(first / "no_room.jsonl")
    assert no_room["question"] == full["question"]
    (budget,) = json.loads((first / "plan.json").read_text())["budgets"]
    assert (budget["rows_over"], budget["problems_with_one"], budget["problems_to_choose"]) == (3, 1, 1)
    advice = (first / "plan.md").read_text()
    assert f"collect.only={first}/recollect.jsonl" in advice
    assert "select.rule=shortest select.max_length=150" in advice

    again = write("again.jsonl", [{**hard, "explanation": "2+2=4", "sample_index": missing["sample_index"]}])
    second = run_here([*words, f"traces.more=[{again}]", f"output_dir={tmp_path / 'second'}"], STAGE)
    assert read(second / "recollect.jsonl") == []
    (budget,) = json.loads((second / "plan.json").read_text())["budgets"]
    assert (budget["rows_over"], budget["problems_with_one"], budget["problems_without"]) == (3, 2, 1)

    choose = ["run_cfg=select_traces", *words[1:3], f"traces.more=[{again}]", "select.rule=shortest"]
    choose += ["select.max_length=150", f"output_dir={tmp_path / 'chosen'}"]
    chosen = run_here(choose, "select_traces")
    kept = [row for row in read(chosen / "traces.jsonl") if row["selected"]]
    assert [(row["question"], row["sample_index"]) for row in kept] == [("1+1", 1), ("2+2", 2)]
    third = ["run_cfg=plan_traces", f"dataset_id_or_path={chosen}/traces.jsonl", *words[2:]]
    (budget,) = json.loads(
        (run_here([*third, f"output_dir={tmp_path / 'third'}"], STAGE) / "plan.json").read_text()
    )["budgets"]
    assert (budget["rows_over"], budget["problems_to_choose"]) == (0, 0)
