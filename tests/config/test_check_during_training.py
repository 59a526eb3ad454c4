"""What benchmarks while training ask of a configuration: nothing while they are off."""

import pytest

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.validate import validate
from rlt.errors import ConfigError

ON = "evaluation.benchmarks.steps=50"
STAGES = {
    "student_sft": ["layout.student_prompt=default"],
    "student_rl": ["layout.student_prompt=default", "generation.backend=transformers"],
    "teacher_sft": [],
    "collect_traces": ["generation.backend=transformers"],
    "evaluate": ["generation.backend=transformers"],
}


def check(stage: str, *changes: str) -> None:
    """Check the words of a stage in a place with `model/` and `rows.jsonl`; 8,192 tokens fit the model."""
    files = ["model_name_or_path=model"]
    files += [] if stage == "evaluate" else ["dataset_id_or_path=rows.jsonl"]
    sizes = ["data.max_length=8192"] if stage.endswith("sft") else ["max_prompt_length=2048"]
    validate(resolve(compose([f"run_cfg={stage}", *files, *sizes, *STAGES[stage], *changes])))


@pytest.mark.parametrize("stage", ["student_sft", "student_rl"])
def test_a_number_of_steps_is_enough(place, stage):
    check(stage, ON)
    check(stage, "evaluation.benchmarks.tasks=[]")  # off
    check(stage, ON, "evaluation.benchmarks.tasks=[lighteval|gsm8k|0,problems]", "evaluation.path=rows.jsonl")
    sampled = ["evaluation.benchmarks.temperature=0.6", "evaluation.benchmarks.num_samples=4"]
    check(stage, ON, *sampled)


@pytest.mark.parametrize(
    ("stage", "changes", "expected"),
    [
        (
            *("teacher_sft", []),
            "has no effect in teacher_sft: remove it .read by student_sft, student_rl and student_opd",
        ),
        ("evaluate", [], "has no effect in evaluate: remove it"),
        ("collect_traces", [], "has no effect in collect_traces: remove it"),
        ("student_sft", ["evaluation.benchmarks.tasks=[math501]"], "got 'math501': did you mean math500?"),
        ("student_rl", ["evaluation.benchmarks.tasks=[]"], "`evaluation.benchmarks.tasks` is empty"),
        (
            "student_sft",
            ["evaluation.benchmarks.tasks=[problems]"],
            "those of evaluation.path: give held-out problems there",
        ),
        (
            "student_sft",
            ["evaluate.paths={aime24: no.jsonl}"],
            "`evaluate.paths.aime24=no.jsonl` does not exist",
        ),
        (
            "student_rl",
            ["evaluation.benchmarks.num_samples=4"],
            "must be 1 with .*temperature=0, .* got 4",
        ),
        ("student_rl", ["evaluation.benchmarks.num_problems=0"], "num_problems` must be greater than 0"),
        (
            "student_sft",
            ["evaluation.benchmarks.max_tokens=40000"],
            "max_tokens=40000` must leave room for a prompt of 1 tokens .* is 32768: lower it by 7233",
        ),
    ],
)
def test_what_is_refused(place, stage, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        check(stage, ON, *changes)
