"""The rewards: of explanations by a frozen student, and of answers by a grader."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.setting import setting

OWN_STUDENTS = ("policy", "reference")
"""What student_model may be called besides a folder and a Hub name."""
LIKELIHOOD = "likelihood"
"""The value of correctness.grader that takes log p(solution | own thought) in place of verdicts."""
REDUCTIONS = ("mean", "sum", "min", "max", "median", "first_quartile", "last_quartile")
TRANSFORMS = ("none", "exp", "one_minus_exp")
SOLUTION_SPANS = ("content", "released")


@dataclass
class LengthSettings:
    """Length shaping: explanations outside of a range of tokens cost their relative distance from it."""

    weight: float = setting(
        0.0, "reward of an explanation of no tokens, or twice max_tokens, is less by this; 0 is off", ge=0
    )
    min_tokens: int = setting(0, "shorter explanations cost (min_tokens - n) / min_tokens", ge=0)
    max_tokens: int | None = setting(
        None, "longer explanations cost (n - max_tokens) / max_tokens; null: no limit", gt=0
    )


@dataclass
class CopySettings:
    """Solution-copy penalty: the share of the solution's n-word sequences found in the explanation."""

    weight: float = setting(0.0, "subtracted where all of the solution is copied; 0 is off", ge=0)
    n: int = setting(8, "words of a sequence; a shorter solution costs nothing", gt=0)


@dataclass
class FunctionSettings:
    """A reward function of the user."""

    path: str = setting("", "MODULE:FUNCTION; it is code that runs with your rights")
    weight: float = setting(1.0, "what one unit of its value is worth; 0 is off")


@dataclass
class StudentSettings:
    """One more student that judges explanations beside student_model."""

    name: str = setting("", "what its metrics are called: NAME/r_ss, NAME/r_kl")
    model: str = setting("", "a folder or a Hub name")
    weight: float = setting(1.0, "its share in reward.combine=mean, where student_model has 1")
    temperature: float | None = setting(
        None, "its logits are divided by this; null: reward.student_temperature"
    )
    prompt: str | None = setting(None, "its system prompt; null: layout.student_prompt")


@dataclass
class AnswerSettings:
    """Correctness: the share of right answers that the student gives after reading the explanation."""

    weight: float = setting(0.0, "added where all answers are right; 0 is off", ge=0)
    num_samples: int = setting(4, "answers sampled per explanation", gt=0)
    temperature: float = setting(0.7, "sampling temperature of the answers; 0 is greedy", ge=0)
    max_tokens: int = setting(512, "tokens of an answer; one that is cut counts as wrong", gt=0)
    servers: list[str] = setting(
        [], "addresses of vLLM servers that serve student_model; empty: the student in this process answers"
    )
    grader: str = setting(
        "math",
        "math: equal by math-verify; countdown: the reference's numbers, each once, and its value",
        choices=("math", "countdown"),
    )
    grading_seconds: float = setting(
        5.0, "CPU seconds for grading an answer; one that needs more is wrong", gt=0
    )


@dataclass
class RewardSettings:
    """The student-likelihood reward (method section 3). Its coefficients are root keys."""

    student_temperature: float = setting(0.7, "the student's logits are divided by this", gt=0)
    answer_reductions: list[str] = setting(
        ["mean", "min"], "reductions of the solution's log-probabilities, one per answer_log_prob_coeff"
    )
    kl_reductions: list[str] = setting(
        ["mean", "max"], "reductions of the explanation's divergence, one per kl_penalty_reward_coeff"
    )
    solution_span: str = setting(
        "released",
        "tokens that r_SS counts: content, those wholly inside the solution; released, also the blank line "
        "after it, alone or joined with the last character (does the student know that it ends here?)",
        choices=SOLUTION_SPANS,
    )
    answer_transform: str = setting("none", "elementwise map before reducing", choices=TRANSFORMS)
    answer_baseline: bool = setting(
        False,
        "subtract from r_SS what it is with an empty explanation: the student reads each solution once more",
    )
    answer_result_transform: str = setting(
        "none", "map of r_SS itself, after reducing and the baseline", choices=TRANSFORMS
    )
    answer_result_clip: list[float] = setting([], "[low, high] on r_SS itself, after that; empty is off")
    answer_length_norm: str = setting(
        "none",
        "what the reduced log-probabilities are divided by: log, 1 + log of the explanation's tokens (NOVER)",
        choices=("none", "log"),
    )
    answer_group: str = setting(
        "none",
        "r_SS among the explanations of its problem in a step, last of all: its rank, from 1/G to 1 (NOVER), "
        "or how much it raises the log of their mean of exp r_SS (log_mean_exp: JEPO)",
        choices=("none", "rank", "log_mean_exp"),
    )
    kl_transform: str = setting("none", "elementwise map before reducing", choices=TRANSFORMS)
    answer_clip: list[float] = setting([], "[low, high] on the raw log-probabilities; empty is off")
    kl_clip: list[float] = setting([], "[low, high] on the raw divergence; empty is off")
    kl_estimator: str = setting(
        "k1",
        "k1: log-ratio of the sampled token; k3: exp(-d) - 1 + d; student_nll: -log p of the student alone",
        choices=("k1", "k3", "student_nll"),
    )
    teacher_logprobs: str = setting(
        "policy",
        "where the teacher's log-probabilities come from: the trainer's policy or the engine's samples",
        choices=("policy", "engine"),
    )
    missing_tag_penalty: float = setting(1.0, "subtracted when the closing explanation tag is missing", ge=0)
    text_after_tag_penalty: float = setting(0.0, "subtracted when text follows the closing tag", ge=0)
    empty_explanation_divergence: float = setting(
        1.0, "divergence that an explanation without tokens counts with, in every reduction", ge=0
    )
    placement: str = setting(
        "replicated",
        "the frozen student: a copy on each GPU, sharded with ZeRO-3, resting in host memory between uses, "
        "or behind servers that `python -m rlt.launch.student_server` starts",
        choices=("replicated", "zero3", "cpu_offload", "server"),
    )
    servers: list[str] = setting(
        [], "base addresses of the student's servers, for placement server, e.g. [http://127.0.0.1:8100]"
    )
    verify_server: bool = setting(
        True, "before anything is paid, compare a served or sharded student with a plain load of it here"
    )
    dtype: str = setting("bfloat16", "dtype of the student's weights", choices=("bfloat16", "float32"))
    tokens_per_batch: int = setting(32768, "padded tokens of one scoring forward pass", gt=0)
    students: list[StudentSettings] = setting(
        [], "further students, e.g. [{name: small, model: PATH, weight: 0.5}]"
    )
    combine: str = setting(
        "mean",
        "several students: the mean by weight, or for each explanation the one with the lowest r_ss - r_kl",
        choices=("mean", "min"),
    )
    length: LengthSettings = setting(LengthSettings, "length shaping")
    copy: CopySettings = setting(CopySettings, "solution-copy penalty")
    answers: AnswerSettings = setting(AnswerSettings, "correctness of the student's own answers")
    functions: list[FunctionSettings] = setting(
        [], "your own reward functions, e.g. [{path: my_rewards:brevity, weight: 0.5}]"
    )


@dataclass
class CorrectnessSettings:
    """What student_rl pays for: right answers, the form of an answer that is wrong, or the likelihood of the
    solution after the student's own thought."""

    weight: float = setting(
        1.0, "reward of a right answer; with grader likelihood, what one unit of r_SS is worth", gt=0
    )
    format_weight: float = setting(
        0.1, "reward of a wrong answer whose thought and solution are in the student's tags", ge=0
    )
    grader: str = setting(
        "math",
        "math: equal by math-verify; countdown: the reference's numbers, each once, and its value; "
        "likelihood: no verdicts, but r_SS of the student's own thought as student_model reads it",
        choices=("math", "countdown", LIKELIHOOD),
    )
    likelihood_weight: float = setting(
        0.0, "beside the grader's verdicts: what one unit of that r_SS is worth; 0 is off", ge=0
    )
    grading_seconds: float = setting(
        5.0, "CPU seconds for grading an answer; one that needs more is wrong", gt=0
    )
