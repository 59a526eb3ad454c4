"""The student-likelihood reward. `StudentLikelihood` is the reward function for TRL trainers and scripts."""

from rlt.rewards.formula import RewardSpec, WeightedReductions
from rlt.rewards.function import StudentLikelihood

__all__ = ["RewardSpec", "StudentLikelihood", "WeightedReductions"]
