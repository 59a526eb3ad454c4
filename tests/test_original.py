"""The released recipe against the original program: `RLT_ORIGINAL=FOLDER pytest -m original`.

Real rows (Sky-T1, s1K, Marco-o1, GSM8K) in the shape of Bespoke-Stratos, the real tokenizer. The original's
rows end with the newline that the chat template writes after the end of a turn; ours end there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers.original_program import line_processor, load_module, repeat_sampler, student_chats
from trl.trainer.utils import RepeatSampler

from rlt.config.compose import compose
from rlt.data.kept import KeptRows
from rlt.data.load import load_problems
from rlt.formats.cut import written_explanation
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import PADDING, TAG_STYLES
from rlt.records import Problem
from rlt.stages.teacher_sft import sft_rows
from rlt.trainers.order import GroupSampler, Places
from rlt.trainers.sft import IGNORED

pytestmark = [pytest.mark.original, pytest.mark.timeout(3000)]

BESPOKE = TAG_STYLES["bespoke"]
FILES = {"traces_sky_t1_amc23": 283, "traces_s1k_sample": 5, "traces_marco_o1": 123, "gsm8k_train": 400}
"""Rows that are taken of each shared file: 811."""


@dataclass(frozen=True)
class Pair:
    """One row as we read it, and as the original processes it."""

    problem: Problem
    theirs: dict[str, Any]


@pytest.fixture(scope="module")
def problems(shared: Path) -> list[Problem]:
    """Return the 811 problems, each with its trace."""
    data = compose(["run_cfg=teacher_sft"]).data
    found = []
    for name, count in FILES.items():
        rows = load_problems(data, str(shared / "data" / f"{name}.jsonl"), BESPOKE, need_trace=True)
        found += rows.values[:count]
    assert len(found) == 811
    return found


@pytest.fixture(scope="module")
def pairs(original, problems, qwen_tokenizer) -> list[Pair]:
    """Return each problem with what the original makes of it as a row of Bespoke-Stratos."""
    process = line_processor(original)
    return [Pair(problem, process(stratos_row(problem), qwen_tokenizer)) for problem in problems]


def stratos_row(problem: Problem) -> dict[str, Any]:
    assert problem.reasoning_trace is not None
    reply = BESPOKE.thought.wrap(problem.reasoning_trace) + PADDING + BESPOKE.solution.wrap(problem.solution)
    turns = [{"from": "user", "value": problem.question}, {"from": "assistant", "value": reply}]
    return {"conversations": turns}


@pytest.fixture(scope="module")
def teacher(original, qwen_tokenizer) -> TeacherLayout:
    """Return our layout with the original's prompt."""
    prompt = load_module(original, "custom_data", "teacher_data").STRATOS_STYLE_TEACHER_PROMPT
    return TeacherLayout(qwen_tokenizer, BESPOKE, prompt)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_teacher_prompts(pairs, teacher, qwen_tokenizer):
    equal = [teacher.prompt_ids(p.problem) == ids_of(qwen_tokenizer, p.theirs["prompt"]) for p in pairs]
    assert sum(equal) == len(pairs) == 811


@pytest.mark.parametrize("max_length", [16384, 700])
def test_labels(original, pairs, teacher, qwen_tokenizer, max_length):
    """Every token after the delimiter counts, up to the newline at the end; long rows are cut as there."""
    delimiter = load_module(original, "custom_data", "teacher_data").get_teacher_data_mask_delimiter(
        mask_teacher_answer=True
    )
    template = ids_of(qwen_tokenizer, delimiter)
    config = compose(["run_cfg=teacher_sft", f"data.max_length={max_length}"])
    items = {number: pair.problem for number, pair in enumerate(pairs, start=1)}
    ours = sft_rows(KeptRows("811", "row", items, len(items)), teacher, config).items
    num_cut = 0
    for number, pair in enumerate(pairs, start=1):
        whole = ids_of(qwen_tokenizer, pair.theirs["text"])
        ids = whole[:max_length]  # TRL 0.14 tokenises with truncation
        start = next((i for i in range(len(ids)) if ids[i : i + len(template)] == template), None)
        if start is None or start + len(template) == len(ids):
            assert number not in ours  # no token would count
            continue
        counted = start + len(template)
        if len(ids) == len(whole):
            assert qwen_tokenizer.decode(ids[-1:]) == "\n"
            ids = ids[:-1]
        num_cut += len(whole) > max_length
        assert ours[number] == {"input_ids": ids, "labels": [IGNORED] * counted + ids[counted:]}
    assert (num_cut == 0) == (max_length == 16384)


@pytest.fixture(scope="module")
def chats(original, pairs, qwen_tokenizer) -> Iterator[tuple[Problem, list[int], tuple, tuple]]:
    """Return problem, ids of the student's chat, spans of explanation and solution, by the original."""
    found = []
    for pair in pairs:
        explanation = str(pair.problem.reasoning_trace)
        completion = BESPOKE.explanation.wrap(explanation)
        chat, _, _, _, thought, solution = student_chats(
            original, qwen_tokenizer, [pair.theirs], [completion]
        )
        ids = qwen_tokenizer.encode(chat[0])
        places = [(first + len(ids), last + len(ids)) for first, last in (thought[0], solution[0])]
        found.append((pair.problem, ids, *places))
    return found


def test_student_sequences_and_scored_spans(original, chats, qwen_tokenizer):
    info = load_module(original, "custom_data", "reasoning_datasets_info")
    released = StudentLayout(qwen_tokenizer, BESPOKE, info.STRATOS_SYSTEM_PROMPT, solution_span="released")
    equal = 0
    last_tokens: dict[str, int] = {}
    for problem, ids, thought, solution in chats:
        prefix = released.prefix_ids(problem)
        explanation = written_explanation(qwen_tokenizer, str(problem.reasoning_trace)).token_ids
        suffix = released.suffix(problem)
        ours = [*prefix, *explanation, *suffix.ids]
        end = len(prefix) + len(explanation)
        assert ours == ids[:-1]
        assert thought == (len(prefix), end)
        assert solution == (end + suffix.solution.start, end + suffix.solution.stop)
        last = qwen_tokenizer.decode(ids[solution[1] - 1 : solution[1]])
        last_tokens[last] = last_tokens.get(last, 0) + 1
        equal += 1
    assert equal == 811
    assert last_tokens["\n\n"] == 428
    assert all(last.endswith("\n\n") for last in last_tokens)


@pytest.mark.parametrize("dropped", [set(), {8445}])
def test_the_problems_of_three_steps(original, dropped):
    """16 problems a step, 64 explanations each, of 16,710 rows; and without one of them."""
    total = 16_710
    theirs = repeat_sampler(original)(range(total), 64, batch_size=16, repeat_count=1, seed=42)
    places = Places([place for place in range(total) if place not in dropped], total)
    rows = range(len(places.of_rows))
    sampler = RepeatSampler(rows, mini_repeat_count=64, batch_size=16, seed=42)
    ours = [places.of_rows[row] for row in islice(GroupSampler(sampler, places, lambda: 0), 3 * 1024)]
    expected = [place for place in islice(theirs, 4 * 1024) if place not in dropped][: 3 * 1024]
    assert ours == expected
