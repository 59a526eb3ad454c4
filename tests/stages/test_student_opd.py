"""On-policy distillation on disk: each teacher and loss against a plain computation, and resumption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.stage_runs import (
    count_differences,
    interrupted_copy,
    largest_difference,
    later_win,
    run_here,
    run_processes,
    student_words,
    succeed,
    train_rows,
    weights,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlt.errors import ConfigError, NotFinite
from rlt.records import Problem
from rlt.rundir.samples import read_samples
from rlt.trainers.student_opd import StudentOPDTrainer

pytestmark = pytest.mark.slow
OPEN, CLOSE = "<|begin_of_thought|>\n\n", "<|end_of_thought|>"
SHARED = 1.3
SHARE = 0.3


@pytest.fixture(scope="module")
def thinker(tiny_student, toy_problems, tmp_path_factory) -> Path:
    """Return a student that thinks in its tags: fine-tuned on one trace per toy problem."""
    folder = tmp_path_factory.mktemp("thinker")
    problems = [json.loads(line) for line in toy_problems.read_text().splitlines()]
    traces = [{**row, "explanation": row["reasoning_trace"]} for row in problems]
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in traces))
    changes = ["layout.student_prompt=Think.", "learning_rate=3e-3", "train_batch_size=12"]
    changes += ["per_device_train_batch_size=12", "trainer.num_train_epochs=25"]
    changes += ["trainer.gradient_checkpointing=false"]
    words = student_words(tiny_student, folder / "traces.jsonl", folder / "student", *changes)
    return run_here(words, "student_sft")


@pytest.fixture(scope="module")
def words(thinker, tiny_teacher, toy_problems):
    """Return a function that gives the command-line words of a student_opd run into a folder."""

    def build(output: Path, *changes: str) -> list[str]:
        files = {
            "model_name_or_path": thinker,
            "teacher_model": tiny_teacher,
            "dataset_id_or_path": toy_problems,
            "output_dir": output,
        }
        if any(change.startswith("opd.teacher=") for change in changes):
            del files["teacher_model"]
        return later_win(
            "run_cfg=student_opd",
            *(f"{name}={path}" for name, path in files.items()),
            "model.dtype=float32",
            *(() if "opd.teacher=self" in changes else ("opd.dtype=float32",)),
            "generation.backend=transformers",
            "max_prompt_length=300",
            "max_completion_length=40",
            "num_generations=2",
            "train_batch_size=8",
            "per_device_train_batch_size=4",
            "learning_rate=1e-3",
            "trainer.gradient_checkpointing=false",
            "trainer.max_steps=1",
            "trainer.save_steps=0",
            "report_to=null",
            *changes,
        )

    return build


@dataclass
class Step:
    """What the trainer was given at its first step."""

    problems: list[Any] = field(default_factory=list)
    completions: list[Any] = field(default_factory=list)


@pytest.fixture
def first_step(monkeypatch) -> Iterator[Step]:
    """Return what the real `measure` is called with at the first step of a run."""
    step, measure = Step(), StudentOPDTrainer.measure

    def recorded(self, items, completions, *args, **kwargs):
        if not step.problems:
            step.problems = [item.problem for item in items]
            step.completions = list(completions)
        return measure(self, items, completions, *args, **kwargs)

    monkeypatch.setattr(StudentOPDTrainer, "measure", recorded)
    return step


def chat(tokenizer, system: str, question: str) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def plain(name: str, p: Tensor, q: Tensor) -> Tensor:
    """Return the summed divergence of (student's, teacher's) probabilities (N, K), as it is written."""
    if name == "forward_kl":
        return (q * (q / p).log()).sum()
    if name == "reverse_kl":
        return (p * (p / q).log()).sum()
    m = SHARE * q + (1 - SHARE) * p
    return (SHARE * q * (q / m).log() + (1 - SHARE) * p * (p / m).log()).sum()


@dataclass(frozen=True)
class Case:
    """A teacher with a loss, as the configuration says it and as the plain computation reads it."""

    changes: tuple[str, ...]
    support: str = "sampled"
    divergence: str = "reverse_kl"
    is_student: bool = False
    in_question: bool = False
    answer_coeff: float = 0.0


CASES = {
    "sampled": Case(()),
    "top_k": Case(("opd.support=top_k", "opd.top_k=4", "opd.divergence=forward_kl"), "top_k", "forward_kl"),
    "full": Case(("opd.support=full", "opd.divergence=js", f"opd.js_share={SHARE}"), "full", "js"),
    "start": Case(("opd.teacher=start", "opd.support=full"), "full", is_student=True),
    "self_in_question": Case(
        ("opd.teacher=self", "opd.solution_in=question", "opd.question={question} is {solution}"),
        *("sampled", "reverse_kl", True, True),
    ),
    "self_full": Case(
        ("opd.teacher=self", "opd.support=full", "opd.divergence=js", f"opd.js_share={SHARE}"),
        *("full", "js", True),
    ),
    "answers": Case(("opd.answer_coeff=0.5",), answer_coeff=0.5),
    "answers_corrected": Case(
        (
            *("opd.answer_coeff=1", "trainer_args.vllm_importance_sampling_correction=true"),
            "trainer_args.vllm_importance_sampling_mode=sequence_truncate",
        ),
        answer_coeff=1,
    ),
    "answers_top_k": Case(
        ("opd.answer_coeff=2", "opd.support=top_k", "opd.top_k=4", "opd.divergence=forward_kl"),
        *("top_k", "forward_kl"),
        answer_coeff=2,
    ),
}


@dataclass(frozen=True)
class Sides:
    """A completion as both models read it."""

    student: list[int]
    teacher: list[int]
    count: int
    """The tokens that are judged."""
    end: int
    """Where they end in the student's ids; in the teacher's they are the last."""

    def distributions(self, student, teacher) -> tuple[Tensor, Tensor]:
        """Return both models' logits of the judged tokens, (count, V)."""
        ours = student(torch.tensor([self.student])).logits[0, self.end - self.count - 1 : self.end - 1]
        return ours, teacher(torch.tensor([self.teacher])).logits[0, -self.count - 1 : -1]


def sides(case: Case, tokenizer, system: str, problem, ids: list[int]) -> Sides:
    """Return a completion laid out by hand, from texts."""

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    asked = encode(chat(tokenizer, "Think.", problem.question))
    if case.in_question:
        before = encode(chat(tokenizer, "Think.", f"{problem.question} is {problem.solution}"))
        return Sides(asked + ids, before + ids, len(ids), len(asked + ids))
    close, theirs = (tokenizer.convert_tokens_to_ids(f"<|end_of_{x}|>") for x in ("thought", "explanation"))
    opening = encode(OPEN)
    assert ids[: len(opening)] == opening
    stop = ids.index(close) + 1 if close in ids else len(ids)
    own = [theirs if i == close else i for i in ids[len(opening) : stop]]
    solved = f"<|begin_of_solution|>\n\n{problem.solution}\n\n<|end_of_solution|>"
    text = chat(tokenizer, system, problem.question) + f"{solved}\n\n<|begin_of_explanation|>\n\n"
    return Sides(asked + ids, encode(text) + own, len(own), len(asked) + stop)


def divergence(case: Case, tokenizer, ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the summed divergence of some tokens, from logits (N, V)."""
    p, q = (ours / SHARED).softmax(1), (theirs / SHARED).softmax(1)
    order = torch.arange(q.shape[1])  # what closes an explanation is what closes a thought
    a, b = (tokenizer.convert_tokens_to_ids(f"<|end_of_{x}|>") for x in ("thought", "explanation"))
    order[a], order[b] = b, a
    q = q[:, order]
    if case.support == "top_k":
        top = q.topk(4, 1).indices
        p, q = (x.gather(1, top) for x in (p, q))
        p, q = (torch.cat([x, 1 - x.sum(1, keepdim=True)], 1) for x in (p, q))
    return plain(case.divergence, p, q)


def answer_loss(tokenizer, student, problem, ids: list[int]) -> tuple[Tensor, int]:
    """Return -log p_S, summed, of the tags and the reference solution around a completion's thought."""
    close = tokenizer.convert_tokens_to_ids(CLOSE)
    if close not in ids:
        return torch.zeros((), dtype=torch.float64), 0
    stop = ids.index(close)
    solved = f"\n\n<|begin_of_solution|>\n\n{problem.solution}\n\n<|end_of_solution|><|im_end|>"
    asked, opening, answer = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (chat(tokenizer, "Think.", problem.question), OPEN, solved)
    )
    whole = [*asked, *ids[: stop + 1], *answer]
    logprobs = student(torch.tensor([whole])).logits[0].log_softmax(1)
    around = [*range(len(opening)), *range(stop + 1, stop + 1 + len(answer))]  # what closes is judged
    return -sum(logprobs[len(asked) + i - 1, whole[len(asked) + i]] for i in around), len(around)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_of_a_step(name, words, thinker, tiny_teacher, tmp_path, first_step):
    """The logged loss and gradient norm, from whole float64 passes over texts laid out by hand."""
    case = CASES[name]
    shared = [] if case.support == "sampled" else [f"opd.temperature={SHARED}"]
    output = run_here(words(tmp_path / "run", *case.changes, *shared), "student_opd")
    row = train_rows(output)[1]

    tokenizer = AutoTokenizer.from_pretrained(thinker)
    student = AutoModelForCausalLM.from_pretrained(thinker, dtype=torch.float64)
    folder = thinker if case.is_student else tiny_teacher
    teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).requires_grad_(False)
    total, distance, count = torch.zeros((), dtype=torch.float64), 0.0, 0
    answers, num_around, num_taught = torch.zeros((), dtype=torch.float64), 0, 0
    for problem, completion in zip(first_step.problems, first_step.completions, strict=True):
        side = sides(case, tokenizer, teacher_prompt(output), problem, list(completion.token_ids))
        ours, theirs = side.distributions(student, teacher)
        places = torch.arange(side.count)
        log_s = ours.log_softmax(1)[places, side.student[side.end - side.count : side.end]]
        log_t = theirs.log_softmax(1)[places, side.teacher[-side.count :]]
        distance += (log_s - log_t).sum().item()
        count += side.count
        # On the sampled token: the gradient of what is minus the advantage times log p.
        sampled = ((log_s - log_t).detach() * log_s).sum()
        total = total + (sampled if case.support == "sampled" else divergence(case, tokenizer, ours, theirs))
        if case.answer_coeff:
            loss, num = answer_loss(tokenizer, student, problem, list(completion.token_ids))
            answers, num_around, num_taught = answers + loss, num_around + num, num_taught + (num > 0)
    ((total + case.answer_coeff * answers) / count).backward()
    norm = torch.stack([p.grad.norm() for p in student.parameters() if p.grad is not None]).norm()

    assert count > 40
    expected = distance / count if case.support == "sampled" else total.item() / count
    assert row["loss"] == pytest.approx(expected + case.answer_coeff * answers.item() / count, rel=1e-4)
    if case.answer_coeff:
        assert num_around > 20
        assert row["answer_taught"] == pytest.approx(num_taught / len(first_step.completions))
        assert row["answer_loss"] == pytest.approx(answers.item() / num_around, rel=1e-4)
        assert row["drift/max"] < 1e-3  # of the sampled tokens alone, as the ratio is
    assert row.get("sampling/importance_sampling_ratio/min", 1) > 0.99
    assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert row.get("divergence", expected) == pytest.approx(expected, rel=1e-4)
    assert row["reverse_kl"] == pytest.approx(distance / count, rel=0.3)  # its mean is over completions


def teacher_prompt(output: Path) -> str:
    """Return the system prompt that the teacher of a run was asked under."""
    import yaml

    from rlt.data.prompts import teacher_prompt as text_of
    from rlt.formats.tags import TAG_STYLES

    config = yaml.safe_load((output / "config.yaml").read_text())
    return text_of(config["layout"].get("teacher_prompt", "default"), TAG_STYLES["bespoke"])


@pytest.fixture(scope="module")
def averaged(words, tmp_path_factory) -> Path:
    """Return the directory of a run whose teacher is the student's moving average."""
    changes = ["opd.teacher=ema", "opd.ema_share=0.25", "opd.support=top_k", "trainer.max_steps=3"]
    changes += ["trainer.save_steps=1", "learning_rate=1e-2"]
    return run_here(words(tmp_path_factory.mktemp("ema") / "run", *changes), "student_opd")


def test_the_average_follows_the_student(averaged: Path, thinker: Path):
    average = {name: value.double() for name, value in weights(thinker).items()}
    for step in (1, 2):
        policy = weights(averaged / f"checkpoint-{step}")
        average = {name: 0.75 * value + 0.25 * policy[name].double() for name, value in average.items()}
        found: dict[str, Tensor] = {}
        for file in (averaged / f"checkpoint-{step}" / "teacher").glob("*.safetensors"):
            found |= load_file(file)
        assert found.keys() == average.keys()
        assert max((found[name] - average[name]).abs().max().item() for name in found) < 1e-6
        assert largest_difference(policy, weights(thinker)) > 1e-3


def test_a_resumed_run_is_the_run(averaged: Path, words, tmp_path):
    copy = interrupted_copy(averaged, tmp_path / "copy", step=1)
    changes = ["opd.teacher=ema", "opd.ema_share=0.25", "opd.support=top_k", "trainer.max_steps=3"]
    changes += ["trainer.save_steps=1", "learning_rate=1e-2", "resume_from=latest"]
    run_here(words(copy, *changes), "student_opd")
    assert count_differences(copy, averaged) == 0


def test_a_student_without_thoughts_ends_the_run(words, tiny_student, tmp_path):
    changes = [f"model_name_or_path={tiny_student}", "layout.student_prompt=Think."]
    with pytest.raises(NotFinite, match="no completion begins with a thought"):
        run_here(words(tmp_path / "run", *changes), "student_opd")


def test_the_run_directory(averaged: Path):
    record = json.loads((averaged / "run.json").read_text())
    assert (record["stage"], record["status"]) == ("student_opd", "finished")
    card = (averaged / "README.md").read_text()
    assert "gave each of their tokens its probability" in card
    assert "`opd.teacher` | `ema`" in card
    assert "answer_log_prob_coeff" not in card
    assert "distance from the teacher" in (averaged / "report.html").read_text()
    step = train_rows(averaged)[1]
    assert {"monitor/malformed", "monitor/length_ratio", "reverse_kl", "divergence"} <= step.keys()
    assert not {"monitor/kl_share", "advantage"} & step.keys()
    assert step["drift/max"] < 1e-3


def test_two_processes_under_zero3(words, tmp_path):
    """A sharded student against a sharded teacher's whole distribution, and the same in one process."""
    changes = [
        "opd.support=full",
        "opd.divergence=js",
        "opd.answer_coeff=1",
        "per_device_train_batch_size=2",
        "trainer.max_steps=2",
    ]
    alone = run_here(words(tmp_path / "one", *changes), "student_opd")
    done = run_processes("zero3", words(tmp_path / "two", *changes, "opd.placement=zero3"))
    succeed(done)
    ours, theirs = train_rows(tmp_path / "two"), train_rows(alone)
    for name in ("loss", "divergence", "answer_loss", "answer_taught", "reverse_kl", "grad_norm"):
        assert ours[1][name] == pytest.approx(theirs[1][name], rel=1e-3), name
    assert ours.keys() == theirs.keys()


@pytest.mark.long
def test_bfloat16_sharded_is_close_to_float32(words, thinker, tmp_path):
    changes = ["opd.support=full", "opd.divergence=js", "opd.answer_coeff=1"]
    changes += ["per_device_train_batch_size=2"]
    narrow = ["model.dtype=bfloat16", "opd.dtype=bfloat16", "opd.placement=zero3"]
    alone = run_here(words(tmp_path / "one", *changes), "student_opd")
    done = run_processes("zero3", words(tmp_path / "two", *changes, *narrow), precision="bf16")
    succeed(done)
    ours, theirs = train_rows(tmp_path / "two")[1], train_rows(alone)[1]
    # Other samples than in float32, of the same student and the same problems.
    assert ours["divergence"] == pytest.approx(theirs["divergence"], rel=0.3)
    assert ours["reverse_kl"] == pytest.approx(theirs["reverse_kl"], rel=0.3)
    # The answers' loss depends on the samples more than that: of the very ones, in float64.
    tokenizer = AutoTokenizer.from_pretrained(thinker)
    student = AutoModelForCausalLM.from_pretrained(thinker, dtype=torch.float64)
    total, count = 0.0, 0
    for row in read_samples(tmp_path / "two/samples/step_000001.parquet"):
        problem = Problem(row["problem_id"], row["question"], row["solution"])
        ids = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        loss, num = answer_loss(tokenizer, student, problem, ids)
        total, count = total + float(loss), count + num
    assert ours["answer_loss"] == pytest.approx(total / count, rel=0.05)
    assert 0 < ours["grad_norm"] < 1e3


def test_a_whole_vocabulary_needs_the_same_tokens(words, qwen_student, tmp_path):
    changes = [f"teacher_model={qwen_student}", "opd.support=full"]
    with pytest.raises(ConfigError, match=r"take opd\.support=sampled"):
        run_here(words(tmp_path / "run", *changes), "student_opd")


def test_a_teacher_with_another_tokenizer(words, qwen_student, tmp_path):
    output = run_here(words(tmp_path / "run", f"teacher_model={qwen_student}"), "student_opd")
    row = train_rows(output)[1]
    assert row["loss"] > 0
    assert row["judged_tokens"] > 5
