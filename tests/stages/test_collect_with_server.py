"""collect_traces from a real vLLM server: kills, addresses and requests in flight change no byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from helpers.stage_runs import run_here

from rlt.config.compose import compose
from rlt.launch.server import running_servers

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
STAGE = "collect_traces"


@pytest.fixture(scope="module")
def words(tiny_teacher, tmp_path_factory) -> Iterator[Any]:
    """Return a function that gives the words of a run on one real server, four samples a row."""
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("collect")
    problems = problem_file(folder / "problems.jsonl")
    usual = ["max_completion_length=48", "collect.num_samples=4", "collect.requests_per_server=4"]
    with running_servers(compose(collect_words(tiny_teacher, problems, folder, *usual))) as servers:
        usual.append(f"generation.servers=[{servers[0].address}]")
        yield lambda output, *changes: collect_words(tiny_teacher, problems, output, *usual, *changes)


@pytest.fixture(scope="module")
def collected(words, tmp_path_factory) -> Path:
    """Return the directory of an undisturbed run."""
    return run_here(words(tmp_path_factory.mktemp("collected") / "run"), STAGE)


@pytest.mark.parametrize(
    ("temperature", "num_samples", "num_kills"),
    [pytest.param(0.7, 4, 3, marks=pytest.mark.long), (0, 1, 1)],
)
def test_kills_change_no_byte_and_nothing_is_drawn_twice(
    collected, words, tmp_path, temperature, num_samples, num_kills
):
    changes = (f"temperature={temperature}", f"collect.num_samples={num_samples}")
    whole = collected if temperature else run_here(words(tmp_path / "whole", *changes), STAGE)
    output, total = tmp_path / "run", num_samples * NUM_PROBLEMS
    kept = b""
    for number, moment in enumerate(kill_moments(total, num_kills, seed=4)):
        killed_at(words(output, *changes), output, moment, torn=number == 1)
        journal = (output / "samples" / "journal.jsonl").read_bytes()
        assert journal.startswith(kept)
        kept = journal[: journal.rfind(b"\n") + 1]
        assert not (output / "traces.jsonl").exists()
    run_here(words(output, *changes), STAGE)
    assert (output / "samples" / "journal.jsonl").read_bytes().startswith(kept)
    for name in ("traces.jsonl", "traces.parquet"):
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name
    keys = [(row["problem_id"], row["sample_index"]) for row in journal_rows(output)]
    assert len(keys) == len(set(keys)) == total


def test_neither_addresses_nor_requests_in_flight_change_a_byte(collected, words, tmp_path):
    (address,) = (
        word.split("=", 1)[1][1:-1] for word in words(tmp_path) if word.startswith("generation.servers")
    )
    twice = f"generation.servers=[{address},{address.replace('127.0.0.1', 'localhost')}]"
    output = run_here(words(tmp_path / "run", twice, "collect.requests_per_server=64"), STAGE)
    assert (output / "traces.jsonl").read_bytes() == (collected / "traces.jsonl").read_bytes()
    assert [row["sample_index"] for row in lines_of(output)] == [0, 1, 2, 3] * NUM_PROBLEMS
    order = [(row["problem_id"], row["sample_index"]) for row in journal_rows(output)]
    assert order != [(row["problem_id"], row["sample_index"]) for row in lines_of(output)]  # as they came


def test_an_evaluation_from_the_same_server(words, tmp_path):
    kept = ("model_name_or_path", "dataset_id_or_path", "generation", "max_prompt", "max_completion")
    usual = [word for word in words(tmp_path) if word.startswith(kept)]
    usual += ["run_cfg=evaluate", "eval_cfg=robust", "evaluate.tasks=[problems]", "evaluate.num_samples=3"]
    runs = [
        run_here([*usual, f"output_dir={tmp_path}/{n}", f"evaluate.requests_per_server={n}"], "evaluate")
        for n in (2, 64)
    ]
    rows = [json.loads(line) for line in (runs[0] / "samples.jsonl").read_text().splitlines()]
    assert [row["sample_index"] for row in rows] == [0, 1, 2] * NUM_PROBLEMS
    assert len({row["text"] for row in rows}) > NUM_PROBLEMS
    assert len(json.loads((runs[0] / "manifest.json").read_text())["vllm_servers"]) == 1
    for name in ("samples.jsonl", "summary.json"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes(), name


def test_an_evaluation_through_openais_api_alone(words, tmp_path):
    """Text goes out and comes back: greedy answers are those of the same server asked with token ids."""
    kept = ("model_name_or_path", "dataset_id_or_path", "generation", "max_prompt", "max_completion")
    usual = [word for word in words(tmp_path) if word.startswith(kept)]
    usual += ["run_cfg=evaluate", "evaluate.tasks=[problems]"]
    ids, text = (
        run_here([*usual, f"output_dir={tmp_path / api}", f"generation.api={api}"], "evaluate")
        for api in ("vllm", "openai")
    )
    ours, theirs = (
        [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()] for run in (text, ids)
    )
    assert [row["finish_reason"] for row in ours] == [row["finish_reason"] for row in theirs]
    assert [row["correct"] for row in ours] == [row["correct"] for row in theirs]
    manifest = json.loads((text / "manifest.json").read_text())
    assert manifest["vllm_servers"][0].startswith("OpenAI API, model ")
    assert manifest["generation.api"] == "openai"
