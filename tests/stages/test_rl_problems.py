"""From rows to the prompts of RL: what is skipped and why, and that nothing a row brings is lost."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

from rlt.config.compose import compose
from rlt.config.students import all_students
from rlt.data.kept import KeptRows
from rlt.data.load import load_problems
from rlt.errors import ConfigError, DataError
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.models.load import load_tokenizer
from rlt.records import Problem, Score
from rlt.rewards.likelihood import Measured
from rlt.rewards.student import StudentText
from rlt.stages.common import run_context
from rlt.stages.rl import make_engine, rl_settings
from rlt.stages.teacher_rl import prompted_problems, run
from rlt.trainers.arguments import grpo_arguments
from rlt.trainers.order import Places
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.rl_parts import RLData, RLParts
from rlt.trainers.teacher_rl import TeacherReward, TeacherRLTrainer

BESPOKE = TAG_STYLES["bespoke"]
ROW = {"question": "2+2", "solution": "4", "system": "Think."}


@pytest.fixture
def prompted(tmp_path: Path, tiny_tokenizer, tiny_student: Path):
    """Return a function from rows of a file to the prompts of a run."""

    def build(rows: list[dict], *words: str, prompt: str | None = None) -> KeptRows[PromptedProblem]:
        source = tmp_path / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        usual = ["max_prompt_length=200", "max_completion_length=100", f"student_model={tiny_student}"]
        config = compose(["run_cfg=teacher_rl", *usual, *words])
        student = StudentLayout(tiny_tokenizer, BESPOKE, prompt)
        return prompted_problems(
            load_problems(config.data, str(source), BESPOKE, need_trace=False),
            teacher=TeacherLayout(tiny_tokenizer, BESPOKE, "Teach."),
            students=[StudentText(all_students(config)[0], student, None, context=1024)],
            config=config,
        )

    return build


def test_rows_that_do_not_fit_are_counted_with_their_reasons(prompted):
    no_system = {**ROW, "system": None}
    long = {**ROW, "question": "+".join("1" * 150)}
    empty = {**ROW, "solution": ""}
    kept = prompted([empty, ROW, no_system, long, ROW], "data.on_bad_row=skip")
    assert list(kept.items) == [2, 5]
    reasons = {bad.row: bad.reason for bad in kept.skipped}
    assert reasons.keys() == {1, 3, 4}
    assert reasons[1] == "`solution` is empty"
    assert "has no system prompt, which layout.student_prompt=from_dataset reads" in reasons[3]
    assert reasons[4].endswith(" prompt tokens where max_prompt_length allows 200")


def test_a_row_without_the_system_prompt_that_was_asked_for(prompted):
    with pytest.raises(DataError) as error:
        prompted([ROW, {"question": "2+3", "solution": "5"}])
    said = str(error.value)
    assert "rows.jsonl, line 2: problem " in said
    assert "layout.student_prompt=from_dataset reads" in said
    assert said.endswith("; correct it, or skip such rows with data.on_bad_row=skip")
    assert "\n" not in said


def test_a_solution_that_cannot_be_scored(qwen_tokenizer, tiny_student):
    """Qwen joins a lone full stop with the blank line after it, so that no token is the solution's own."""
    problems = [Problem("a", "2+2", "4"), Problem("b", "Which sign ends a sentence?", ".")]
    table = KeptRows("a.csv", "line", {3: problems[0], 7: problems[1]}, 5)

    def build(*words: str):
        config = compose(
            [
                *("run_cfg=teacher_rl", f"student_model={tiny_student}", "max_completion_length=64"),
                *("layout.student_prompt=''", *words),
            ]
        )
        student = StudentLayout(qwen_tokenizer, BESPOKE, "")
        return prompted_problems(
            table,
            teacher=TeacherLayout(qwen_tokenizer, BESPOKE, ""),
            students=[StudentText(all_students(config)[0], student, None, context=None)],
            config=config,
        )

    with pytest.raises(DataError, match=r"a\.csv, line 7: problem b: the solution cannot be scored"):
        build()
    kept = build("data.on_bad_row=skip")
    assert (list(kept.items), [bad.row for bad in kept.skipped]) == ([3], [7])


BROUGHT = {
    "question": "not the question",
    "index": 5,
    "prompt": ["x", 2, None],
    "completions": "a word of TRL's",
    "nested": {"a": [1, {"b": None}]},
    "nothing": None,
}
"""Columns named like fields of ours and of TRL's, and values that no table of one type holds."""
BROUGHT_TOO = {**BROUGHT, "nested": "text", "index": 0.5}
ROWS = [{"problem": f"{i}+2", "solution": "4", "system": "Think.", **BROUGHT} for i in range(3)]
ROWS[1] |= BROUGHT_TOO


def test_every_column_stays_with_its_problem(prompted):
    kept = prompted(ROWS, "data.columns={question: problem}")
    first, second, third = (item.problem for item in kept.values)
    assert (first.question, first.extra) == ("0+2", BROUGHT)
    assert (second.question, second.extra) == ("1+2", BROUGHT_TOO)
    assert third.extra == BROUGHT


@pytest.fixture
def one_thread():
    """Keep torch to one thread, from which a tiny model gains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class RecordingReward:
    """Pays every explanation the same, and keeps what it was given."""

    needs_teacher = False

    def __init__(self) -> None:
        self.seen: dict[str, dict] = {}

    def in_place(self) -> AbstractContextManager[None]:
        return nullcontext()

    def measure(self, problems, explanations, teacher_logprobs, *, runs=None) -> list[Measured]:  # noqa: ARG002
        assert len(problems) == len(explanations) == len(teacher_logprobs)
        return [()] * len(problems)

    def judge(self, problems, explanations, measured) -> list[Score]:
        assert len(problems) == len(explanations) == len(measured)
        self.seen |= {problem.question: problem.extra for problem in problems}
        parts: dict[str, float] = dict.fromkeys(("r_ss", "r_kl", "missing_tag", "explanation_tokens"), 1.0)
        return [Score(1.0, parts) for _ in problems]


def test_every_column_reaches_the_reward(prompted, words, tmp_path, tiny_teacher, one_thread):
    config = compose(words(tmp_path / "run", "trainer.max_steps=1", evaluate=False))
    data = prompted(ROWS, "data.columns={question: problem}").values
    assert config.num_generations == 4
    reward = RecordingReward()
    trainer = TeacherRLTrainer(
        str(tiny_teacher),
        grpo_arguments(config, run_context(config)),
        layout=TeacherLayout(load_tokenizer(str(tiny_teacher)), BESPOKE, "Teach."),
        data=RLData(data[:2], [], Places([1, 2], 6)),
        reward=TeacherReward(lambda _: reward, teacher_logprobs="policy"),
        parts=RLParts(
            make_engine=partial(make_engine, pool=None, config=config), write_samples=lambda *_: None
        ),
        settings=rl_settings(config),
    )
    # Under seed 42 the six rows of the dataset come as 0 3 2 4 1 5, two rows by themselves as 0 1.
    assert config.seed == 42
    assert list(dict.fromkeys(trainer._get_train_sampler())) == [1, 0]
    trainer.train()
    assert reward.seen == {"0+2": BROUGHT, "1+2": BROUGHT_TOO}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "max_completion_length=1024",
            "`max_completion_length=1024` must leave room for question and solution in the context of "
            "the student ",
        ),
        ("max_prompt_length=1020", r"`max_prompt_length + max_completion_length = 1020 + 16` must fit the"),
    ],
)
def test_lengths_are_held_against_the_contexts_that_were_loaded(words, tmp_path, change, reason):
    """The stage alone, as it is with models of the Hub, whose contexts the settings check cannot know."""
    config = compose(words(tmp_path / "run", "max_prompt_length=10", change))
    with pytest.raises(ConfigError) as error:
        run(config)
    assert reason in str(error.value)
