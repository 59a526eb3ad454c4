"""The graders by name; each takes an answer and a reference and says whether the answer is right."""

from __future__ import annotations

from collections.abc import Callable

from rlt.tasks.countdown import CountdownGrader
from rlt.tasks.math_grader import MathGrader

GRADERS: dict[str, Callable[[float], Callable[[str, str], bool]]] = {
    "math": MathGrader,
    "countdown": lambda _: CountdownGrader(),  # takes no time that needs a limit
}
"""Name (`reward.answers.grader`) -> the grader for the CPU seconds that an answer may take."""
