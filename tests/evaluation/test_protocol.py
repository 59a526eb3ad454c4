"""In whose words a question is asked, and the name of the protocol."""

from __future__ import annotations

import pytest
import yaml
from helpers.skythought_stand_in import stand_in

from rlt.config.overrides import CONFIG_DIR
from rlt.config.schema import EvaluateSettings
from rlt.evaluation.protocol import OURS, THEIRS, TYPED, described, prompt_sources, protocol, words

ALL_THEIRS = {
    **{"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
    **{"max_completion_length": 32768, "seed": 41, "evaluate.option_order": "stream"},
    "tasks": {"aime24": {"num_samples": 1}},
    "grading": {"extraction": "skythought", "unfinished": "whole"},
    "prompt_source": {"aime24": THEIRS},
    "second_grader": {"program": "skythought", "libraries": {"sympy": "1.13.1"}},
}


def test_typed_words_come_first_then_skythoughts_then_ours(tmp_path, monkeypatch):
    folder = str(stand_in(tmp_path, monkeypatch))
    evaluate = EvaluateSettings(original=folder, prompts={"math500": "Mine: {question}"})
    assert words("aime24", evaluate) == r"Box it: \boxed{}. {question}"
    assert words("math500", evaluate) == "Mine: {question}"
    assert words("problems", evaluate) == "{question}"
    tasks = ("aime24", "math500", "countdown", "problems")
    sources = {"aime24": THEIRS, "math500": TYPED, "countdown": OURS, "problems": OURS}
    assert prompt_sources(tasks, evaluate) == sources
    typed = EvaluateSettings(prompts={"math500": "Say it in LaTeX. {question}"})
    assert prompt_sources(["math500", "aime24"], typed) == {"math500": THEIRS, "aime24": OURS}


def test_the_protocols_settings_are_those_of_its_file():
    values = yaml.safe_load((CONFIG_DIR / "eval_cfg" / "skythought.yaml").read_text())
    manifest = {
        **{name: values[name] for name in ("temperature", "max_completion_length", "seed")},
        **values["generation"],
        **{f"evaluate.{name}": value for name, value in values["evaluate"].items()},
        "tasks": {"aime24": {"num_samples": values["evaluate"]["num_samples"]}},
        "grading": values["evaluate"],
        "prompt_source": {"aime24": THEIRS},
        "second_grader": {"libraries": {}},
    }
    assert protocol(manifest) == {"name": "skythought", "differs_in": []}


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({}, []),
        ({"second_grader": None}, ["grader"]),
        ({"prompt_source": {"aime24": OURS}}, ["words of aime24"]),
        ({"prompt_source": {"aime24": TYPED}}, ["words of aime24"]),
        ({"temperature": 0.6, "seed": 1}, ["temperature", "seed"]),
        ({"max_completion_length": 4096}, ["max_completion_length"]),
        ({"tasks": {"aime24": {"num_samples": 4}}}, ["answers to aime24"]),
        ({"grading": {"extraction": "skythought", "unfinished": "wrong"}}, ["evaluate.unfinished"]),
    ],
)
def test_what_differs_makes_it_skythought_like(changed, differs):
    facts = {**ALL_THEIRS, **changed}
    found = protocol(facts)
    assert found == {"name": "skythought-like" if differs else "skythought", "differs_in": differs}
    said = described({**facts, "protocol": found})
    assert all(name in said for name in differs)
    assert ("SkyThought's own program (sympy 1.13.1)" in said) is (facts["second_grader"] is not None)
    assert ("aime24 in SkyThought's words" in said) is ("words of aime24" not in differs)


def test_another_way_of_reading_answers_is_no_protocol_of_skythoughts():
    facts = {**ALL_THEIRS, "grading": {"extraction": "lenient", "unfinished": "wrong"}}
    assert protocol(facts) is None
    assert described({**facts, "protocol": None}).startswith(
        "Asked: aime24 in SkyThought's words. The second"
    )
