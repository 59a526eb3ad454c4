"""Two evaluations, compared by problem: by hand, and with what cannot be compared."""

import json

import pytest

from rlt.errors import DataError
from rlt.evaluation.compare import compare, main

FIRST = {"t": {"a": 0.0, "b": 0.25, "c": 0.5, "d": 1.0}}
SECOND = {"t": {"a": 0.25, "b": 0.75, "c": 0.75, "d": 1.0}}


def test_the_difference_is_paired_by_problem():
    (pair,) = compare(FIRST, SECOND)
    # 0.25, 0.5, 0.25, 0: deviation 0.2041, half width 3.1824 · 0.2041/sqrt(4) = 0.3248
    assert (pair.difference.low, pair.difference.high) == pytest.approx((-0.0748, 0.5748), abs=1e-4)
    assert (pair.before, pair.after) == (0.4375, 0.6875)
    assert (pair.num_better, pair.num_worse) == (3, 0)
    assert pair.p_value == 2 / 8
    assert "may be noise (+25.0 points" in pair.sentence


@pytest.mark.parametrize(
    ("better", "worse", "p_value"),
    [(10, 2, 2 * (1 + 12 + 66) / 4096), (3, 3, 1), (0, 0, 1), (0, 6, 2 / 64)],
)
def test_with_one_sample_it_is_mcnemars_exact_test(better, worse, p_value):
    old = [0.0] * better + [1.0] * worse + [1.0, 0.0]
    new = [1.0] * better + [0.0] * worse + [1.0, 0.0]
    first, second = ({"t": {str(i): v for i, v in enumerate(values)}} for values in (old, new))
    (pair,) = compare(first, second)
    assert pair.p_value == pytest.approx(p_value)


def test_a_clear_difference_says_which_way():
    (up,) = compare({"t": {str(i): 0.1 for i in range(9)}}, {"t": {str(i): 0.5 + i / 100 for i in range(9)}})
    (down,) = compare(
        {"t": {str(i): 0.5 + i / 100 for i in range(9)}}, {"t": {str(i): 0.1 for i in range(9)}}
    )
    assert "the second model is better by more than noise" in up.sentence
    assert "the second model is worse by more than noise" in down.sentence


def test_other_problems_or_tasks_are_refused():
    with pytest.raises(DataError, match="task t cannot be compared: pairs need the same problems"):
        compare(FIRST, {"t": {"a": 0.0, "x": 1.0}})
    with pytest.raises(DataError, match="different tasks, t and u"):
        compare(FIRST, {"u": {"a": 0.0}})


def test_two_run_directories(tmp_path, capsys):
    for name, temperature, shares in (("one", 0.6, FIRST), ("two", 0.0, SECOND)):
        run = tmp_path / name
        run.mkdir()
        rows = [
            {"task": "t", "problem_id": problem, "sample_index": i, "correct": i < 4 * share}
            for problem, share in shares["t"].items()
            for i in range(4)
        ]
        (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks = {"t": {"prompts_sha256": name}}
        (run / "manifest.json").write_text(json.dumps({"temperature": temperature, "tasks": tasks}))
    assert main([str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    output = capsys.readouterr().out
    assert "| t | 43.8 | 68.8 | +25.0 [-7.5, +57.5] | 3 / 0 | 0.25 |" in output
    assert "Note: temperature is 0.6 and 0.0, so the models are not all that differs." in output
    assert "Note: t was asked in other words, so the models are not all that differs." in output
    assert main([str(tmp_path / "one"), str(tmp_path / "none")]) == 3
    assert "give the run directory of a finished evaluation" in capsys.readouterr().err
    (tmp_path / "two" / "manifest.json").unlink()
    assert main([str(tmp_path / "one"), str(tmp_path / "two")]) == 3
    assert "give the run directory of a finished evaluation" in capsys.readouterr().err
