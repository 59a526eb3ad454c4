"""The rules of `reward` and `correctness`: what is paid for, and by which numbers."""

from __future__ import annotations

from rlt.config.judges import pays_likelihood
from rlt.config.schema import LIKELIHOOD, PLAIN_SAMPLING, REDUCTIONS, Config
from rlt.config.students import check_students
from rlt.errors import ConfigError


def check_reward(config: Config) -> None:
    _check_reductions(config, "kl_penalty_reward_coeff", "kl_reductions")
    _check_clip(config, "kl_clip")
    check_solution_score(config)


def check_solution_score(config: Config) -> None:
    """Raise ConfigError for the first broken rule of r_SS."""
    _check_reductions(config, "answer_log_prob_coeff", "answer_reductions")
    if not config.answer_log_prob_coeff:
        raise ConfigError("`answer_log_prob_coeff=[]` leaves no reward: give at least one, e.g. [1,0.01].")
    for name in ("answer_clip", "answer_result_clip"):
        _check_clip(config, name)


def _check_reductions(config: Config, coeff_name: str, name: str) -> None:
    coeff, reductions = getattr(config, coeff_name), getattr(config.reward, name)
    for reduction in reductions:
        if reduction not in REDUCTIONS:
            raise ConfigError(f"`reward.{name}` may hold {', '.join(REDUCTIONS)}, got '{reduction}'.")
    if len(coeff) != len(reductions):
        raise ConfigError(
            f"`{coeff_name}={_list(coeff)}` must have one number for each of "
            f"reward.{name}={_list(reductions)}: change one of the two."
        )


def _check_clip(config: Config, name: str) -> None:
    clip = getattr(config.reward, name)
    if clip and (len(clip) != 2 or not clip[0] < clip[1]):
        raise ConfigError(
            f"`reward.{name}` must be [] for none, or [low,high] with low below high, got {_list(clip)}."
        )


def check_engine_logprobs(config: Config) -> None:
    generation = config.generation
    if config.reward.teacher_logprobs == "engine" and config.reward.kl_estimator != "student_nll":
        for name, off in PLAIN_SAMPLING.items():
            if getattr(generation, name) != off:
                raise ConfigError(
                    f"`generation.{name}={getattr(generation, name)}` must be {off} with "
                    "reward.teacher_logprobs=engine, because only plain samples carry the teacher's own "
                    "log-probabilities: change it, or take reward.teacher_logprobs=policy."
                )


def check_correctness(config: Config) -> None:
    """Raise ConfigError where a right answer is worth no more than its form, or nobody reads thoughts."""
    correctness = config.correctness
    if pays_likelihood(config):
        _check_likelihood(config)
    if correctness.grader == LIKELIHOOD:
        return
    if correctness.format_weight >= correctness.weight:
        raise ConfigError(
            f"`correctness.format_weight={correctness.format_weight:g}` must be less than correctness.weight="
            f"{correctness.weight:g}, because else a right answer is worth no more than its form: lower it."
        )


def _check_likelihood(config: Config) -> None:
    grader = config.correctness.grader
    what = f"grader={grader}" if grader == LIKELIHOOD else "likelihood_weight"
    if not config.student_model:
        raise ConfigError(
            f"`student_model` is empty, and correctness.{what} asks who reads the student's thoughts: give "
            "policy (the trained model itself), reference, or the folder or Hub name of a frozen copy."
        )
    check_solution_score(config)
    placement = config.reward.placement
    if placement not in ("replicated", "cpu_offload"):
        raise ConfigError(
            f"`reward.placement={placement}` is not for student_rl, whose frozen copy reads the very ids of "
            "each thought in its own process: take replicated or cpu_offload, or student_model=policy."
        )
    check_students(config)


def _list(values: list) -> str:
    return "[" + ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values) + "]"
