"""A user's reward functions: what they are given, and what they may return."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.component_cases import explained

from rlt.errors import ConfigError, DataError
from rlt.rewards.components.functions import RewardFunction

SOURCE = """
import numpy, torch

def brevity(explanations):
    return [-float(len(text)) for text in explanations]

def everything(questions, solutions, explanations, level, answer, **columns):
    SEEN.extend(zip(questions, solutions, explanations, level, answer, columns["source"]))
    return [0.0 for _ in questions]

SEEN = []

def by_level(level):
    return [None if value is None else 2 * value for value in level]

def two(explanations): return [1.0, 2.0]
def one_number(explanations): return 1.0
def texts(explanations): return ["good" for _ in explanations]
def truths(explanations): return [True for _ in explanations]
def array(explanations): return numpy.arange(len(explanations), dtype=numpy.float32)
def tensor(explanations): return torch.arange(len(explanations))
def listed(explanations): return [numpy.float32(0.5) for _ in explanations]
def not_finite(explanations): return [float("inf") for _ in explanations]
def fails(explanations): raise KeyError("mine")

def positional(explanations, /): return [0.0]
def variadic(*explanations): return [0.0]
def nothing(): return [0.0]
def by_default(explanations, *, level=None): return [float(value) for value in level]
NUMBER = 3
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that loads one of the functions above by its path."""
    (tmp_path / "some_rewards.py").write_text(SOURCE)
    (tmp_path / "broken_rewards.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "some_rewards", raising=False)
    return lambda name: RewardFunction(f"some_rewards:{name}")


ROWS = [
    explained("Twice 36.", extra={"level": 3, "source": "a"}, answer="72"),
    explained("So.", extra={"source": "b"}),
]


def test_a_function_is_given_what_its_parameters_name(load):
    assert load("brevity").values(ROWS) == [-9, -3]
    function = load("everything")
    function.values(ROWS)
    assert function._call.__globals__["SEEN"] == [
        ("36*2", "72", "Twice 36.", 3, "72", "a"),
        ("36*2", "72", "So.", None, None, "b"),
    ]


def test_none_is_no_number(load):
    first, second = load("by_level").values(ROWS)
    assert first == 6
    assert math.isnan(second)


def test_a_function_without_any_number_is_named(load, caplog):
    # before: the run ended with "check the weights of student_model and of the policy"
    rows = [row for row in ROWS if math.isnan(load("by_level").values([row])[0])]
    caplog.clear()
    load("by_level").values(rows)
    assert (
        f"some_rewards:by_level returned None or NaN for all {len(rows)} explanations: they get no reward"
    ) in caplog.text
    caplog.clear()
    load("by_level").values(ROWS)
    assert not caplog.text


def test_without_rows_the_function_is_not_called(load):
    assert load("fails").values([]) == []


@pytest.mark.parametrize(("name", "values"), [("array", [0, 1]), ("tensor", [0, 1]), ("listed", [0.5, 0.5])])
def test_numbers_of_any_library_are_numbers(load, name, values):
    found = load(name).values(ROWS)
    assert found == values
    assert all(type(value) is float for value in found)
    assert not any(isinstance(value, np.generic | torch.Tensor) for value in found)


def test_an_infinite_value_stays_one(load):
    assert load("not_finite").values(ROWS[:1]) == [math.inf]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two", "some_rewards:two must return one number or None for each of 1 explanations, got 2"),
        ("one_number", "some_rewards:one_number must return a list with one number or None for each"),
        ("texts", "must return numbers or None, got 'good' of the type str"),
        ("truths", "must return numbers or None, got True of the type bool"),
    ],
)
def test_anything_else_gets_a_sentence(load, name, said):
    with pytest.raises(DataError) as error:
        load(name).values(ROWS[:1])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_of_the_function_keeps_its_own_traceback(load):
    with pytest.raises(KeyError, match="mine"):
        load("fails").values(ROWS)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_rewards:f", "no_such_rewards cannot be imported (ModuleNotFoundError: No module named"),
        ("no_such_rewards:f", "put no_such_rewards.py beside train.py, or its folder into PYTHONPATH."),
        (
            "broken_rewards:f",
            "imported (ZeroDivisionError: division by zero): correct that module.",
        ),
        ("some_rewards:brevty", "but some_rewards has no function brevty: did you mean brevity?"),
        ("some_rewards:missing", "names some_rewards:missing, but some_rewards has no function missing."),
        ("some_rewards:NUMBER", "some_rewards has no function NUMBER."),
        ("some_rewards:positional", "which takes (explanations), but lists are passed by keyword"),
        ("some_rewards:variadic", "which takes (*explanations), but lists are passed by keyword"),
        ("some_rewards:nothing", "which takes (), but lists are passed by keyword"),
    ],
)
def test_what_cannot_be_called_gets_a_sentence(load, path, said):
    with pytest.raises(ConfigError) as error:
        RewardFunction(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_parameter_that_is_no_column_is_found_before_training(load):
    problems = [row.problem for row in ROWS]
    load("everything").check_columns(problems)
    said = r"parameter `level`, which is no column .* explanations, solution_logprobs, source$"
    with pytest.raises(DataError, match=said):
        load("by_level").check_columns(problems[1:])


def test_log_probabilities_of_the_solution_reach_a_function(load, tmp_path):
    (tmp_path / "some_rewards.py").write_text(
        f"{SOURCE}\ndef surest(solution_logprobs): return [max(row) for row in solution_logprobs]\n"
    )
    rows = [replace(row, solution_logprobs=(-1.5, -0.25)) for row in ROWS[:2]]
    assert load("surest").values(rows) == [-0.25, -0.25]
