"""Other people's servers that fail now and then, under whole evaluations, over real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.openai_fake import Fake, Reply, running_fake, text
from helpers.stage_runs import run_here

from rlt.errors import GenerationError
from rlt.rundir.run_record import read_run

NUM_PROBLEMS = 8
SPOILT = (1, 4, 6)
"""The problems whose first request meets the fault."""
HANG = Reply()
SAME = "waited out for that request alone: every answer is that of a server without faults"
Answer = Callable[[int, dict[str, Any]], Reply]


def fault(what: str, wrong: Reply, *marks: pytest.MarkDecorator):
    """Return a scenario with its name."""
    return pytest.param(wrong, id=what, marks=[*marks, pytest.mark.fault(f"an API: {what}", SAME)])


FAULTS = [
    fault("429 with Retry-After", Reply({}, 429, {"Retry-After": "1"})),
    fault("HTTP 503", Reply({"error": {"message": "overloaded"}}, 503), pytest.mark.long),
    fault("HTTP 502 with a page", Reply(code=502, raw=b"<html>bad gateway</html>"), pytest.mark.long),
    fault("the connection is reset", Reply(reset=True)),
    fault("JSON that is cut", Reply(raw=b'{"choices": [{"text": "so it'), pytest.mark.long),
    fault("a body that is cut", Reply(raw=b"{", headers={"Content-Length": "500"}), pytest.mark.long),
    fault(
        "an error inside of HTTP 200",
        Reply({"error": {"message": "overloaded", "code": 503}}),
        pytest.mark.long,
    ),
    fault("a content filter", text("", "content_filter"), pytest.mark.long),
    fault("it never answers", HANG, pytest.mark.long),
]


@pytest.fixture
def words(models: Path, tmp_path: Path):
    """Return a function that gives the words of an evaluation into `folder` by a server."""
    problems = tmp_path / "problems.jsonl"
    rows = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(NUM_PROBLEMS)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def build(fake: Fake, folder: str, *changes: str) -> list[str]:
        return [
            "run_cfg=evaluate",
            "evaluate.tasks=[problems]",
            f"dataset_id_or_path={problems}",
            f"model_name_or_path={models / 'student'}",
            f"output_dir={tmp_path / folder}",
            "generation.backend=vllm",
            "generation.api=openai",
            f"generation.servers=[{fake.address}]",
            "max_prompt_length=1500",
            "max_completion_length=24",
            *changes,
        ]

    return build


def problem_of(body: dict[str, Any]) -> int | None:
    """Return which problem is asked for; None for the word of the check at the start."""
    asked = [i for i in range(NUM_PROBLEMS) if f"What is {i} plus {i}?" in body["prompt"]]
    return asked[0] if asked else None


def well(_: int, body: dict[str, Any]) -> Reply:
    """Answer, every third problem wrongly."""
    i = problem_of(body)
    return text("1") if i is None else text(f"The answer is \\boxed{{{2 * i + (i % 3 == 0)}}}.")


@contextmanager
def server_with(wrong: Reply, *, always: bool = False) -> Iterator[Fake]:
    """Yield a server where the first request of some problems, or every one, meets a fault."""
    seen: set[int] = set()
    released, lock = threading.Event(), threading.Lock()

    def answer(number: int, body: dict[str, Any]) -> Reply:
        i = problem_of(body)
        with lock:
            is_spoilt = i in SPOILT and (always or i not in seen)
            seen.add(-1 if i is None else i)
        if is_spoilt and wrong is HANG:
            released.wait()
        return wrong if is_spoilt else well(number, body)

    with running_fake(answer) as fake:
        try:
            yield fake
        finally:
            released.set()


def answers(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of an evaluation without when they were made."""
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def count_other_rows(folder: Path, calm: Path) -> int:
    """Return how many rows are missing, doubled or other than without faults."""
    ours, theirs = answers(folder), answers(calm)
    return sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))


@pytest.fixture
def calm(words, tmp_path: Path) -> Path:
    """Return the directory of an evaluation without faults."""
    with running_fake(well) as fake:
        return run_here(words(fake, "calm"), "evaluate")


@pytest.mark.parametrize("wrong", FAULTS)
def test_what_passes(wrong, words, calm, lost):
    with server_with(wrong) as fake:
        folder = run_here(words(fake, "run", "generation.request_timeout=10"), "evaluate")
        asked = [problem_of(body) for body in fake.asked]
    assert [asked.count(i) for i in range(NUM_PROBLEMS)] == [1 + (i in SPOILT) for i in range(NUM_PROBLEMS)]
    assert [row["correct"] for row in answers(folder)] == [i % 3 != 0 for i in range(NUM_PROBLEMS)]
    lost(count_other_rows(folder, calm))


@pytest.mark.fault(
    "an API: HTTP 503 for longer than generation.retry_seconds",
    "exit code 5, the other answers are kept; the same command continues once it is well",
)
def test_what_does_not_pass(words, calm, lost, tmp_path):
    with (
        server_with(Reply({"error": {"message": "overloaded"}}, 503), always=True) as fake,
        pytest.raises(GenerationError, match="503") as raised,
    ):
        run_here(words(fake, "run", "generation.retry_seconds=1"), "evaluate")
    folder = tmp_path / "run"
    assert raised.value.exit_code == 5
    assert read_run(folder)["status"] == "failed"
    assert len((folder / "samples" / "journal.jsonl").read_text().splitlines()) == NUM_PROBLEMS - len(SPOILT)
    with running_fake(well) as fake:
        run_here(words(fake, "run", "generation.retry_seconds=1"), "evaluate")
        asked = {problem_of(body) for body in fake.asked} - {None}
    assert asked == set(SPOILT)
    lost(count_other_rows(folder, calm))
