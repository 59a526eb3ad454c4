"""Monitors by hand-worked numbers, their advice, their state in a checkpoint, and in real runs."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from statistics import pvariance

import pytest
from helpers.stage_runs import interrupted_copy, rl_words, run_here, run_processes, succeed, train_rows

from rlt.config.schema import MonitorSettings
from rlt.errors import CheckpointError
from rlt.rundir.samples import read_samples, sample_files
from rlt.trainers.alarms import Alarms
from rlt.trainers.monitor_limits import student_limits
from rlt.trainers.monitors import FILE, Monitors, kl_share, zero_variance


def row(**changes) -> dict:
    """Return what the monitors read of a sample; nothing about it is wrong."""
    usual = {"solution_copied": None, "solution_first": None, "explanation_tokens": 100.0}
    usual |= {"missing_tag": 0.0, "finish_reason": "stop", "reward": -1.0, "r_ss": -1.0, "r_kl": 0.5}
    return {**usual, **changes}


def scored(*pairs: tuple[float, float]) -> list[dict]:
    """Return rows with r_SS and r_KL, and the reward that they make."""
    return [row(r_ss=ss, r_kl=kl, reward=ss - kl) for ss, kl in pairs]


def with_all(rows: list[dict], **changes) -> list[dict]:
    return [{**r, **changes} for r in rows]


HEALTHY = scored((-1.0, 0.5), (-1.2, 0.4), (-0.9, 0.5), (-1.0, 0.6))


@pytest.fixture
def monitors() -> Monitors:
    return Monitors(MonitorSettings(), Alarms(speaks=True), group=2)


def warnings(monitors: Monitors, rows: list[dict], caplog, step: int = 7) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        monitors.observe(rows, step)
    return [record.getMessage() for record in caplog.records]


# ---- the numbers ----------------------------------------------------------------------------------


def test_shares_over_all_rows(monitors):
    rows = [
        row(missing_tag=1.0, finish_reason="length", solution_copied=0.75),
        row(solution_copied=0.25),
        row(solution_first=True),
        row(missing_tag=1.0, solution_first=False),
    ]
    found = monitors.observe(rows, 1)
    assert found["monitor/missing_tag"] == 0.5
    assert found["monitor/truncated"] == 0.25
    assert found["monitor/solution_copied"] == 0.5  # of the two long solutions
    assert found["monitor/solution_first"] == 0.5  # of the two short ones


def test_what_a_step_does_not_have_is_left_out(monitors):
    found = monitors.observe(HEALTHY, 1)
    assert found.keys() == {
        f"monitor/{name}"
        for name in ("length_ratio", "missing_tag", "truncated", "zero_variance", "kl_share")
    }


def test_a_students_rows_have_monitors_of_their_own(caplog):
    usual = {"explanation_tokens": 9.0, "finish_reason": "stop", "well_formed": True}
    rows = [{**usual, "reward": reward} for reward in (1.0, 0.1, 0.1, 0.1)]
    rows[3]["well_formed"] = False
    monitors = Monitors(MonitorSettings(), Alarms(speaks=True), group=2, limits=student_limits)
    found = {"length_ratio": 1.0, "malformed": 0.25, "truncated": 0.0, "zero_variance": 0.5}
    with caplog.at_level(logging.WARNING):
        assert monitors.observe(rows, 7) == {f"monitor/{name}": value for name, value in found.items()}
    said = [record.getMessage() for record in caplog.records]
    assert [message.partition(":")[0] for message in said] == ["step 7", "step 7"]
    assert "monitor/malformed is 0.25, above monitors.max_malformed=0.2" in said[0]
    assert "monitor/zero_variance is 0.5, above monitors.max_zero_variance=0.25" in said[1]


def test_zero_variance_counts_groups():
    equal, apart = scored((-1, 1), (-1, 1)), scored((-1, 1), (-1, 2))
    unscorable = [row(reward=math.nan), row(reward=math.nan)]
    assert zero_variance([equal, apart]) == 0.5
    assert zero_variance([equal, apart, unscorable, apart]) == 0.5
    # 3 and 4 trade places: r_SS and r_KL differ, the reward does not
    assert zero_variance([scored((-3, 4), (-4, 3))]) == 1


def test_kl_share_within_groups():
    # Squared deviations of r_SS: twice 1 from -2, then twice 0.25 from -50.5; of r_KL: twice 4 from 3.
    # Sums: 2.5 and 8. That the groups have different levels does not count.
    groups = [scored((-1, 1), (-3, 5)), scored((-50, 70), (-51, 70))]
    assert kl_share(groups) == pytest.approx(8 / 10.5)


def test_kl_share_leaves_out_what_has_no_number():
    group = [*scored((-1, 1), (-3, 5)), row(reward=math.nan, r_ss=math.nan, r_kl=9.0)]
    assert kl_share([group]) == pytest.approx(8 / 10)
    assert kl_share([scored((-1, 1), (-1, 1))]) is None  # nothing varies
    assert kl_share([scored((-1, 0), (-2, 0))]) is None  # switched off


def test_length_is_measured_against_the_first_steps():
    monitors = Monitors(MonitorSettings(baseline_steps=2), Alarms(speaks=True), group=2)
    lengths = [(100, 100), (200, 100), (200, 300)]
    ratios = [
        monitors.observe([row(explanation_tokens=n) for n in pair], step)["monitor/length_ratio"]
        for step, pair in enumerate(lengths, start=1)
    ]
    assert ratios == [1, pytest.approx(150 / 125), 2]  # 100 / 100; against (100 + 150) / 2, twice


# ---- the warnings ---------------------------------------------------------------------------------


def test_a_healthy_step_is_quiet(monitors, caplog):
    assert not warnings(monitors, HEALTHY, caplog)


@pytest.mark.parametrize(
    ("rows", "setting", "advice"),
    [
        (with_all(HEALTHY, solution_copied=0.6), "max_solution_copied=0.5", "kl_penalty_reward"),
        (with_all(HEALTHY, solution_first=True), "max_solution_first=0.2", "warm the teacher up"),
        (with_all(HEALTHY, missing_tag=1.0), "max_missing_tag=0.2", "max_completion_length"),
        (with_all(HEALTHY, finish_reason="length"), "max_truncated=0.2", "mask_truncated"),
        (scored((-1, 0.5), (-1, 0.5), (-1, 0.2), (-1.2, 0.3)), "max_zero_variance=0.25", "temperature"),
        (scored((-1, 1), (-1, 2), (-1, 1), (-1, 3)), "max_kl_share=0.98", "lower kl_penalty"),
        (scored((-1, 1), (-2, 1), (-1, 1), (-3, 1)), "min_kl_share=0.02", "raise kl_penalty"),
    ],
)
def test_each_warning_names_step_value_limit_and_remedy(caplog, rows, setting, advice):
    monitors = Monitors(MonitorSettings(min_kl_share=0.02), Alarms(speaks=True), group=2)
    (said,) = warnings(monitors, rows, caplog)
    assert said.startswith("step 7: monitor/")
    assert f"monitors.{setting}:" in said
    assert advice in said
    assert not warnings(monitors, rows, caplog)  # said once


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (201.0, "above monitors.max_length_ratio=2"),
        (49.0, "below monitors.min_length_ratio=0.5"),
        (150.0, ""),
    ],
)
def test_length_drift_warns_both_ways(caplog, tokens: float, said: str):
    monitors = Monitors(MonitorSettings(baseline_steps=1), Alarms(speaks=True), group=2)
    assert not warnings(monitors, HEALTHY, caplog)
    found = warnings(monitors, with_all(HEALTHY, explanation_tokens=tokens), caplog)
    assert [said in line for line in found] == ([True] if said else [])


def test_null_is_never(caplog):
    settings = MonitorSettings(max_missing_tag=None, max_truncated=None, baseline_steps=3)
    monitors = Monitors(settings, Alarms(speaks=True), group=2)
    rows = with_all(HEALTHY, missing_tag=1.0, finish_reason="length")
    assert not warnings(monitors, rows, caplog)
    assert monitors.observe(rows, 2)["monitor/missing_tag"] == 1


# ---- the checkpoint -------------------------------------------------------------------------------


def test_baseline_and_alarms_survive_a_resume(tmp_path, caplog):
    settings = MonitorSettings(baseline_steps=2)
    before = Monitors(settings, Alarms(speaks=True), group=2)
    cut = with_all(HEALTHY, finish_reason="length")
    assert len(warnings(before, cut, caplog)) == 1
    before.save(tmp_path / "checkpoint-1")
    after = Monitors(settings, Alarms(speaks=True), group=2)
    after.load(tmp_path / "checkpoint-1")
    longer = with_all(cut, explanation_tokens=140.0)
    assert not warnings(after, longer, caplog)
    # the second step fills the baseline: (100 + 140) / 2
    third = after.observe(with_all(HEALTHY, explanation_tokens=60.0), 3)
    assert third["monitor/length_ratio"] == pytest.approx(0.5)


def test_a_checkpoint_without_the_state_is_said_once(monitors, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        monitors.load(tmp_path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"holds no {FILE}" in said
    assert monitors.observe(HEALTHY, 9)["monitor/length_ratio"] == 1


@pytest.mark.parametrize("text", ["", "[]", '{"baseline": [1]}', '{"baseline": ["x"], "raised": []}'])
def test_a_damaged_state_is_refused(monitors, tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match="remove it, and they start again"):
        monitors.load(tmp_path)


# ---- real runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> Path:
    """Return problems with long solutions and with short ones, in turn."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    with path.open("w") as file:
        for i in range(12):
            solution = f"{i} 1 2 3 4 5 6 7 8 9" if i % 2 else str(10 + i)
            file.write(json.dumps({"question": f"{i}+3*2", "solution": solution}) + "\n")
    return path


def recomputed(run: Path) -> dict[int, dict[str, float]]:
    """Return the monitors of each step from the samples on disk, by other code."""
    found, baseline = {}, []
    for step, file in sample_files(run / "samples").items():
        table = read_samples(file)
        groups = [table[i : i + 4] for i in range(0, len(table), 4)]
        within = {k: sum(pvariance([r[k] for r in g]) for g in groups) for k in ("r_ss", "r_kl")}
        length = sum(r["explanation_tokens"] for r in table) / len(table)
        baseline = [*baseline, length][:2]
        values = {
            "length_ratio": length / (sum(baseline) / len(baseline)),
            "missing_tag": sum(r["missing_tag"] for r in table) / len(table),
            "truncated": sum(r["finish_reason"] == "length" for r in table) / len(table),
            "zero_variance": sum(len({r["reward"] for r in g}) == 1 for g in groups) / len(groups),
            "kl_share": within["r_kl"] / (within["r_ss"] + within["r_kl"]),
        }
        for name in ("solution_copied", "solution_first"):
            judged = [r[name] for r in table if r[name] is not None]
            if judged:
                values[name] = sum(judged) / len(judged)
        found[step] = {f"monitor/{name}": value for name, value in values.items()}
    return found


def logged(run: Path) -> dict[int, dict[str, float]]:
    return {
        step: {key: value for key, value in line.items() if key.startswith("monitor/")}
        for step, line in train_rows(run).items()
    }


def assert_logged(run: Path) -> None:
    ours, theirs = logged(run), recomputed(run)
    assert ours.keys() == theirs.keys() == {1, 2, 3}
    for step, values in theirs.items():
        assert ours[step] == pytest.approx(values), step


@pytest.fixture
def words(tiny_teacher, tiny_student, problems):
    def build(output: Path, *changes: str) -> list[str]:
        usual = ["learning_rate=1e-3", "trainer.max_steps=3", "monitors.baseline_steps=2"]
        return rl_words(tiny_teacher, tiny_student, problems, output, *usual, *changes)

    return build


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_log_what_all_samples_say_and_warn_once(words, tmp_path):
    done = run_processes("ddp", words(tmp_path / "run"))
    succeed(done)
    assert_logged(tmp_path / "run")
    names = {name for values in logged(tmp_path / "run").values() for name in values}
    assert {"monitor/solution_copied", "monitor/solution_first"} <= names
    assert logged(tmp_path / "run")[1]["monitor/missing_tag"] > 0.2  # random models write no tag
    assert done.stdout.count("monitors.max_missing_tag=0.2") == 1
    assert "length drift" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_baseline_and_does_not_repeat_itself(words, tmp_path):
    run = run_here(words(tmp_path / "run", "trainer.save_steps=1"))
    assert (run / "log.txt").read_text().count("monitors.max_missing_tag=0.2") == 1
    copy = interrupted_copy(run, tmp_path / "copy", step=1)
    resumed = run_here(words(copy, "resume_from=latest"))
    assert logged(resumed) == logged(run)
    assert_logged(resumed)
    assert "monitors.max_missing_tag" not in (resumed / "log.txt").read_text()
