"""Settings of `opd`: on-policy distillation by a teacher that knows the solution."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.setting import setting

TEACHERS = ("model", "ema", "self", "start")
DIVERGENCES = ("forward_kl", "reverse_kl", "js")
SUPPORTS = ("sampled", "top_k", "full")
OPD_LOSS_TYPES = ("grpo", "dapo")
"""Reductions of a divergence: a mean over rows of means over tokens, or over all tokens of a step."""


@dataclass
class OpdSettings:
    """student_opd: who judges the student's tokens, what it reads, and how far the student is from it.

    Formulas and sources are in docs/opd.md.
    """

    teacher: str = setting(
        "model",
        "model: teacher_model, such as one that teacher_rl has trained; ema: the moving average of the "
        "student's own weights; self: the student as it is at each step; start: the student as it was at the "
        "start, frozen. Each of them reads the solution",
        choices=TEACHERS,
    )
    solution_in: str = setting(
        "explanation",
        "explanation: the teacher's own layout, solution first, with the student's thought in the place of "
        "the explanation; question: the user's turn holds question and solution as opd.question says, in the "
        "student's layout, and the student's whole completion follows",
        choices=("explanation", "question"),
    )
    question: str = setting(
        "{question}\n\nA right solution, for your eyes only:\n\n{solution}\n\nThink it through in your own "
        "words, and answer as if you had found it yourself.",
        "opd.solution_in=question: the teacher's user turn, with {question} and {solution} where they go",
    )
    open_thought: bool = setting(
        False,
        "opd.solution_in=explanation: the student's prompt opens the thought, for students that do not do so "
        "by themselves; when it is evaluated, nobody opens it",
    )
    support: str = setting(
        "sampled",
        "tokens of the vocabulary that a divergence counts: the sampled one alone (a policy gradient that "
        "estimates the reverse KL), the teacher's opd.top_k likeliest and all others as one, or all of them",
        choices=SUPPORTS,
    )
    divergence: str = setting(
        "reverse_kl",
        "KL(student || teacher), KL(teacher || student), or the generalised Jensen-Shannon divergence; the "
        "last two need opd.support=top_k or full",
        choices=DIVERGENCES,
    )
    js_share: float = setting(0.5, "js: the teacher's share in the mixture", gt=0, lt=1)
    top_k: int = setting(32, "opd.support=top_k: the teacher's likeliest tokens", gt=0)
    temperature: float | None = setting(
        None,
        "opd.support=top_k or full: both models' logits are divided by it; null: the sampling temperature",
        gt=0,
    )
    answer_coeff: float = setting(
        0.0,
        "opd.solution_in=explanation: weight of -log p_S, at the sampling temperature, of each token around "
        "the student's thought: its tags and, behind it, the reference solution in place of its own answer",
        ge=0,
    )
    ema_share: float = setting(0.05, "ema: share of the student in each mix", gt=0, le=1)
    ema_steps: int = setting(1, "ema: steps between mixes", gt=0)
    placement: str = setting(
        "replicated",
        "the teacher: a copy on each GPU, sharded with ZeRO-3, resting in host memory between uses, or "
        "behind servers that `python -m rlt.launch.student_server` starts",
        choices=("replicated", "zero3", "cpu_offload", "server"),
    )
    servers: list[str] = setting(
        [], "base addresses of the teacher's servers, for placement server, e.g. [http://127.0.0.1:8100]"
    )
    verify_server: bool = setting(
        True, "before the first step, compare a served or sharded teacher with a plain load of it here"
    )
    dtype: str = setting("bfloat16", "dtype of the teacher's weights", choices=("bfloat16", "float32"))
    tokens_per_batch: int = setting(32768, "padded tokens of one forward pass of the teacher", gt=0)
