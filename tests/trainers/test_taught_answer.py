"""Completions with the reference solution behind their thoughts, and the teacher's values that they keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.families import FAMILIES, family_tokenizer

from rlt.formats.layout import StudentLayout
from rlt.formats.place import ThoughtFinder
from rlt.formats.tags import NATIVE, TAG_STYLES, TagStyle, tag_style
from rlt.models.load import load_tokenizer
from rlt.records import Problem
from rlt.trainers.opd_view import View
from rlt.trainers.taught_answer import Taught, TaughtAnswers, put_behind

PROBLEM = Problem("id", "2 + 3 = ?", "5")
THOUGHT = "<|begin_of_thought|>\n\nit is five\n\n"
SOLVED = "<|end_of_thought|>\n\n<|begin_of_solution|>\n\n5\n\n<|end_of_solution|><|im_end|>"


@pytest.fixture(scope="module")
def layout(tiny_student) -> StudentLayout:
    return StudentLayout(load_tokenizer(str(tiny_student)), tag_style("bespoke"), "Think.")


@pytest.fixture
def encode(layout):
    return lambda text: layout.tokenizer(text, add_special_tokens=False)["input_ids"]


def answers(layout: StudentLayout, max_tokens: int = 100) -> TaughtAnswers:
    return TaughtAnswers(layout, ThoughtFinder(layout), coefficient=1, max_tokens=max_tokens)


def test_another_answer_becomes_the_reference_solution(layout, encode):
    sampled = THOUGHT + SOLVED.replace("5", "the 7")
    taught = answers(layout)(PROBLEM, encode(sampled))
    assert layout.tokenizer.decode(taught.ids) == THOUGHT + SOLVED
    own = THOUGHT + SOLVED.partition("5")[0]
    assert layout.tokenizer.decode(taught.ids[: taught.num_own]) == own
    inside = [token for token, around in zip(taught.ids, taught.is_around_C, strict=True) if not around]
    assert layout.tokenizer.decode(inside) == "it is five\n\n"


@pytest.mark.parametrize("tags", [NATIVE, TAG_STYLES["bespoke"]], ids=["native", "bespoke"])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_template_the_turn_becomes_the_one_to_fine_tune_on(family: str, tags: TagStyle):
    layout = StudentLayout(family_tokenizer(family), tags, "")
    thought = "Two and three.\n\nSo it is 5."
    other = layout.turn(replace(PROBLEM, solution="It is $7$."), thought)
    taught = answers(layout)(PROBLEM, other.completion_ids)
    expected = layout.turn(PROBLEM, thought)
    assert taught.ids == expected.completion_ids
    is_thought = [i for i, around in enumerate(taught.is_around_C) if not around]
    assert is_thought == list(range(expected.explanation.start, expected.explanation.stop))
    assert expected.explanation.stop < taught.num_own < len(taught.ids)


@pytest.mark.parametrize("sampled", ["<|begin_of_thought|>\n\nit goes on", "no tags", THOUGHT + SOLVED])
def test_without_an_end_of_the_thought_or_room_nothing_changes(layout, encode, sampled):
    ids = encode(sampled)
    taught = answers(layout, max_tokens=len(ids) - 1)(PROBLEM, ids)
    assert taught.ids == ids
    assert taught.num_own == len(ids)
    assert not taught.is_around_C.any()


def test_a_chunk_that_is_not_kept_whole_is_not_judged():
    view = View(
        6,
        torch.tensor([-1, 0, 1, 1, 2, -1]),
        torch.tensor([0.0, -1.0, -2.0, -2.0, -3.0, 0.0]),
        torch.tensor([1, 4]),
        (torch.tensor([10.0, 40.0]),),
    )
    kept = view.within(Taught([0] * 5, 3, torch.zeros(5, dtype=torch.bool)))
    assert kept.chunk_C.tolist() == [-1, 0, -1, -1, -1]
    assert kept.teacher_C.tolist() == [0, -1, 0, 0, 0]
    assert kept.tokens_M.tolist() == [1]
    assert kept.values[0].tolist() == [10]


def test_the_batch_is_as_wide_as_the_new_completions_and_knows_what_was_sampled():
    output = {
        "prompt_ids": torch.tensor([[7, 7], [7, 7]]),
        "completion_ids": torch.tensor([[1, 2, 3], [4, 0, 0]]),
        "completion_mask": torch.tensor([[1, 1, 1], [0, 0, 0]]),
        "sampling_per_token_logps": torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]]),
        "ref_per_token_logps": torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]]),
        "advantages": torch.tensor([0.0, 0.0]),
    }
    longer = Taught([1, 2, 5, 6], 2, torch.tensor([True, False, True, True]))
    masked = Taught([4, 5], 1, torch.tensor([False, True]))
    changed = put_behind(output, [longer, masked], pad_token_id=0)
    assert changed["completion_ids"].tolist() == [[1, 2, 5, 6], [4, 5, 0, 0]]
    assert changed["completion_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert changed["sampled"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert changed["around"].tolist() == [[1, 0, 1, 1], [0, 0, 0, 0]]
    assert changed["sampling_per_token_logps"].tolist() == [[-1, -2, 0, 0], [-4, 0, 0, 0]]
    assert changed["ref_per_token_logps"][0].tolist() == [-1, -2, -1e4, -1e4]
    assert changed["prompt_ids"] is output["prompt_ids"]
