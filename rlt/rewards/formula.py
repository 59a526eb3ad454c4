"""The RLT reward: how likely an explanation makes the solution, minus how unnatural it is.

    reward = r_SS - r_KL + format
    r_SS = sum of weighted reductions of  log p_S(s_i | q, t, s_<i)
    r_KL = sum of weighted reductions of  d_j = log p_T(t_j | s, q, t_<j) - log p_S(t_j | q, t_<j)

(arXiv 2506.08388, section 3, with the released coefficients: 1·mean + 0.01·min and 3·mean + 0.03·max.)
Rewards of other papers take for r_SS what the explanation changes, a map of the sum, or the place of an
explanation among the others of its problem (groups.py): docs/reward.md.

B examples, S solution tokens, T explanation tokens; log-probabilities in nats. Pure tensors: `scorer.py`
runs the models, `formats/layout.py` finds the spans and the format flags.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlt.config.schema import Config, stage_of
from rlt.config.stages import STAGES
from rlt.rewards.groups import over_groups
from rlt.rewards.reductions import REDUCTIONS, TRANSFORMS


@dataclass(frozen=True)
class WeightedReductions:
    """How per-token values become one number: clip, then transform, then a weighted sum of reductions."""

    weights: tuple[tuple[str, float], ...]
    transform: str = "none"
    clip: tuple[float, float] | None = None

    def __call__(self, x_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the weighted sum, shape (B,). NaN where a counted value is NaN or none is counted."""
        clipped_BT = x_BT if self.clip is None else x_BT.clamp(*self.clip)
        mapped_BT = TRANSFORMS[self.transform](clipped_BT)
        return sum(
            (weight * REDUCTIONS[name](mapped_BT, mask_BT) for name, weight in self.weights),
            start=x_BT.new_zeros(len(x_BT)),
        )


Share = Callable[[list[Any]], tuple[list[Any], int]]
"""Takes rows of this process; returns those of all processes, and where this one's begin among them."""
LENGTH_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.ones_like,
    "log": lambda tokens: 1 + tokens.clamp(min=1).log(),
}
"""Divisors by the explanation's tokens; `log` is NOVER's N(|t|) = max(1, 1 + log |t|), arXiv 2505.16022."""


@dataclass(frozen=True)
class RewardSpec:
    """The numbers of the reward, resolved from the configuration."""

    solution: WeightedReductions
    divergence: WeightedReductions
    kl_estimator: str = "k1"
    missing_tag_penalty: float = 1.0
    text_after_tag_penalty: float = 0.0
    empty_explanation_divergence: float = 1.0
    baseline: bool = False
    """Whether r_SS of an empty explanation is subtracted."""
    result_transform: str = "none"
    """Map of r_SS itself, after reductions and baseline."""
    result_clip: tuple[float, float] | None = None
    length_norm: str = "none"
    """What the reduced log-probabilities are divided by (LENGTH_NORMS)."""
    group: str = "none"
    """What r_SS is compared with, last of all: the other explanations of the problem (groups.py)."""

    @classmethod
    def from_config(cls, config: Config) -> RewardSpec:
        """Return the reward that a configuration asks for."""
        r = config.reward
        weights = tuple(zip(r.kl_reductions, config.kl_penalty_reward_coeff, strict=True))
        return replace(
            cls.of_solution(config),
            divergence=WeightedReductions(weights, r.kl_transform, _clip(r.kl_clip)),
            kl_estimator=r.kl_estimator,
            text_after_tag_penalty=r.text_after_tag_penalty,
            empty_explanation_divergence=r.empty_explanation_divergence,
        )

    @classmethod
    def of_solution(cls, config: Config) -> RewardSpec:
        """Return r_SS and the penalty of the form alone, as student_rl has them."""
        r = config.reward
        weights = tuple(zip(r.answer_reductions, config.answer_log_prob_coeff, strict=True))
        compares = config.stage in STAGES and stage_of(config).is_rl  # else no group is there as a whole
        return cls(
            WeightedReductions(weights, r.answer_transform, _clip(r.answer_clip)),
            WeightedReductions(()),
            "student_nll",
            r.missing_tag_penalty,
            baseline=r.answer_baseline,
            result_transform=r.answer_result_transform,
            result_clip=_clip(r.answer_result_clip),
            length_norm=r.answer_length_norm,
            group=r.answer_group if compares else "none",
        )

    @property
    def needs_teacher(self) -> bool:
        """Whether the divergence reads the teacher's log-probabilities."""
        return self.kl_estimator != "student_nll"


def _clip(bounds: list[float]) -> tuple[float, float] | None:
    return (bounds[0], bounds[1]) if bounds else None


@dataclass(frozen=True)
class RewardInputs:
    """What the reward of one explanation is made from; 1-D float tensors."""

    solution_logprobs_S: Tensor
    """log p_S of the solution's tokens (setting reward.solution_span); never empty."""
    student_logprobs_T: Tensor
    """log p_S of the explanation tokens (or chunks, see scorer.py); may be empty."""
    teacher_logprobs_T: Tensor | None
    """log p_T of the same tokens, or None when the spec does not need them."""
    explanation_tokens: int
    """Tokens that the teacher sampled."""
    has_end_tag: bool
    text_after_end_tag: bool
    baseline_logprobs_S: Tensor | None = None
    """log p_S of the solution's tokens after an empty explanation, where the spec subtracts them."""


def divergence(spec: RewardSpec, item: RewardInputs) -> Tensor:
    """Return the per-token divergence of one explanation, shape (T,)."""
    student_T = item.student_logprobs_T.double()
    if spec.kl_estimator == "student_nll":
        return -student_T
    assert item.teacher_logprobs_T is not None, "this estimator needs the teacher's log-probabilities"
    d_T = item.teacher_logprobs_T.double() - student_T
    return torch.exp(-d_T) - 1 + d_T if spec.kl_estimator == "k3" else d_T


def rlt_reward(spec: RewardSpec, items: Sequence[RewardInputs]) -> dict[str, Tensor]:
    """Return `reward` and its named parts, each of shape (B,) in float64.

    A NaN log-probability makes the parts that read it, and the reward, NaN: it is never replaced. An
    explanation without tokens has the declared divergence as the value of every reduction, past clip and
    transform.
    """
    solution_BS, solution_mask_BS = _pad([item.solution_logprobs_S.double() for item in items])
    divergence_BT, divergence_mask_BT = _pad([divergence(spec, item) for item in items])
    tokens_B = torch.tensor([item.explanation_tokens for item in items], dtype=torch.float64)
    missing_B = torch.tensor([not item.has_end_tag for item in items], dtype=torch.float64)
    after_B = torch.tensor([item.text_after_end_tag for item in items], dtype=torch.float64)
    norm_B = LENGTH_NORMS[spec.length_norm](tokens_B)
    r_ss_B, baseline = _solution_part(spec, items, spec.solution(solution_BS, solution_mask_BS) / norm_B)
    is_empty_B = ~divergence_mask_BT.any(1)

    def of_divergence(value_B: Tensor, when_empty: float = spec.empty_explanation_divergence) -> Tensor:
        return value_B.masked_fill(is_empty_B, when_empty)

    total_weight = sum(weight for _, weight in spec.divergence.weights)
    r_kl_B = of_divergence(
        spec.divergence(divergence_BT, divergence_mask_BT),
        spec.empty_explanation_divergence * total_weight,
    )
    format_B = 0.0 - spec.missing_tag_penalty * missing_B - spec.text_after_tag_penalty * after_B
    return {
        "reward": r_ss_B - r_kl_B + format_B,
        "r_ss": r_ss_B,
        "r_ss_mean": REDUCTIONS["mean"](solution_BS, solution_mask_BS),
        "r_ss_min": REDUCTIONS["min"](solution_BS, solution_mask_BS),
        "r_kl": r_kl_B,
        "r_kl_mean": of_divergence(REDUCTIONS["mean"](divergence_BT, divergence_mask_BT)),
        "r_kl_max": of_divergence(REDUCTIONS["max"](divergence_BT, divergence_mask_BT)),
        **baseline,
        "format": format_B,
        "missing_tag": missing_B,
        "text_after_tag": after_B,
        "explanation_tokens": tokens_B,
        "solution_tokens": solution_mask_BS.sum(1).double(),
    }


def _solution_part(
    spec: RewardSpec, items: Sequence[RewardInputs], r_ss_B: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return r_SS past baseline, map and clip, and the baseline as a part where there is one; each (B,)."""
    parts: dict[str, Tensor] = {}
    if spec.baseline:
        rows = [item.baseline_logprobs_S for item in items]
        assert None not in rows, "the scorer was not asked for baselines"
        baseline_B = spec.solution(*_pad([row.double() for row in rows if row is not None]))
        parts["r_ss_baseline"] = baseline_B
        r_ss_B = r_ss_B - baseline_B
    r_ss_B = TRANSFORMS[spec.result_transform](r_ss_B)
    return r_ss_B if spec.result_clip is None else r_ss_B.clamp(*spec.result_clip), parts


def among_others(
    spec: RewardSpec, parts: dict[str, Tensor], keys: Sequence[Hashable], share: Share
) -> dict[str, Tensor]:
    """Return the parts with r_SS as its group makes it, (B,) each; `r_ss_alone` is what it was before.

    Rows of the same key are a group, also over several processes: collective as `share` is.
    """
    alone_B = parts["r_ss"]
    rows, first = share(list(zip(keys, alone_B.tolist(), strict=True)))
    values_A = torch.tensor([value for _, value in rows], dtype=torch.float64)
    everywhere_A = over_groups(spec.group, values_A, [key for key, _ in rows])
    r_ss_B = everywhere_A[first : first + len(alone_B)]
    reward_B = r_ss_B - parts["r_kl"] + parts["format"]
    return {**parts, "reward": reward_B, "r_ss": r_ss_B, "r_ss_alone": alone_B}


def combine_students(
    parts: Mapping[str, dict[str, Tensor]], weights: Sequence[float], how: str
) -> dict[str, Tensor]:
    """Return the reward and its parts over several students, each (B,): the weighted mean, or the minimum.

    `parts` are those of `rlt_reward` by student. The minimum takes all parts from the student with the lowest
    r_SS - r_KL of a row. The format is the teacher's own and counts once.
    """
    first, *others = parts.values()
    if not others:
        return first
    values = {name: torch.stack([of[name] for of in parts.values()]) for name in first}  # (students, B)
    if how == "min":
        worst_1B = (values["r_ss"] - values["r_kl"]).argmin(0, keepdim=True)  # NaN counts as lowest
        total = {name: value.gather(0, worst_1B).squeeze(0) for name, value in values.items()}
    else:
        share_S1 = torch.tensor(weights, dtype=torch.float64).unsqueeze(1) / sum(weights)
        total = {name: (share_S1 * value).sum(0) for name, value in values.items()}
    total |= {f"{student}/{name}": of[name] for student, of in parts.items() for name in ("r_ss", "r_kl")}
    return total


def _pad(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    one_column = rows[0].new_zeros(1)  # reductions need a column to find that nothing is counted
    padded = pad_sequence([*rows, one_column], batch_first=True)[:-1]
    return padded, torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
