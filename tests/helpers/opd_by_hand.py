"""On-policy distillation by plain float64 passes: texts laid out by hand, the divergence as it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rlt.data.prompts import teacher_prompt as text_of
from rlt.formats.tags import TAG_STYLES

OPEN, CLOSE = "<|begin_of_thought|>\n\n", "<|end_of_thought|>"
SHARED = 1.3
SHARE = 0.3


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
    "offloaded": Case(
        ("opd.placement=cpu_offload", "opd.support=top_k", "opd.top_k=4", "opd.divergence=forward_kl"),
        *("top_k", "forward_kl"),
    ),
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


def answer_loss(tokenizer, student, problem, ids: list[int], temperature: float = 1.0) -> tuple[Tensor, int]:
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
    logprobs = (student(torch.tensor([whole])).logits[0] / temperature).log_softmax(1)
    around = [*range(len(opening)), *range(stop + 1, stop + 1 + len(answer))]  # what closes is judged
    return -sum(logprobs[len(asked) + i - 1, whole[len(asked) + i]] for i in around), len(around)


def teacher_prompt(output: Path) -> str:
    """Return the system prompt that the teacher of a run was asked under."""
    config = yaml.safe_load((output / "config.yaml").read_text())
    return text_of(config["layout"].get("teacher_prompt", "default"), TAG_STYLES["bespoke"])


@dataclass
class ByHand:
    """What a step must log, of sums over all of its judged tokens."""

    loss: float
    divergence: float
    distance: float
    """The mean of log p_S - log p_T of the sampled tokens."""
    answer_loss: float
    taught: float
    """The share of completions whose answer is taught."""
    count: int
    student: PreTrainedModel
    """With the gradients of the loss."""

    def gradient(self, *, of: str = "") -> Tensor:
        """Return the norm of the gradients of the weights whose name contains a text."""
        grads = [p.grad for name, p in self.student.named_parameters() if of in name and p.grad is not None]
        return torch.stack([grad.norm() for grad in grads]).norm()


def by_hand(
    case: Case, output: Path, student: Path, teacher: Path, step: Any, *, temperature: float = 1.0
) -> ByHand:
    """Return what a run must log of its first step, from whole passes in float64.

    `temperature` is the sampling one, of the sampled tokens and of the answers.
    """
    tokenizer = AutoTokenizer.from_pretrained(student)
    policy = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float64)
    judge = AutoModelForCausalLM.from_pretrained(student if case.is_student else teacher, dtype=torch.float64)
    judge.requires_grad_(False)
    total, distance, count = torch.zeros((), dtype=torch.float64), 0.0, 0
    answers, num_around, num_taught = torch.zeros((), dtype=torch.float64), 0, 0
    for problem, completion in zip(step.problems, step.completions, strict=True):
        side = sides(case, tokenizer, teacher_prompt(output), problem, list(completion.token_ids))
        ours, theirs = side.distributions(policy, judge)
        places = torch.arange(side.count)
        log_s = (ours / temperature).log_softmax(1)[places, side.student[side.end - side.count : side.end]]
        log_t = (theirs / temperature).log_softmax(1)[places, side.teacher[-side.count :]]
        distance += (log_s - log_t).sum().item()
        count += side.count
        # On the sampled token: the gradient of what is minus the advantage times log p.
        sampled = ((log_s - log_t).detach() * log_s).sum()
        total = total + (sampled if case.support == "sampled" else divergence(case, tokenizer, ours, theirs))
        if case.answer_coeff:
            loss, num = answer_loss(tokenizer, policy, problem, list(completion.token_ids), temperature)
            answers, num_around, num_taught = answers + loss, num_around + num, num_taught + (num > 0)
    ((total + case.answer_coeff * answers) / count).backward()
    found = (distance if case.support == "sampled" else total.item()) / count
    return ByHand(
        loss=found + case.answer_coeff * answers.item() / count,
        divergence=found,
        distance=distance / count,
        answer_loss=answers.item() / max(num_around, 1),
        taught=num_taught / len(step.completions),
        count=count,
        student=policy,
    )
