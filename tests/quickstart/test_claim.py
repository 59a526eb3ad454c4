"""The claim: results of several seeds become one table, paired by seed."""

import json
from dataclasses import asdict

import pytest

from rlt.evaluation.intervals import Interval
from rlt.io import write_json
from rlt.quickstart.claim import claim_text, over_seeds, read_result, run_claim, students_over_seeds
from rlt.quickstart.report import MEASURES, Change, Comparison
from rlt.quickstart.students import compare_students


@pytest.fixture
def output(tmp_path):
    # r_SS before is -2, -2.5, -3 and after always -1: changes 1, 1.5, 2
    for seed in range(3):
        change = Change(-2.0 - seed / 2, -1.0, Interval(1 + seed / 2, 0.5, 2.5))
        comparison = Comparison(20, 64, 4, dict.fromkeys(MEASURES, change))
        right = {  # of two problems; the lead over the base is 0.5, that over the other 0.25, 0.3, 0.35
            "base": {"a": 0.25, "b": 0.25},
            "taught before RL": {"a": 0.5 - seed / 20, "b": 0.5 - seed / 20},
            "taught after RL": {"a": 0.75, "b": 0.75},
        }
        values = {"teacher": asdict(comparison), "students": asdict(compare_students(right))}
        values["is_real"] = seed != 1
        write_json(tmp_path / f"seed_{seed}" / "quickstart.json", values)
    return tmp_path


def test_seeds_with_results_are_not_run_again(output):
    results, failed = run_claim(output, range(3), [])
    assert [result.seed for result in results] == [0, 1, 2]
    assert failed == []


@pytest.mark.slow
def test_a_seed_without_a_result_has_failed(tmp_path):
    assert run_claim(tmp_path, [0], ["--problems", "1"]) == ([], [0])
    assert "--problems=1 is too few" in (tmp_path / "seed_0.log").read_text()


def test_the_change_is_paired_by_seed(output):
    results, _ = run_claim(output, range(3), [])
    r_ss = over_seeds(results)["r_SS"]
    assert (r_ss.before, r_ss.after) == (-2.5, -1.0)
    # 1, 1.5, 2: mean 1.5, standard deviation 0.5, half width 4.3027 · 0.5/sqrt(3) = 1.2421
    assert r_ss.difference.mean == pytest.approx(1.5)
    assert r_ss.difference.low == pytest.approx(0.2579, abs=1e-4)


def test_students_are_paired_by_seed(output):
    students = students_over_seeds(run_claim(output, range(3), [])[0])
    assert students.accuracy["taught before RL"].mean == pytest.approx(0.45)
    lead = students.lead["taught before RL"]
    # 0.25, 0.3, 0.35: mean 0.3, standard deviation 0.05, half width 4.3027 · 0.05/sqrt(3) = 0.1242
    assert (lead.mean, lead.low) == (pytest.approx(0.3), pytest.approx(0.1758, abs=1e-4))
    assert students.is_real


def test_the_text_counts_the_seeds_that_show_it(output):
    text = claim_text(run_claim(output, range(3), [])[0])
    assert "In 2 of 3 seeds" in text
    assert "+1.500 [+0.258, +2.742]" in text
    assert "+30.0 [+17.6, +42.4] %" in text


def test_a_result_comes_back_as_written(output):
    result = read_result(output / "seed_2" / "quickstart.json", 2)
    assert result.changes["r_KL"].difference == Interval(2.0, 0.5, 2.5)
    assert json.loads((output / "seed_2" / "quickstart.json").read_text())["is_real"] is result.is_real
