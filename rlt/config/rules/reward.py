"""The rules of `reward` and `correctness`: what is paid for, and by which numbers."""

from __future__ import annotations

from rlt.config.schema import PLAIN_SAMPLING, REDUCTIONS, Config
from rlt.errors import ConfigError


def check_reward(config: Config) -> None:
    reward = config.reward
    pairs = {"answer_log_prob_coeff": "answer_reductions", "kl_penalty_reward_coeff": "kl_reductions"}
    for coeff_name, name in pairs.items():
        coeff, reductions = getattr(config, coeff_name), getattr(reward, name)
        for reduction in reductions:
            if reduction not in REDUCTIONS:
                raise ConfigError(f"`reward.{name}` may hold {', '.join(REDUCTIONS)}, got '{reduction}'.")
        if len(coeff) != len(reductions):
            raise ConfigError(
                f"`{coeff_name}={_list(coeff)}` must have one number for each of "
                f"reward.{name}={_list(reductions)}: change one of the two."
            )
    if not config.answer_log_prob_coeff:
        raise ConfigError("`answer_log_prob_coeff=[]` leaves no reward: give at least one, e.g. [1,0.01].")
    for name in ("answer_clip", "kl_clip", "answer_result_clip"):
        clip = getattr(reward, name)
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
    """Raise ConfigError where a right answer would be worth no more than its form."""
    correctness = config.correctness
    if correctness.format_weight >= correctness.weight:
        raise ConfigError(
            f"`correctness.format_weight={correctness.format_weight:g}` must be less than correctness.weight="
            f"{correctness.weight:g}, because else a right answer is worth no more than its form: lower it."
        )


def _list(values: list) -> str:
    return "[" + ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values) + "]"
