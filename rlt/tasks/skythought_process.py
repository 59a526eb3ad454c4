"""The child process of `SkyThoughtGrader`: the verdict of SkyThought's own program on a student's turn.

Run as `python -m rlt.tasks.skythought_process SECONDS`, with the folders of `grader_paths` in front in
PYTHONPATH; its lines are [turn, reference, handler] (grading_loop.py).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

from rlt.tasks.grading_loop import answer_lines

_TASKS = "skythought.evals.tasks"
_HANDLERS = {
    "math": ("math.math_handler", "MathTaskHandler"),
    "gsm8k": ("gsm8k.gsm8k_handler", "GSM8KTaskHandler"),
    "choice": ("gpqa_diamond.gpqa_diamond_handler", "GPQADiamondTaskHandler"),
}
_REFERENCE = "reference"


def load_handlers() -> dict[str, Any]:
    """Return its handlers by our names, each reading the reference in one column.

    The package of the tasks itself imports the handlers of code benchmarks with all that they need, and its
    base class datasets and pydantic for loading. Neither has a part in a verdict, so neither is loaded.
    """
    evals = find_spec("skythought.evals")
    assert evals is not None
    assert evals.submodule_search_locations is not None
    tasks, base = ModuleType(_TASKS), ModuleType(f"{_TASKS}.base")
    tasks.__path__ = [f"{folder}/tasks" for folder in evals.submodule_search_locations]
    base.TaskHandler, base.TaskConfig = _Handler, SimpleNamespace  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules |= {tasks.__name__: tasks, base.__name__: base}
    config = SimpleNamespace(answer_key=_REFERENCE)
    return {
        name: getattr(import_module(f"{_TASKS}.{module}"), handler)(config)
        for name, (module, handler) in _HANDLERS.items()
    }


class _Handler:
    """Replaces the base class of its handlers, which holds the configuration and loads data."""

    def __init__(self, task_config: SimpleNamespace) -> None:
        self.task_config = task_config


def main() -> None:
    """Answer until the input ends."""
    handlers = load_handlers()
    seed = import_module("sympy.core.random").seed

    def grade(turn: str, reference: str, handler: str) -> bool:
        seed(0)  # sympy compares at random points: a verdict must not depend on those before it
        given = f"#### {reference}" if handler == "gsm8k" else reference  # its dataset writes it so
        return bool(handlers[handler].check_correctness({_REFERENCE: given}, turn))

    answer_lines(grade, float(sys.argv[1]), (r"\boxed{x+x}", "2x", "math"))


if __name__ == "__main__":
    main()
