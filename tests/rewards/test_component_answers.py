"""Correctness by the student's own answers."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from helpers.component_cases import explained, explanation
from test_scorer import STUDENT_SYSTEM, make_world, text_ids

from rlt.formats.encode import TokenBytes
from rlt.formats.tags import TAG_STYLES
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Sampling
from rlt.records import Completion
from rlt.rewards.components.answers import AnswerReader, CorrectAnswers
from rlt.rewards.components.component import Explained
from rlt.tasks.math_grader import MathGrader

CLOSE = TAG_STYLES["bespoke"].solution.close


@pytest.fixture(scope="module")
def grade():
    with MathGrader() as grader:
        yield grader


@pytest.fixture
def read(tiny_tokenizer) -> AnswerReader:
    return AnswerReader(TokenBytes(tiny_tokenizer), CLOSE, frozenset([tiny_tokenizer.eos_token_id]))


@pytest.fixture
def said(tiny_tokenizer):
    """Return a function from a text to a completion; `|` stands for the end of turn."""

    def completion(text: str, reason: str = "stop") -> Completion:
        ids = text_ids(tiny_tokenizer, text.rstrip("|")) + [tiny_tokenizer.eos_token_id] * text.count("|")
        return Completion(tuple(ids), (0.0,) * len(ids), reason)

    return completion


def test_an_answer_ends_at_the_tag_or_with_the_turn(read, said):
    assert read(said(f"72\n\n{CLOSE}")) == "72"
    assert read(said(f"72\n\n{CLOSE} or 3", "length")) == "72"
    assert read(said(f"72{CLOSE}")) == "72"
    assert read(said("72|")) == "72"
    assert read(said("|")) == ""
    assert read(said("72", "length")) is None


@pytest.mark.parametrize(
    ("answer", "solution", "share"),
    [(None, "72", 0.5), ("36", "72", 0.25), ("144/2", "no number", 0.5), (None, "nothing", 0)],
)
def test_the_value_is_the_share_of_right_answers(read, said, grade, answer, solution, share):
    drawn = [said(f"72\n\n{CLOSE}"), said("8*9|"), said("36|"), said("72", "length")]
    component = CorrectAnswers(lambda *_: [1], lambda *_: [drawn], read, grade, seed=0)
    assert component.values([explained(answer=answer, solution=solution)]) == [share]


def test_a_student_answers_after_the_explanation(tiny_tokenizer, read, grade):
    """What transformers itself continues with after the written-out text is the right answer."""
    world = make_world(tiny_tokenizer, len(tiny_tokenizer))
    tags = TAG_STYLES["bespoke"]
    text, question = "36+36=72", "36*2"
    system = {"role": "system", "content": STUDENT_SYSTEM}
    turns = [system, {"role": "user", "content": question}]
    frame = tiny_tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    written = f"{frame}{tags.thought.open}\n\n{text}\n\n{tags.thought.close}\n\n{tags.solution.open}\n\n"
    before = tiny_tokenizer(written, add_special_tokens=False, return_tensors="pt")
    output = world.student.generate(
        **before, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    continued = output[0, before["input_ids"].shape[1] :].tolist()

    generator = TransformersGenerator(lambda: nullcontext(world.student), 0, 4, decode=tiny_tokenizer.decode)
    last = continued[-1]  # ends the turn, so that the answer is whole
    sampling = Sampling(0.0, 6, (last,), stop_strings=(CLOSE,))
    reader = AnswerReader(TokenBytes(tiny_tokenizer), CLOSE, frozenset([last]))
    graded = []
    component = CorrectAnswers(
        world.scorer.answer_prompt,
        lambda prompts, seeds: generator.generate(prompts, 1, sampling, seeds),
        reader,
        lambda answer, _: graded.append(answer) or True,
        seed=0,
    )
    row = explained(text, question=question)
    row = Explained(row.problem, explanation(text_ids(tiny_tokenizer, f"{text}\n\n")), text)
    assert component.values([row]) == [1]
    whole = continued[: continued.index(last)]
    assert graded == [tiny_tokenizer.decode(whole).strip()]


def test_a_sample_depends_on_its_own_row_only(read, said, grade):
    asked = []

    def sample(prompts, seeds):
        asked.append(seeds)
        return [[said("72|")] for _ in prompts]

    rows = [explained(num_tokens=n, id=name) for n, name in ((3, "a"), (3, "b"), (4, "a"))]
    for seed, some in ((0, rows), (0, rows[1:]), (1, rows)):
        CorrectAnswers(lambda *_: [1], sample, read, grade, seed=seed).values(some)
    first, without_the_first, other_run = asked
    assert without_the_first == first[1:]
    assert len({*first, *other_run}) == 6
