"""collect_traces with the teacher in process: kills, resumption, what is written, who reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.collect_runs import (
    NUM_PROBLEMS,
    collect_words,
    journal_rows,
    kill_moments,
    killed_at,
    lines_of,
    problem_file,
)
from helpers.stage_runs import run_here, run_processes, succeed
from pyarrow import parquet

from rlt.config.schema import DataSettings
from rlt.data.load import load_problems
from rlt.data.traces import load_traces, number_traces
from rlt.errors import CheckpointError, DataError
from rlt.formats.tags import TAG_STYLES
from rlt.rundir.run_record import read_run

STAGE = "collect_traces"
CHUNK = 2
TAGS = TAG_STYLES["bespoke"]


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> Path:
    return problem_file(tmp_path_factory.mktemp("problems") / "problems.jsonl")


@pytest.fixture(scope="module")
def words(tiny_teacher, problems):
    """Return a function that gives the words of a run into a folder, two samples a row."""

    def build(output: Path, *changes: str) -> list[str]:
        usual = ["generation.backend=transformers", f"collect.samples_per_chunk={CHUNK}"]
        return collect_words(tiny_teacher, problems, output, *usual, *changes)

    return build


@pytest.fixture(scope="module")
def collected(words, tmp_path_factory) -> Path:
    """Return the directory of an undisturbed run."""
    return run_here(words(tmp_path_factory.mktemp("collected") / "run"), STAGE)


def test_every_row_is_explained_and_keeps_its_columns(collected, problems):
    rows, source = lines_of(collected), [json.loads(line) for line in problems.read_text().splitlines()]
    loaded = load_problems(DataSettings(), str(problems), TAGS, need_trace=False).values
    assert [row["question"] for row in rows] == [s["question"] for s in source for _ in range(2)]
    assert [row["problem_id"] for row in rows] == [p.id for p in loaded for _ in range(2)]
    assert [row["sample_index"] for row in rows] == [0, 1] * NUM_PROBLEMS
    assert [row["level"] for row in rows[:4]] == [0, 0, 1, 1]
    assert len({row["explanation"] for row in rows}) > NUM_PROBLEMS
    first = rows[0]
    assert (first["solution"], first["answer"]) == (source[0]["solution"], source[0]["answer"])
    assert first["teacher"].startswith("teacher@sha256:")
    assert (first["sampling"]["temperature"], first["sampling"]["seed"]) == (0.7, 42)
    assert first["score"] is first["breakdown"] is first["selected"] is None
    assert first["messages"][-1]["content"].startswith(TAGS.thought.open)
    assert TAGS.solution.wrap(first["solution"]) in first["messages"][-1]["content"]


def test_malformed_ones_are_marked_and_counted(collected):
    rows, results = lines_of(collected), read_run(collected)["results"]
    assert all(row["well_formed"] == (row["why"] is None) for row in rows)
    assert {row["why"] for row in rows if row["finish_reason"] == "length"} >= {
        "cut by max_completion_length"
    }
    assert results["explanations"] == len(rows)
    assert results["well_formed"] == sum(row["well_formed"] for row in rows)
    assert sum(results["malformed"].values()) == len(rows) - results["well_formed"] > 0
    assert results["truncated"] == sum(row["finish_reason"] == "length" for row in rows)
    assert results["tokens"] == sum(row["num_tokens"] for row in rows)


def test_parquet_holds_the_same_rows_and_the_card_where_they_come_from(collected, tiny_teacher):
    table, rows = parquet.read_table(collected / "traces.parquet").to_pylist(), lines_of(collected)
    for name in ("problem_id", "sample_index", "explanation", "well_formed", "why", "messages", "selected"):
        assert [row[name] for row in table] == [row[name] for row in rows]
    card = (collected / "README.md").read_text()
    assert f"{2 * NUM_PROBLEMS} explanations of {NUM_PROBLEMS} problems" in card
    assert "data_files: traces.parquet" in card
    assert "| `temperature` | `0.7` |" in card
    assert f"| teacher | `{tiny_teacher.name}` (local, sha256 " in card


def test_load_traces_and_score_traces_read_it(collected, tiny_student, tmp_path):
    rows = lines_of(collected)
    for name in ("traces.jsonl", "traces.parquet"):
        traces = number_traces(load_traces(DataSettings(), str(collected / name), TAGS).values)
        assert [trace.explanation for trace in traces] == [row["explanation"] for row in rows]
        assert [trace.sample_index for trace in traces] == [row["sample_index"] for row in rows]
        assert [trace.problem.id for trace in traces] == [row["problem_id"] for row in rows]
    words = ["run_cfg=score_traces", f"dataset_id_or_path={collected}/traces.jsonl"]
    words += [f"student_model={tiny_student}", f"output_dir={tmp_path}/scores", "reward.dtype=float32"]
    scores = run_here(words, "score_traces") / "scores.jsonl"
    scored = [json.loads(line) for line in scores.read_text().splitlines()]
    assert sum(row["selected"] for row in scored) == NUM_PROBLEMS
    for kept in ("well_formed", "finish_reason", "teacher", "sampling"):
        assert [row[kept] for row in scored] == [row[kept] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "num_samples", "num_kills"), [(0.7, 2, 3), (0, 1, 1)])
def test_kills_change_no_byte_and_nothing_is_drawn_twice(
    collected, words, tmp_path, temperature, num_samples, num_kills
):
    changes = (f"temperature={temperature}", f"collect.num_samples={num_samples}")
    whole = collected if temperature else run_here(words(tmp_path / "whole", *changes), STAGE)
    output, total = tmp_path / "run", num_samples * NUM_PROBLEMS
    journals = []
    for number, moment in enumerate(kill_moments(total, num_kills, seed=3)):
        killed_at(words(output, *changes), output, moment, torn=number == 1)
        *lines, _ = re.split(rb"(?<=\n)", (output / "samples" / "journal.jsonl").read_bytes())
        journals.append(b"".join(lines[: len(lines) // CHUNK * CHUNK]))
        assert not (output / "traces.jsonl").exists()
    run_here(words(output, *changes), STAGE)
    for name in ("traces.jsonl", "traces.parquet"):
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name
    keys = [(row["problem_id"], row["sample_index"]) for row in journal_rows(output)]
    assert len(keys) == len(set(keys)) == total
    last = (output / "samples" / "journal.jsonl").read_bytes()
    assert all(last.startswith(earlier) for earlier in journals)  # no chunk that was there was drawn again
    assert len(read_run(output)["earlier"]) == len(journals) == num_kills


def test_the_same_command_again_draws_nothing_and_another_setting_is_refused(collected, words):
    kept = {p: p.read_bytes() for p in (collected / "traces.jsonl", collected / "samples" / "journal.jsonl")}
    run_here(words(collected), STAGE)
    assert {path: path.read_bytes() for path in kept} == kept
    for word, sentence in (
        ("temperature=0.8", r"\(temperature was 0\.7 and is 0\.8\)"),
        ("seed=1", r"\(seed was 42 and is 1\)"),
        ("layout.teacher_prompt=Explain.", r"\(teacher_prompt was .* and 1 more\)"),
        ("collect.samples_per_chunk=5", r"\(collect\.samples_per_chunk was 2 and is 5\)"),
    ):
        with pytest.raises(CheckpointError, match=f"holds explanations of another run {sentence}"):
            run_here(words(collected, word), STAGE)
    run_here(words(collected), STAGE)  # leaves a finished run for other tests


def test_a_sample_does_not_depend_on_its_company(collected, words, tmp_path):
    """Other samples beside it: the same ones, as far as rounding does not move a token of the tiny model."""
    wanted = [row for row in lines_of(collected) if row["sample_index"] == 1][::7]
    only = tmp_path / "recollect.jsonl"
    only.write_text(
        "".join(json.dumps({k: r[k] for k in ("problem_id", "sample_index")}) + "\n" for r in wanted)
    )
    output = run_here(words(tmp_path / "run", f"collect.only={only}"), STAGE)
    assert [row["explanation"] for row in lines_of(output)] == [row["explanation"] for row in wanted]
    assert [row["sample_index"] for row in lines_of(output)] == [1] * len(wanted)


def test_long_prompts_are_left_out_and_listed(words, tmp_path, problems):
    changes = ("max_prompt_length=30", "data.on_long_row=error")
    with pytest.raises(DataError, match="prompt tokens where max_prompt_length allows 30"):
        run_here(words(tmp_path / "stop", *changes), STAGE)
    long = tmp_path / "long.jsonl"
    long.write_text(problems.read_text() + json.dumps({"question": "1+1" * 200, "solution": "2"}) + "\n")
    output = run_here(words(tmp_path / "drop", f"dataset_id_or_path={long}", "seed=42"), STAGE)
    assert len(lines_of(output)) == 2 * NUM_PROBLEMS
    assert json.loads((output / "skipped_rows.jsonl").read_text())["row"] == NUM_PROBLEMS + 1
    assert read_run(output)["skipped"] == 1


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_write_the_same(collected, words, tmp_path):
    output = tmp_path / "run"
    succeed(run_processes("ddp", words(output)))
    assert (output / "traces.jsonl").read_bytes() == (collected / "traces.jsonl").read_bytes()


def test_an_upload_that_fails_says_that_everything_is_there(collected, words):
    with pytest.raises(DataError, match="the dataset me/traces cannot be written on the Hub"):
        run_here(words(collected, "collect.push_to_hub=me/traces"), STAGE)
    assert read_run(collected)["status"] == "finished"
