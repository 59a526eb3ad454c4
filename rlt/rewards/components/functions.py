"""Reward functions of a user, named by import path (`my_rewards:brevity`).

    def brevity(explanations, difficulty):
        return [-len(text) / 1000 if hard else None for text, hard in zip(explanations, difficulty)]

A function is given, by keyword, lists with one entry per explanation: `questions`, `solutions`,
`explanations` (texts), `solution_logprobs` (a list of numbers: log p of each token of the solution after the
explanation, as student_model reads it), and the columns of the dataset under their own names, None where a
row lacks one. It gets what its parameters name, and everything if it takes `**kwargs`. It returns one number
or None per row; a row with None has no reward.

A path is code that runs with the user's rights. It is in the resolved configuration of the run.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter
from numbers import Real
from typing import Any

from rlt.errors import ConfigError, DataError
from rlt.records import Problem
from rlt.rewards.components.component import Explained

logger = logging.getLogger(__name__)
_OURS: dict[str, Callable[[Explained], str | list[float]]] = {
    "questions": lambda row: row.problem.question,
    "solutions": lambda row: row.problem.solution,
    "explanations": lambda row: row.text,
    "solution_logprobs": lambda row: list(row.solution_logprobs),
}


class RewardFunction:
    """A user's function as a component; its name is the function's."""

    def __init__(self, path: str) -> None:
        """`path` is MODULE:FUNCTION. Raises ConfigError unless it can be imported and called."""
        self.path = path
        self.name = path.rpartition(":")[2]
        self._call = _load(path)
        parameters = _parameters(path, self._call)
        self._takes_all = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
        self._declared = [p.name for p in parameters if p.kind is not Parameter.VAR_KEYWORD]

    def check_columns(self, problems: Iterable[Problem]) -> None:
        """Raise DataError for a parameter that is no column of any problem."""
        columns = {name for problem in problems for name in _columns(problem)}
        missing = [name for name in self._declared if name not in _OURS and name not in columns]
        if missing:
            raise DataError(
                f"the reward function {self.path} has the parameter `{missing[0]}`, which is no column of "
                f"the dataset: take one of {', '.join([*_OURS, *sorted(columns)])}"
            )

    def values(self, rows: Sequence[Explained]) -> list[float]:
        """Return what the function returns, NaN for None; raises DataError for anything but numbers."""
        if not rows:
            return []
        columns = [_columns(row.problem) for row in rows]
        names = list(self._declared)
        if self._takes_all:
            names += sorted({*_OURS, *(name for row in columns for name in row)} - set(names))
        lists = {
            name: [_OURS[name](row) for row in rows]
            if name in _OURS
            else [column.get(name) for column in columns]
            for name in names
        }
        return self._numbers(self._call(**lists), len(rows))

    def _numbers(self, returned: Any, num_rows: int) -> list[float]:
        if hasattr(returned, "tolist"):  # an array or a tensor
            returned = returned.tolist()
        if not isinstance(returned, list | tuple):
            raise DataError(
                f"the reward function {self.path} must return a list with one number or None for each "
                f"explanation, got {type(returned).__name__}"
            )
        if len(returned) != num_rows:
            raise DataError(
                f"the reward function {self.path} must return one number or None for each of {num_rows} "
                f"explanations, got {len(returned)}"
            )
        for value in returned:
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise DataError(
                    f"the reward function {self.path} must return numbers or None, got {value!r:.60} of the "
                    f"type {type(value).__name__}"
                )
        values = [math.nan if value is None else float(value) for value in returned]
        if all(map(math.isnan, values)):  # not an error: other processes may have rows with a number
            logger.warning(
                "the reward function %s returned None or NaN for all %d explanations: they get no reward",
                self.path,
                num_rows,
            )
        return values


def _columns(problem: Problem) -> dict[str, Any]:
    """Return a problem's columns; those that it lacks are skipped."""
    known = {name: getattr(problem, name) for name in ("answer", "reasoning_trace", "system")}
    return {**problem.extra, **{name: value for name, value in known.items() if value is not None}}


def _load(path: str) -> Callable[..., Any]:
    module_name, _, name = path.rpartition(":")
    try:
        module = import_module(module_name)
    except Exception as error:
        # A user's module may fail in any way; the error beneath is kept as the cause.
        top = module_name.partition(".")[0]
        is_nowhere = isinstance(error, ModuleNotFoundError) and error.name == top
        place = f"put {top}.py beside train.py, or its folder into PYTHONPATH"
        raise ConfigError(
            f"`reward.functions` names {path}, but {module_name} cannot be imported "
            f"({type(error).__name__}: {error}): {place if is_nowhere else 'correct that module'}."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        near = get_close_matches(name, [key for key, value in vars(module).items() if callable(value)], n=1)
        hint = f": did you mean {near[0]}?" if near else "."
        raise ConfigError(f"`reward.functions` names {path}, but {module_name} has no function {name}{hint}")
    return function


def _parameters(path: str, function: Callable[..., Any]) -> list[Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have none
        parameters = []
    usable = [p for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    keywords = [p for p in parameters if p.kind is Parameter.VAR_KEYWORD]
    if not usable + keywords or len(usable + keywords) < len(parameters):
        shown = ", ".join(str(p) for p in parameters)
        raise ConfigError(
            f"`reward.functions` names {path}, which takes ({shown}), but lists are passed by keyword: name "
            f"its parameters {', '.join(_OURS)} or by columns of the dataset."
        )
    return usable + keywords
