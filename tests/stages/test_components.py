"""What the stage makes of the settings of components, without a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.stage_runs import rl_words

from rlt.config.compose import compose
from rlt.config.students import all_students
from rlt.data.load import load_problems
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.generation.vllm_pool import VLLMPool
from rlt.launch.server import running_servers
from rlt.models.frozen import FrozenModel
from rlt.models.load import load_model
from rlt.models.logprobs import add_token_query
from rlt.records import Explanation, Problem
from rlt.rewards.components.component import Explained
from rlt.rewards.scorer import StudentScorer
from rlt.rewards.student import StudentText
from rlt.stages.components import OutsideParts, _generator, correct_answers, load_outside_parts
from rlt.stages.teacher_rl import prompted_problems

BESPOKE = TAG_STYLES["bespoke"]


@pytest.fixture
def student_pool(tiny_student: Path, toy_problems: Path, tmp_path: Path) -> Iterator[VLLMPool]:
    """Return a pool of one real server of the student."""
    pytest.importorskip("vllm")
    words = ["generation.backend=vllm", "generation.dtype=float32"]
    config = compose(rl_words(tiny_student, tiny_student, toy_problems, tmp_path / "run", *words))
    with running_servers(config) as servers:
        config.reward.answers.weight = 1
        config.reward.answers.servers = [servers[0].address]
        outside = load_outside_parts(config, is_main=True)
        assert outside.answer_pool is not None
        yield outside.answer_pool
        outside.answer_pool.close()


def test_problems_leave_room_for_an_answer(tmp_path: Path, tiny_tokenizer, tiny_student: Path):
    """The student's context is 1024: the explanation may take 400, question and answer share the rest."""
    source = tmp_path / "rows.jsonl"
    rows = [{"question": "1+" * n + "1", "solution": "4"} for n in (1, 40)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def kept(*words: str) -> list[int]:
        usual = ["max_prompt_length=500", "max_completion_length=400", f"student_model={tiny_student}"]
        config = compose(["run_cfg=teacher_rl", "layout.student_prompt=default", *usual, *words])
        problems = load_problems(config.data, str(source), BESPOKE, need_trace=False)
        student = StudentLayout(tiny_tokenizer, BESPOKE, "")
        teacher = TeacherLayout(tiny_tokenizer, BESPOKE, "")
        students = [StudentText(all_students(config)[0], student, None, context=1024)]
        return list(prompted_problems(problems, teacher=teacher, students=students, config=config).items)

    layout = StudentLayout(tiny_tokenizer, BESPOKE, "")
    longer = Problem("p", rows[1]["question"], "4")
    around = len(layout.prefix_ids(longer)) + len(layout.opening_ids())
    fits = 1024 - 400 - around
    assert kept() == [1, 2]
    assert kept("reward.answers.weight=1", f"reward.answers.max_tokens={fits}") == [1, 2]
    assert kept("reward.answers.weight=1", f"reward.answers.max_tokens={fits + 1}") == [1]


@pytest.mark.parametrize("on_server", [False, pytest.param(True, marks=[pytest.mark.vllm, pytest.mark.long])])
def test_the_student_answers_in_this_process_or_on_a_server(on_server, request, tiny_tokenizer, tiny_student):
    """Its greedy answer is what a plain transformers call gives after the same ids."""
    model = load_model(str(tiny_student), dtype="float32").eval()
    add_token_query(model)
    student = FrozenModel(model, torch.device("cpu"), rests_on_cpu=False, collective=False)
    layout = StudentLayout(tiny_tokenizer, BESPOKE, "")
    scorer = StudentScorer(student, layout, temperature=0.7, tokens_per_batch=999)
    ids = tiny_tokenizer("1+1=2\n\n", add_special_tokens=False)["input_ids"]
    explanation = Explanation(tuple(ids), has_end_tag=True, text_after_end_tag=False)
    problem = Problem("p", "1+1", "2")
    prompt = torch.tensor([scorer.answer_prompt(problem, explanation)])
    output = model.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    continued = output[0, prompt.shape[1] :].tolist()

    words = [
        "reward.answers={weight: 1, num_samples: 1, temperature: 0, max_tokens: 8}",
        "per_device_train_batch_size=1",
    ]
    config = compose(["run_cfg=teacher_rl", *words])
    pool = request.getfixturevalue("student_pool") if on_server else None
    generator = _generator(scorer, pool, config)
    drawn = []

    class Recording:
        def generate(self, *args):
            drawn.extend(generator.generate(*args))
            return drawn

    component = correct_answers(scorer, Recording(), config)
    assert component.values([Explained(problem, explanation, "1+1=2")]) in ([0.0], [1.0])
    (completion,) = drawn[0]
    assert list(completion.token_ids) == continued[: len(completion.token_ids)]


def test_nothing_outside_is_needed_for_the_released_recipe(tiny_student):
    config = compose(["run_cfg=teacher_rl", f"student_model={tiny_student}"])
    assert load_outside_parts(config, is_main=True) == OutsideParts([], None)
