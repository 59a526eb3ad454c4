"""Further components of the reward through the whole stage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers.stage_runs import eval_rows, rl_words, run_here, train_rows

from rlt.errors import ConfigError, DataError
from rlt.rundir.samples import read_samples

pytestmark = pytest.mark.slow
FUNCTION = """
def by_level(explanations, level, source, solutions):
    assert source == ["toy"] * len(source)
    return [None if n is None else n + int(solution) / 100 for n, solution in zip(level, solutions)]
"""


@pytest.fixture(scope="module")
def problems(toy_problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the toy problems with two columns that the framework does not know."""
    rows = [json.loads(line) for line in toy_problems.read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"level": i % 3, "source": "toy"}
    path = tmp_path_factory.mktemp("columns") / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def levels(problems: Path) -> dict[str, int]:
    return {row["question"]: row["level"] for row in map(json.loads, problems.read_text().splitlines())}


@pytest.fixture(scope="module")
def step(tiny_teacher: Path, tiny_student: Path, problems: Path, tmp_path_factory):
    """Return a function that runs one step of the same samples with some settings changed."""
    folder = tmp_path_factory.mktemp("steps")

    def run(name: str, *changes: str) -> Path:
        return run_here(
            rl_words(tiny_teacher, tiny_student, problems, folder / name, "trainer.max_steps=1", *changes)
        )

    return run


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "level_rewards.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture(scope="module")
def plain(step) -> Path:
    return step("plain")


def samples(run: Path) -> list[dict]:
    return read_samples(run / "samples" / "step_000001.parquet")


def test_components_are_added_and_shown_everywhere(step, plain, problems, levels, functions):
    run = step(
        "all",
        "reward.length={weight: 2, min_tokens: 0, max_tokens: 10}",
        "reward.copy={weight: 1, n: 1}",
        "reward.functions=[{path: level_rewards:by_level, weight: -0.5}]",
        "reward.answers={weight: 1, num_samples: 2, max_tokens: 4}",
        f"evaluation.path={problems}",
    )
    rows = samples(run)
    for ours, theirs in zip(rows, samples(plain), strict=True):
        assert ours["completion"] == theirs["completion"]
        assert ours["component/length"] == -max(0, ours["explanation_tokens"] - 10) / 10
        words = ours["explanation"].split()
        assert ours["component/copy"] == -1 or ours["solution"] not in words
        assert ours["component/by_level"] == levels[ours["question"]] + int(ours["solution"]) / 100
        assert 0 <= ours["component/answers"] <= 1
        added = 2 * ours["component/length"] + ours["component/copy"] - 0.5 * ours["component/by_level"]
        assert ours["reward"] == pytest.approx(theirs["reward"] + added + ours["component/answers"])
    for name in ("length", "copy", "by_level", "answers"):
        mean = sum(row[f"component/{name}"] for row in rows) / len(rows)
        assert train_rows(run)[1][f"component/{name}"] == pytest.approx(mean)
        assert f"eval_component/{name}" in eval_rows(run)[1]
    assert "component/by_level" in (run / "report.html").read_text()
    assert "path: level_rewards:by_level" in (run / "config.yaml").read_text()


def test_a_component_of_zeros_changes_no_bit(step, plain):
    rows = samples(step("zeros", "reward.length={weight: 1, max_tokens: 1000}"))
    assert [row.pop("component/length") for row in rows] == [0.0] * 8
    assert rows == samples(plain)


def test_components_without_weight_are_not_computed(step, plain):
    off = step("off", "reward.functions=[{path: no_such_module:f, weight: 0}]", "reward.copy.weight=0")
    assert samples(off) == samples(plain)
    assert train_rows(off) == train_rows(plain)


def test_an_explanation_without_value_is_unscorable(step, problems, functions, tmp_path):
    lines = problems.read_text().splitlines()
    some = [line.replace('"level": 0', '"level": null') for line in lines]
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join(some))
    run = step("none", f"dataset_id_or_path={mixed}", "reward.functions=[{path: level_rewards:by_level}]")
    without = {json.loads(line)["question"] for line in some if json.loads(line)["level"] is None}
    rows = samples(run)
    missing = [row for row in rows if row["question"] in without]
    assert 0 < len(missing) < len(rows)
    for row in rows:
        assert math.isnan(row["component/by_level"]) == math.isnan(row["reward"]) == (row in missing)
    assert train_rows(run)[1]["unscorable"] == len(missing) / len(rows)


def test_what_a_function_lacks_gets_a_sentence(step, toy_problems, functions):
    function = "reward.functions=[{path: level_rewards:by_level}]"
    with pytest.raises(
        DataError, match="the parameter `level`, which is no column of the dataset: take one of"
    ):
        step("no column", function, f"dataset_id_or_path={toy_problems}")
    with pytest.raises(ConfigError, match="no_such_module cannot be imported"):
        step("no module", "reward.functions=[{path: no_such_module:f}]")
