"""Rows that share text with a benchmark or repeat others, in the stages; and steps that are not full."""

from __future__ import annotations

import json
import logging
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.stage_runs import later_win, rl_words, run_here, sft_words, student_words

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.data.kept import KeptRows
from rlt.errors import ConfigError, DataError
from rlt.records import Problem, Trace
from rlt.reporting.dataset_card import write_traces_card
from rlt.stages import student_sft, teacher_rl, teacher_sft
from rlt.stages.clean import clean_explained, clean_problems, clean_traces
from rlt.stages.common import write_skipped

MATH = "Let each of the nine grey ravens carry two letters over the old wall before the clock strikes."
SECRET = (
    "Which of the four isotopes decays first when the sealed probe is warmed slowly under a steady argon flow"
)


@pytest.fixture
def config(tmp_path):
    """The configuration of a collection that is compared with a benchmark, a private one and a file."""
    math, secret, own = (tmp_path / f"{name}.jsonl" for name in ("math", "secret", "own"))
    math.write_text(json.dumps({"problem": MATH, "solution": "18", "answer": "18", "unique_id": "a"}) + "\n")
    options = {f"Incorrect Answer {i}": str(i) for i in (1, 2, 3)}
    secret.write_text(json.dumps({"Question": SECRET, "Correct Answer": "4", **options}) + "\n")
    own.write_text(json.dumps({"question": "How far is 3+4?", "answer": "7"}) + "\n")
    words = ["run_cfg=collect_traces", f"output_dir={tmp_path / 'run'}", "dataset_id_or_path=rows.jsonl"]
    words += [f"evaluate.paths={{math500: {math}, gpqa_diamond: {secret}}}"]
    words += [f"data.decontaminate=[math500,gpqa_diamond,{own}]", "data.deduplicate=drop"]
    (tmp_path / "run").mkdir()
    return compose(words)


def problem(question: str, solution: str = "1", trace: str | None = None) -> Problem:
    return Problem(f"{abs(hash((question, solution))):x}"[:16], question, solution, trace)


def table(*items) -> KeptRows:
    return KeptRows("rows.jsonl", "line", dict(enumerate(items, start=1)), len(items))


ROWS = (
    problem("Nothing like it"),
    problem(f"Put it in a box: {MATH.upper()}"),
    problem("another", f"{SECRET}? It is b."),
    problem("  how far\nis 3+4?"),
    problem("How far is 3-4?"),
    problem("NOTHING  like it", "2"),
)


def test_planted_rows_are_left_out_and_listed(config, caplog):
    rows = clean_problems(table(*ROWS), config)
    assert list(rows.items) == [1, 5]
    own = config.data.decontaminate[2]
    assert write_skipped(config, rows) == 4
    listed = [json.loads(line) for line in (Path(config.output_dir) / "overlap.jsonl").open()]
    assert [(o["row"], o["set"], o["dropped"]) for o in listed] == [
        (2, "math500", True),
        (3, "gpqa_diamond", True),
        (4, own, True),
        (6, "earlier rows", True),
    ]
    assert listed[1]["of"] == "gpqa_diamond, question 1"
    assert listed[3]["of"] == "rows.jsonl, line 1"
    assert "isotopes" not in caplog.text
    skipped = (Path(config.output_dir) / "skipped_rows.jsonl").read_text()
    assert "nine grey ravens" in skipped
    assert "isotopes" not in skipped
    assert "1 of 6 rows share 13 words, or a whole question, with math500; skipped\n  line 2: " in caplog.text


def test_rows_may_be_kept_and_listed(config, caplog):
    config.data.on_contaminated = config.data.deduplicate = "report"
    rows = clean_problems(table(*ROWS), config)
    assert rows.values == list(ROWS)
    assert [(o.row, o.dropped) for o in rows.overlaps] == [(2, False), (3, False), (4, False), (6, False)]
    assert "with math500; kept" in caplog.text
    assert rows.map(lambda row: row.question).overlaps == rows.overlaps


def test_no_row_left_says_why(config):
    with pytest.raises(
        DataError, match=r"no row is left: rows\.jsonl, line 1 shares its text with math500, q"
    ):
        clean_problems(table(ROWS[1]), config)


def test_what_counts_as_a_repetition(config):
    config.data.decontaminate = []
    one, other = problem("q", trace="t"), problem("Q ", trace="u")
    assert list(clean_problems(table(one, other), config).items) == [1]
    assert list(clean_explained(table(one, other, replace(one)), config).items) == [1, 2]
    traces = [Trace(one, 0, "t"), Trace(one, 1, "u"), Trace(other, 0, " T")]
    assert list(clean_traces(table(*traces), config).items) == [1, 2]


def test_the_card_of_collected_traces_says_what_was_compared(config, tmp_path):
    from rlt.config.save import save_config

    run = {
        "results": {"explanations": 1, "problems": 1, "well_formed": 1, "malformed": {}, "truncated": 0}
        | {"tokens": 3, "mean_tokens": 3},
        "skipped": 4,
        "stage": "collect_traces",
        "inputs": {
            "dataset": {"file": "rows.jsonl", "sha256": "0" * 64, "bytes": 1},
            "teacher": {"hub": "a/b"},
        },
        "command": "x",
        "versions": {},
    }
    folder = Path(config.output_dir)
    (folder / "run.json").write_text(json.dumps(run))
    save_config(config, folder / "config.yaml")
    write_skipped(config, clean_problems(table(*ROWS), config))
    card = write_traces_card(folder).read_text()
    for line in (
        "| math500 | 1 | skipped |",
        "| own.jsonl | 1 | skipped |",
        "| earlier rows | 1 | skipped |",
    ):
        assert line in card.replace("  ", " ") or line in card


def test_a_selection_chooses_no_trace_of_a_benchmarks_problem(tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"question": MATH}) + "\n")
    rows = [
        {"question": MATH, "solution": "18", "explanation": "two each"},
        {"question": "1+1?", "solution": "2", "explanation": "one more"},
        {"question": "1+1?", "solution": "2", "explanation": "One  more"},
        {"question": "1+1?", "solution": "2", "explanation": "count"},
    ]
    source = tmp_path / "traces.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    usual = ["run_cfg=select_traces", f"dataset_id_or_path={source}", f"data.decontaminate=[{own}]"]
    for mode, chosen in (("drop", [False, True, False, True]), ("report", [True] * 4)):
        words = [
            *usual,
            f"output_dir={tmp_path / mode}",
            f"data.deduplicate={mode}",
            f"data.on_contaminated={mode}",
        ]
        folder = run_here(words, "select_traces")
        assert [json.loads(line)["selected"] for line in (folder / "traces.jsonl").open()] == chosen
        assert len((folder / "overlap.jsonl").read_text().splitlines()) == 2
        fate = "skipped" if mode == "drop" else "kept"
        for file in ("selection.md", "README.md"):
            assert f"| own.jsonl | 1 | {fate} |" in " ".join((folder / file).read_text().split())
    dropped = [json.loads(line) for line in (tmp_path / "drop" / "dropped.jsonl").open()]
    assert [(d["why"], d["detail"][:20]) for d in dropped] == [
        ("shares text with a benchmark", f"{own}, question 1"[:20]),
        ("repeats an earlier explanation", "sample_index 0"),
    ]


# Overlap with held-out rows, and steps that are not full, before any model is loaded


def read_text(stage, words: list[str], caplog) -> str:
    config = resolve(compose(words))
    validate(config)
    caplog.set_level(logging.INFO)
    caplog.clear()
    stage.check(config)
    return "\n".join(record.message for record in caplog.records if record.levelname == "WARNING")


@pytest.fixture
def stages(tiny_teacher, tiny_student, toy_problems, tmp_path):
    """What one would type for each training stage that reads rows with traces."""
    return {
        teacher_sft: sft_words("teacher_sft", tiny_teacher, toy_problems, tmp_path / "a"),
        student_sft: student_words(tiny_student, toy_problems, tmp_path / "b"),
        teacher_rl: rl_words(tiny_teacher, tiny_student, toy_problems, tmp_path / "c"),
    }


def test_held_out_rows_that_are_trained_on_are_counted(stages, toy_problems, tmp_path, caplog):
    held_out = tmp_path / "held_out.jsonl"
    rows = [json.loads(line) for line in toy_problems.open()][:3]
    fresh = {**rows[0], "question": "9*9*9*9+1"}
    other = [{**row, "question": unicodedata.normalize("NFD", f" {row['question']}\n")} for row in rows]
    held_out.write_text("".join(json.dumps(row) + "\n" for row in (*other, fresh)))
    for stage, words in stages.items():
        told = read_text(
            stage, later_win(*words, f"evaluation.path={held_out}", "evaluation.steps=1"), caplog
        )
        assert "3 of 4 held-out problems are in the training data too" in told, stage
        held_out_alone = tmp_path / "fresh.jsonl"
        held_out_alone.write_text(json.dumps(fresh) + "\n")
        told = read_text(
            stage, later_win(*words, f"evaluation.path={held_out_alone}", "evaluation.steps=1"), caplog
        )
        assert "held-out" not in told, stage


def test_rows_that_do_not_fill_a_step_are_told(stages, toy_problems, tmp_path, caplog):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(toy_problems.open().readlines()[:3]))
    for stage in (teacher_sft, student_sft):
        words = later_win(*stages[stage], f"dataset_id_or_path={few}", "train_batch_size=16")
        assert "a step holds 3 rows, not train_batch_size=16" in read_text(stage, words, caplog)
        words = later_win(*stages[stage], f"dataset_id_or_path={few}", "train_batch_size=2")
        assert "a step holds" not in read_text(stage, words, caplog)


def test_preflight_of_training_compares_with_benchmarks(stages, toy_problems, tmp_path, caplog):
    rows = [json.loads(line) for line in toy_problems.open()]
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"question": [rows[0]["question"].upper(), rows[2]["question"]]}))
    for stage, words in stages.items():
        told = read_text(stage, later_win(*words, f"data.decontaminate=[{own}]"), caplog)
        assert f"2 of {len(rows)} rows share 13 words, or a whole question, with {own}; skipped" in told, (
            stage
        )
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["data.decontaminate=[math50]"], "neither a benchmark nor a file: did you mean math500?"),
        (
            ["data.decontaminate=[nowhere.jsonl]"],
            "names nowhere.jsonl, which is neither a benchmark nor a file",
        ),
        (["data.decontaminate=[aime24,aime24]"], "names aime24 twice"),
        (["data.decontaminate=[countdown]"], "give their file instead"),
        (["data.on_contaminated=report"], "has no effect with data.decontaminate=[]"),
        (["data.deduplicate=yes"], "`data.deduplicate` must be one of off, drop, report"),
    ],
)
def test_settings_that_cannot_hold(stages, words, reason):
    with pytest.raises(ConfigError) as error:
        validate(resolve(compose([*stages[teacher_sft], *words])))
    assert reason in str(error.value)
