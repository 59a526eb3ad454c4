"""The reading copy, scripts/examples/rlt_in_one_file.py, against one real step of teacher_rl.

The real one is the framework's stage with the released recipe on the quickstart's tokenizer. The copy gets
the same models, and the ids that were sampled.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.stage_runs import rl_words, run_here, weights
from recorded_step import RecordingTrainer
from test_update import LEARNING_RATE, nearby  # noqa: F401 - a fixture

from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.records import Problem
from rlt.rundir.samples import read_samples

SCRIPT = Path(__file__).parents[2] / "scripts" / "examples" / "rlt_in_one_file.py"
TEACHER, STUDENT = "Explain the solution.", "Think and then solve."


@pytest.fixture(scope="module")
def copy() -> ModuleType:
    """Return the script as a module."""
    spec = spec_from_file_location("rlt_in_one_file", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def encode(tiny_tokenizer):
    """Return the quickstart's encoding of a whole text."""
    return lambda text: list(tiny_tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_reward_by_hand(copy):
    # r_SS = mean(-1, -3) + 0.01 * -3 = -2.03;  d = 0.5, 0.1;  r_KL = 3 * 0.3 + 0.03 * 0.5 = 0.915
    solution, student, teacher = (
        torch.tensor([-1.0, -3.0]),
        torch.tensor([-1.5, -0.6]),
        torch.tensor([-1.0, -0.5]),
    )
    assert copy.reward(solution, student, teacher, True) == pytest.approx(-2.945)
    assert copy.reward(solution, student, teacher, False) == pytest.approx(-3.945)
    nothing = torch.zeros(0)  # r_KL = 3 * 1 + 0.03 * 1
    assert copy.reward(solution, nothing, nothing, True) == pytest.approx(-2.03 - 3.03)


def test_advantages_by_hand(copy):
    # mean 2, unbiased deviation 1
    assert copy.group_advantages([1.0, 2.0, 3.0], 3).tolist() == pytest.approx(
        [-0.9999, 0.0, 0.9999], abs=1e-4
    )


def test_its_own_vocabulary_spells_every_text(copy):
    text = copy.teacher_prompt("7*9+7*3+4", "4") + copy.steps_of("7*9+7*3+4") + " ".join(copy.VAGUE)
    assert copy.decode(copy.encode(text)) == text
    assert copy.steps_of("7*9+7*3+4") == "7*9=3\n3+7=0\n0*3=0\n0+4=4"


def test_both_layouts_are_the_framework_s(copy, encode, tiny_tokenizer):
    problem = Problem("", "7*9+7*3+4", "4")
    tags = TAG_STYLES["bespoke"]
    teacher = TeacherLayout(tiny_tokenizer, tags, TEACHER)
    student = StudentLayout(tiny_tokenizer, tags, STUDENT)
    assert encode(copy.teacher_prompt(problem.question, problem.solution)) == teacher.prompt_ids(problem)
    assert encode(copy.student_prefix(problem.question)) == student.prefix_ids(problem)
    before, content, after = map(encode, copy.student_suffix(problem.solution))
    suffix = student.suffix(problem)
    assert before + content + after == suffix.ids
    assert suffix.solution == slice(len(before), len(before) + len(content))
    controls = encode("<|im_start|><|im_end|><|endoftext|>")
    for text in (
        "7*9=3\n\n<|end_of_explanation|><|im_end|>",
        "We<|im_end|>",
        "7*9=3",
        "<|end_of_explanation|>",
    ):
        explanation, has_tag = copy.cut(encode(text), encode(copy.CLOSE)[0], controls)
        split = teacher.split(encode(text))
        assert (tuple(explanation), has_tag) == (split.token_ids, split.has_end_tag), text


@pytest.mark.slow
def test_rewards_and_one_update_are_the_framework_s(
    copy,
    encode,
    tiny_teacher,
    tiny_student,
    toy_problems,
    tmp_path,
    monkeypatch,
    request,
):
    from transformers import AutoModelForCausalLM

    near = request.getfixturevalue("nearby")
    monkeypatch.setattr("rlt.stages.teacher_rl.TeacherRLTrainer", RecordingTrainer)
    monkeypatch.setenv("RLT_TEST_RECORD", str(tmp_path))
    monkeypatch.setenv("RLT_TEST_REFERENCE", str(near))
    words = ["trainer.max_steps=1", "max_completion_length=96", "reward.solution_span=content"]
    words += [f"layout.teacher_prompt={TEACHER}", f"layout.student_prompt={STUDENT}"]
    words += [f"learning_rate={LEARNING_RATE}", "per_device_train_batch_size=8"]
    run_here(rl_words(tiny_teacher, tiny_student, toy_problems, tmp_path / "run", *words))
    samples = torch.load(tmp_path / "samples_0.pt")
    real = torch.load(tmp_path / "backward_0.pt")
    table = read_samples(tmp_path / "run" / "samples" / "step_000001.parquet")

    policy, reference, student = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for folder in (tiny_teacher, tiny_teacher, tiny_student)
    )
    reference.load_state_dict(weights(near / "reference"))
    questions, solutions = [row["question"] for row in table], [row["solution"] for row in table]
    prompts = [encode(copy.teacher_prompt(*pair)) for pair in zip(questions, solutions, strict=True)]
    assert prompts == [sample["prompt"] for sample in samples]
    completions = [sample["completion"] for sample in samples]
    controls = encode("<|im_start|><|im_end|><|endoftext|>")
    rewards = copy.rewards_of(questions, solutions, completions, (policy, student), encode, controls)
    assert rewards == pytest.approx([sample["reward"] for sample in samples], abs=1e-3)
    assert len({round(reward, 3) for reward in rewards}) == 8

    advantages = copy.group_advantages(rewards, 4)
    assert advantages.tolist() == pytest.approx([row["advantage"] for row in table], abs=1e-3)
    rows = list(zip(prompts, completions, strict=True))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    loss = copy.grpo_loss(policy, reference, rows, advantages)
    assert loss.item() == pytest.approx(sum(real["losses"]), abs=1e-4)
    copy.update(policy, optimizer, loss)
    after, before = weights(tmp_path / "run"), weights(tiny_teacher)

    for name, value in policy.named_parameters():
        gradient = real["gradients"][name]
        clear = gradient.abs() > 1e-4 * gradient.abs().max()  # Adam's first step is the gradient's sign
        moved, ours = (after[name] - before[name])[clear], (value.detach() - before[name])[clear]
        assert (moved - ours).abs().max() < 0.02 * LEARNING_RATE, name
        assert ours.abs().max() > 0.5 * LEARNING_RATE


def test_the_reference_moves(copy):
    ours, theirs = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        ours.weight.fill_(2.0)
        theirs.weight.fill_(1.0)
    copy.move_reference(theirs, ours)
    assert theirs.weight.item() == pytest.approx(0.9 * 2.0 + 0.1 * 1.0)


def test_it_imports_torch_and_transformers_alone():
    found = {
        line.split()[1].split(".")[0]
        for line in SCRIPT.read_text().splitlines()
        if line[:5] in ("impor", "from ")
    }
    assert found - set(sys.stdlib_module_names) == {"torch", "transformers"}
