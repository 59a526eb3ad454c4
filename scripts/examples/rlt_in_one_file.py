#!/usr/bin/env python3
"""The whole method in one file, to read: warm-up, group sampling, reward, GRPO step, moving reference.

    .venv/bin/python scripts/examples/rlt_in_one_file.py [--base-steps 600] [--rl-steps 20] [--seed 0]

torch and transformers alone, on a CPU, in the quickstart's toy world: questions are chains such as
`7*9+7*3+4`, read from left to right, of which the last digit counts. Most explanations in the corpus are
vague. RL rewards those that make a frozen student find the solution, so steps win over vague words. No answer
is ever checked.

It does without what the framework adds: vLLM servers, several processes, checkpoints, real tokenizers and
chat templates, memory, checks. tests/trainers/test_one_file.py compares rewards and one update with the
framework.

Axes: B rows, T tokens, V vocabulary, G completions of one problem.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

# ---- the toy world -------------------------------------------------------------------------------------

VAGUE = [
    "We take the numbers in order.",
    "We read the question with care.",
    "This is easy.",
    "The rest is clear.",
]
LESSONS = {"good": 0.9, "vague": 0.1}  # while the base learns to calculate
CORPUS = {"good": 0.25, "vague": 0.72, "faulty": 0.03}  # what it imitates afterwards


def new_question(rng: random.Random) -> str:
    """Return a chain of five digits."""
    return str(rng.randrange(10)) + "".join(rng.choice("+*") + str(rng.randrange(10)) for _ in range(4))


def steps_of(question: str, wrong_step: int = -1) -> str:
    """Return a chain step by step, one a line; the last character is the solution."""
    value, lines = int(question[0]), []
    for number, (operator, digit) in enumerate(zip(question[1::2], question[2::2], strict=True)):
        result = value + int(digit) if operator == "+" else value * int(digit)
        result = (result + (number == wrong_step)) % 10
        lines.append(f"{value}{operator}{digit}={result}")
        value = result
    return "\n".join(lines)


def solution_of(question: str) -> str:
    """Return the last digit."""
    return steps_of(question)[-1]


def explain(question: str, rng: random.Random, shares: dict[str, float]) -> str:
    """Return an explanation of a random kind."""
    kind = rng.choices(list(shares), list(shares.values()))[0]
    if kind == "vague":
        return " ".join(rng.sample(VAGUE, 2))
    return steps_of(question, rng.randrange(4) if kind == "faulty" else -1)


# ---- text: the same explanation in two layouts ---------------------------------------------------------

END, PAD = "<|im_end|>", "<|endoftext|>"
CLOSE = "<|end_of_explanation|>"
TAGS = [
    f"<|{side}_of_{part}|>" for part in ("thought", "solution", "explanation") for side in ("begin", "end")
]
WORDS = sorted({word for text in VAGUE for word in re.findall(r" ?[A-Za-z]+", text)})
ROLES = [
    "<|im_start|>",
    "system\n",
    "user\n",
    "assistant\n",
    "Explain the solution.",
    "Think and then solve.",
]
VOCABULARY = [PAD, END, *TAGS, *ROLES, *WORDS, "\n\n", *"\n .+*=0123456789"]
_TOKEN = re.compile("|".join(re.escape(token) for token in sorted(VOCABULARY, key=len, reverse=True)))
Encode = Callable[[str], list[int]]
Row = tuple[list[int], list[int]]
"""A context, and what follows it."""


def encode(text: str) -> list[int]:
    """Return the ids of a text of this world."""
    return [VOCABULARY.index(token) for token in _TOKEN.findall(text)]


def decode(ids: Sequence[int]) -> str:
    """Return the text of ids."""
    return "".join(VOCABULARY[i] for i in ids)


def chat(system: str, question: str) -> str:
    """Return a chat up to the assistant's turn."""
    turns = f"<|im_start|>system\n{system}{END}\n<|im_start|>user\n{question}{END}\n"
    return f"{turns}<|im_start|>assistant\n"


def teacher_prompt(question: str, solution: str) -> str:
    """Return what the teacher reads: it knows the solution and writes the explanation next."""
    block = f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>"
    return f"{chat('Explain the solution.', question)}{block}\n\n<|begin_of_explanation|>\n\n"


def student_prefix(question: str) -> str:
    """Return what the student reads before the explanation, which is its own thought to it."""
    return f"{chat('Think and then solve.', question)}<|begin_of_thought|>\n\n"


def student_suffix(solution: str) -> tuple[str, str, str]:
    """Return what follows the explanation; the middle part is the solution, which r_SS counts."""
    return "<|end_of_thought|>\n\n<|begin_of_solution|>\n\n", solution, f"\n\n<|end_of_solution|>{END}"


def cut(completion: Sequence[int], close: int, controls: Sequence[int]) -> tuple[list[int], bool]:
    """Return the explanation, up to its closing tag or a control token, and whether the tag is there."""
    for place, token in enumerate(completion):
        if token == close or token in controls:
            return list(completion[:place]), token == close
    return list(completion), False


# ---- models --------------------------------------------------------------------------------------------


def new_model() -> Qwen2ForCausalLM:
    """Return a random Qwen2 of 0.3 million parameters."""
    size = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=len(VOCABULARY), pad_token_id=0, **size, **heads))


def logprobs(model: Qwen2ForCausalLM, rows: Sequence[Row], temperature: float) -> list[Tensor]:
    """Return the log-probability of each token that follows a row's context, given all before it."""
    ids_BT = torch.zeros(len(rows), max(len(a) + len(b) for a, b in rows), dtype=torch.long)
    for ids_T, (context, following) in zip(ids_BT, rows, strict=True):
        ids_T[: len(context) + len(following)] = torch.tensor(context + following)  # padding is on the right
    logits_BTV = model(input_ids=ids_BT).logits[:, :-1] / temperature
    chosen_BT = torch.log_softmax(logits_BTV, -1).gather(2, ids_BT[:, 1:, None])[..., 0]
    return [p_T[len(a) - 1 : len(a) + len(b) - 1] for p_T, (a, b) in zip(chosen_BT, rows, strict=True)]


def fit(
    model: Qwen2ForCausalLM, batches: Callable[[int], list[Row]], steps: int, learning_rate: float
) -> None:
    """Supervised fine-tuning: the likelihood of what follows each context; cosine schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    for step in range(steps):
        warmup = min(1.0, (step + 1) / (0.05 * steps + 1))
        optimizer.param_groups[0]["lr"] = (
            learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        loss = -torch.cat(logprobs(model, batches(step), 1.0)).mean()
        update(model, optimizer, loss)
        if (step + 1) % 50 == 0:
            print(f"  step {step + 1}/{steps}  loss {loss.item():.3f}")


def update(model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one optimizer step with the gradient norm clipped to 1."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def sample_group(model: Qwen2ForCausalLM, prompts: Sequence[list[int]], size: int) -> list[list[int]]:
    """Return `size` completions of each prompt, group by group, at the sampling temperature."""
    ids_BT = torch.tensor(
        [prompt for prompt in prompts for _ in range(size)]
    )  # prompts are equally long here
    written = model.generate(
        input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=48, do_sample=True,
        temperature=TEMPERATURE, top_k=0, top_p=1.0, eos_token_id=VOCABULARY.index(END), pad_token_id=0,
    )[:, ids_BT.shape[1] :].tolist()  # fmt: skip
    return [row[: row.index(1) + 1] if 1 in row else row for row in written]  # up to the end of the turn


# ---- the method ----------------------------------------------------------------------------------------

TEMPERATURE = 0.7
"""Of sampling, of both models in the reward, and of the loss."""
BETA = 0.04
"""Weight of the divergence from the reference, in the loss."""


def reward(solution_S: Tensor, student_T: Tensor, teacher_T: Tensor, has_tag: bool) -> float:
    """Return r_SS - r_KL + format (paper, section 3; released coefficients).

    `solution_S`, `student_T`: the student's log-probabilities of solution and explanation; `teacher_T`: the
    teacher's of the explanation. An explanation without tokens counts with a divergence of 1.
    """
    r_ss = 1.0 * solution_S.mean() + 0.01 * solution_S.min()
    d_T = teacher_T - student_T if len(student_T) else torch.ones(1)
    r_kl = 3.0 * d_T.mean() + 0.03 * d_T.max()
    return float(r_ss - r_kl - (0.0 if has_tag else 1.0))


@torch.no_grad()
def rewards_of(
    questions: Sequence[str],
    solutions: Sequence[str],
    completions: Sequence[list[int]],
    models: tuple[Qwen2ForCausalLM, Qwen2ForCausalLM],
    encode: Encode = encode,
    controls: Sequence[int] = (0, 1),
) -> list[float]:
    """Return the reward of each completion; `models` are teacher and frozen student."""
    cuts = [cut(completion, encode(CLOSE)[0], controls) for completion in completions]
    asked, read = [], []
    for question, solution, (explanation, _) in zip(questions, solutions, cuts, strict=True):
        before, content, after = (encode(part) for part in student_suffix(solution))
        asked.append((encode(teacher_prompt(question, solution)), explanation))
        read.append((encode(student_prefix(question)), explanation + before + content + after))
    teacher, student = (logprobs(m, rows, TEMPERATURE) for m, rows in zip(models, (asked, read), strict=True))
    found = []
    for solution, (explanation, has_tag), teacher_T, student_T in zip(
        solutions, cuts, teacher, student, strict=True
    ):
        start = len(explanation) + len(encode(student_suffix(solution)[0]))
        solution_S = student_T[start : start + len(encode(solution))]
        found.append(reward(solution_S, student_T[: len(explanation)], teacher_T, has_tag))
    return found


def group_advantages(rewards: Sequence[float], size: int) -> Tensor:
    """Return how much better each completion is than its group: (r - mean) / (std + 1e-4)."""
    r_GG = torch.tensor(rewards).view(-1, size)
    return ((r_GG - r_GG.mean(1, keepdim=True)) / (r_GG.std(1, keepdim=True) + 1e-4)).flatten()


def grpo_loss(
    policy: Qwen2ForCausalLM, reference: Qwen2ForCausalLM, rows: Sequence[Row], advantages_B: Tensor
) -> Tensor:
    """Return the loss of prompts with their completions: mean over tokens, then over rows."""
    with torch.no_grad():
        reference_logprobs = logprobs(reference, rows, TEMPERATURE)
    losses = []
    for p_T, ref_T, advantage in zip(
        logprobs(policy, rows, TEMPERATURE), reference_logprobs, advantages_B, strict=True
    ):
        ratio_T = torch.exp(p_T - p_T.detach())  # 1, with the policy's gradient: one update a generation
        k3_T = torch.exp(ref_T - p_T) - (ref_T - p_T) - 1
        losses.append((BETA * k3_T - ratio_T * advantage).mean())
    return torch.stack(losses).mean()


@torch.no_grad()
def move_reference(reference: Qwen2ForCausalLM, policy: Qwen2ForCausalLM, share: float = 0.9) -> None:
    """Set the reference to share * policy + (1 - share) * reference."""
    for theirs, ours in zip(reference.parameters(), policy.parameters(), strict=True):
        theirs.lerp_(ours, share)


def look(name: str, policy: Qwen2ForCausalLM, student: Qwen2ForCausalLM, questions: Sequence[str]) -> None:
    """Print reward and share of good explanations of held-out questions, and one explanation."""
    solutions = [solution_of(q) for q in questions]
    written = sample_group(
        policy, [encode(teacher_prompt(*pair)) for pair in zip(questions, solutions, strict=True)], 1
    )
    rewards = rewards_of(questions, solutions, written, (policy, student))
    texts = [decode(cut(ids, encode(CLOSE)[0], (0, 1))[0]).strip() for ids in written]
    good = sum(text == steps_of(q) for q, text in zip(questions, texts, strict=True)) / len(questions)
    print(f"{name}: reward {sum(rewards) / len(rewards):+.3f}, good explanations {good:.1%}")
    print(f"  {questions[0]}: {texts[0]!r}")


def main() -> None:
    """Train a base, warm it up as a teacher, and improve the teacher by RL."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base-steps", type=int, default=600, help="steps of the base model")
    parser.add_argument("--rl-steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    typed = parser.parse_args()
    torch.manual_seed(typed.seed)
    torch.set_num_threads(1)  # more gain nothing on so small a model
    rng = random.Random(typed.seed)

    def as_teacher(shares: dict[str, float]) -> Row:
        question = new_question(rng)
        written = f"{explain(question, rng, shares)}\n\n{CLOSE}{END}"
        return encode(teacher_prompt(question, solution_of(question))), encode(written)

    def as_student(shares: dict[str, float]) -> Row:
        question = new_question(rng)
        tail = "".join(student_suffix(solution_of(question)))
        return encode(student_prefix(question)), encode(f"{explain(question, rng, shares)}\n\n{tail}")

    def lessons_then_corpus(step: int) -> list[Row]:
        shares = LESSONS if step < 0.6 * typed.base_steps else CORPUS
        return [row for _ in range(32) for row in (as_teacher(shares), as_student(shares))]

    print("base model, in both layouts")
    base = new_model()
    fit(base, lessons_then_corpus, typed.base_steps, 3e-3)
    student = copy.deepcopy(base).requires_grad_(False)

    print("warm-up of the teacher")
    policy = copy.deepcopy(base)
    fit(policy, lambda _: [as_teacher(CORPUS) for _ in range(32)], 40, 5e-4)
    held_out = [new_question(rng) for _ in range(128)]
    look("before RL", policy, student, held_out)

    print("RL of the teacher: 8 problems x 16 explanations a step")
    reference = copy.deepcopy(policy).requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-4, weight_decay=0.0)
    for step in range(1, typed.rl_steps + 1):
        questions = [new_question(rng) for _ in range(8)]
        solutions = [solution_of(q) for q in questions]
        prompts = [encode(teacher_prompt(*pair)) for pair in zip(questions, solutions, strict=True)]
        completions = sample_group(policy, prompts, 16)
        each = [i for i in range(8) for _ in range(16)]
        rewards = rewards_of(
            [questions[i] for i in each], [solutions[i] for i in each], completions, (policy, student)
        )
        rows = [(prompts[i], completion) for i, completion in zip(each, completions, strict=True)]
        update(policy, optimizer, grpo_loss(policy, reference, rows, group_advantages(rewards, 16)))
        if step % 32 == 0:
            move_reference(reference, policy)
        print(f"  step {step}/{typed.rl_steps}  reward {sum(rewards) / len(rewards):+.3f}")
    look("after RL", policy, student, held_out)


if __name__ == "__main__":
    main()
