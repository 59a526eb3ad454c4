"""evaluate with other people's servers: whom it asked, what was not answered, and continuing afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.openai_fake import Fake, Reply, running_fake, text
from helpers.stage_runs import run_here

from rlt.errors import CheckpointError, GenerationError
from rlt.rundir.run_record import read_run

NUM_PROBLEMS = 6
RIGHT = (
    "<|begin_of_thought|>\n\nso\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n7\n\n<|end_of_solution|>"
)


@pytest.fixture
def words(tiny_student, tmp_path):
    """Return a function that gives the words of an evaluation of six problems by a server."""
    rows = [{"question": f"{i} + {7 - i}?", "answer": "7"} for i in range(NUM_PROBLEMS)]
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def build(fake: Fake, *changes: str) -> list[str]:
        return [
            "run_cfg=evaluate",
            "evaluate.tasks=[problems]",
            f"dataset_id_or_path={problems}",
            f"model_name_or_path={tiny_student}",
            f"output_dir={tmp_path / 'run'}",
            "generation.backend=vllm",
            "generation.api=openai",
            f"generation.servers=[{fake.address}/v1]",
            "max_prompt_length=300",
            "max_completion_length=24",
            *changes,
        ]

    return build


def asks_for(body: dict[str, Any], i: int) -> bool:
    return f"{i} + {7 - i}?" in body["prompt"]


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_who_was_asked_and_what_was_withheld_stand_in_the_results(words, tmp_path):
    def answer(_: int, body: dict[str, Any]) -> Reply:
        return text("", "content_filter") if asks_for(body, 2) else text(RIGHT)

    models = [{"id": "base"}, {"id": "tuned"}]
    with running_fake(answer, models) as fake:
        folder = run_here(words(fake, "generation.api_model=tuned"), "evaluate")
    assert {body["model"] for body in fake.asked} == {"tuned"}
    rows = answers(folder)
    assert [row["correct"] for row in rows] == [i != 2 for i in range(NUM_PROBLEMS)]
    assert (rows[2]["finish_reason"], rows[2]["why"]) == ("content_filter", "no answer: content_filter")
    assert json.loads((folder / "manifest.json").read_text())["generation.api_model"] == ["tuned"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["models_asked"] == ["tuned"]
    assert summary["tasks"]["problems"]["withheld"] == {"content_filter": 1}
    page = (folder / "summary.md").read_text()
    assert (
        "1 of 6 answers of problems were not sent by the server and count as wrong: content_filter 1." in page
    )
    assert "asked as tuned" in page
    # another model is another evaluation
    with running_fake(answer, models) as fake, pytest.raises(CheckpointError, match=r"generation\.api_model"):
        run_here(words(fake, "generation.api_model=base"), "evaluate")


def test_what_one_prompt_is_refused_costs_no_other_and_is_asked_for_later(words, tmp_path):
    def answer(_: int, body: dict[str, Any]) -> Reply:
        refusal = Reply({"error": {"message": "this prompt breaks a rule"}}, 400)
        return refusal if asks_for(body, 4) else text(RIGHT)

    with (
        running_fake(answer) as fake,
        pytest.raises(GenerationError, match=r'1 of 6 .*"this prompt breaks a rule'),
    ):
        run_here(words(fake), "evaluate")
    folder = tmp_path / "run"
    assert read_run(folder)["status"] == "failed"
    assert len((folder / "samples" / "journal.jsonl").read_text().splitlines()) == NUM_PROBLEMS - 1
    with running_fake(lambda *_: text(RIGHT)) as fake:
        run_here(words(fake), "evaluate")
        asked = [body for body in fake.asked if body["prompt"] != "1"]  # besides the check's own word
    assert len(asked) == 1
    assert asks_for(asked[0], 4)
    assert [row["correct"] for row in answers(folder)] == [True] * NUM_PROBLEMS
