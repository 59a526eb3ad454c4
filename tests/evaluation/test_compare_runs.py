"""Two evaluations, compared by problem: by hand, and with what cannot be compared."""

import json

import pytest

from rlt.errors import DataError
from rlt.evaluation.compare import main
from rlt.evaluation.comparison_page import sentences
from rlt.evaluation.paired import compare
from rlt.surroundings.leaving import run_command

FIRST = {"t": {"a": 0.0, "b": 0.25, "c": 0.5, "d": 1.0}}
SECOND = {"t": {"a": 0.25, "b": 0.75, "c": 0.75, "d": 1.0}}


def test_the_difference_is_paired_by_problem():
    (pair,) = compare(FIRST, SECOND)
    # Few problems differ, so gains and losses of 4 problems count, with exact bounds (scipy 1.17):
    # gain 1/4 in 0.006309 to 0.805880, loss 0 in 0 to 1 - 0.025^(1/4) = 0.602365; they do not correlate.
    down = ((0.25 - 0.00630946) ** 2 + 0.602365**2) ** 0.5
    assert pair.difference.mean == 0.25
    assert pair.difference.low == pytest.approx(0.25 - down, abs=1e-5)
    assert pair.difference.high == pytest.approx(0.80587955, abs=1e-6)
    assert (pair.before, pair.after) == (0.4375, 0.6875)
    assert (pair.num_better, pair.num_worse) == (3, 0)
    assert pair.p_value == 2 / 8
    assert "may be noise (+25.0 points" in pair.sentence()


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
    assert "the second model is better than the first model by more than noise" in up.sentence()
    assert "the second model is worse than the first model by more than noise" in down.sentence()


def test_three_problems_are_never_more_than_noise():
    """Every problem from 0 to 1: before, "better by more than noise", with an interval of width zero."""
    (pair,) = compare({"t": dict.fromkeys("abc", 0.0)}, {"t": dict.fromkeys("abc", 1.0)})
    assert pair.difference.low < 0.5
    assert pair.p_value == 0.25
    assert "may be noise" in pair.sentence()


def test_two_models_that_solve_nothing_may_still_differ():
    (pair,) = compare({"t": dict.fromkeys("abcdefgh", 0.0)}, {"t": dict.fromkeys("abcdefgh", 0.0)})
    bound = 1 - 0.025 ** (1 / 8)
    assert (pair.difference.low, pair.difference.high) == pytest.approx((-bound, bound))


def test_the_sign_test_has_a_say():
    """Four large gains beside four small losses: the interval excludes 0, the sign test does not."""
    after = {str(i): 0.9 + i / 100 if i < 8 else 0.48 for i in range(12)}
    (pair,) = compare({"t": dict.fromkeys(after, 0.5)}, {"t": after})
    assert pair.difference.low > 0
    assert pair.p_value == pytest.approx(0.3877, abs=1e-4)  # 8 of 12, scipy.stats.binomtest
    assert "may be noise" in pair.sentence()
    assert "sign test does not" in pair.sentence()


def test_several_tasks_are_told():
    """Six of six is p = 0.031: enough for one task, not for one of two."""
    before, after = {str(i): 0.0 for i in range(6)}, {str(i): 1.0 for i in range(6)}
    pairs = compare({"a": before, "b": before}, {"a": after, "b": before})
    assert "better than the first model by more than noise" in pairs[0].sentence()
    assert "may be noise" in pairs[0].sentence(len(pairs))
    assert "There are 2 comparisons" in sentences(pairs)[-1]
    assert len(sentences(pairs[:1])) == 1


def test_by_the_other_grader_and_as_json(tmp_path, capsys):
    for name, theirs in (("one", (True, False)), ("two", (True, True))):
        (tmp_path / name).mkdir()
        rows = [
            {"task": "t", "problem_id": str(i), "correct": False, "correct_skythought": right}
            for i, right in enumerate(theirs)
        ]
        (tmp_path / name / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / name / "manifest.json").write_text("{}")
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert run_command(main, [*runs, "--grader", "skythought", "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert (task["before"], task["after"], task["difference"]["mean"]) == (0.5, 1.0, 0.5)
    assert run_command(main, [*runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["after"] == 0


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
    assert run_command(main, [str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    output = capsys.readouterr().out
    assert "| t | two | 43.8 | 68.8 | +25.0 [-40.0, +80.6] | 3 / 0 | 0.25 |" in output
    assert "Note: temperature is 0.6 and 0.0, so the models are not all that differs." in output
    assert "Note: t was asked in other words, so the models are not all that differs." in output
    assert run_command(main, [str(tmp_path / "one"), str(tmp_path / "none")]) == 3
    assert "give the run directory of a finished evaluation" in capsys.readouterr().err
    (tmp_path / "two" / "manifest.json").unlink()
    assert run_command(main, [str(tmp_path / "one"), str(tmp_path / "two")]) == 3
    assert "give the run directory of a finished evaluation" in capsys.readouterr().err


@pytest.fixture
def evaluation(tmp_path):
    """Return a function that writes an evaluation: by problem, the verdicts; levels alternate."""

    def write(name: str, verdicts: dict[str, list[bool]], **facts) -> str:
        run = tmp_path / name
        run.mkdir()
        rows = [
            {
                "task": "math500",
                "problem_id": problem,
                "sample_index": i,
                "correct": right,
                "correct_skythought": True,
                "finish_reason": "stop" if right else "length",
                "undecided": not right and i == 0,
                "groups": {"level": str(1 + int(problem) % 2)},
            }
            for problem, of_problem in verdicts.items()
            for i, right in enumerate(of_problem)
        ]
        (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "manifest.json").write_text(json.dumps({"temperature": 0.6, **facts}))
        return str(run)

    return write


def problems(share, num=20):
    """Return verdicts by problem: of each, the first so many of four samples are right."""
    return {str(i): [j < 4 * share for j in range(4)] for i in range(num)}


def test_seeds_are_pooled_and_any_number_of_models_is_compared(evaluation, tmp_path, capsys):
    base = evaluation("base", problems(0.25))
    one, two = evaluation("seed1", problems(0.5), seed=1), evaluation("seed2", problems(1.0), seed=2)
    words = [base, f"RLT={one},{two}", f"again={base}"]
    assert run_command(main, [*words, "--json", "--problems"]) == 0
    found = json.loads(capsys.readouterr().out)
    rlt, again = found["tasks"]
    assert (rlt["second"], rlt["before"], rlt["after"]) == ("RLT", 0.25, 0.75)
    assert "RLT is better than base by more than noise" in rlt["verdict"]
    assert (again["second"], again["after"]) == ("again", 0.25)
    assert [model["samples"] for model in found["models"]] == [{"math500": n} for n in (80, 160, 80)]
    # of four samples 3 and 2 and 0 are wrong, which are cut here; the first of four is never wrong
    assert [model["cut"]["math500"] for model in found["models"]] == [60, 40, 60]
    assert found["models"][0]["undecided"]["math500"] == 0
    assert found["problems"]["math500"]["0"] == {"base": 0.25, "RLT": 0.75, "again": 0.25}
    assert run_command(main, words) == 0
    text = capsys.readouterr().out
    assert "RLT pools 2 runs by problem: intervals are over problems, not over seeds." in text
    assert "There are 2 comparisons." in text


def test_groups_of_problems_are_compared(evaluation, capsys):
    after = {problem: [True] * 4 if int(problem) % 2 else v for problem, v in problems(0.25).items()}
    assert run_command(main, [evaluation("a", problems(0.25)), evaluation("b", after), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["groups"]
    assert (first["task"], first["difference"]["mean"]) == ("math500, level 1", 0)
    assert (second["task"], second["difference"]["mean"]) == ("math500, level 2", 0.75)
    assert "better" in second["verdict"]


def test_the_page_is_one_file_with_a_picture(evaluation, tmp_path, capsys):
    a, b = evaluation("a", problems(0.25)), evaluation("b", problems(0.5))
    assert (
        run_command(main, [f"<script>={a}", b, "--html", str(tmp_path / "new" / "page.html"), "--problems"])
        == 0
    )
    page = (tmp_path / "new" / "page.html").read_text()
    assert page.count("<circle") == 3  # the task and two levels
    assert "<script" not in page
    assert "src=" not in page
    assert "By groups of problems" in capsys.readouterr().out


def test_what_cannot_be_compared_is_said_in_a_sentence(evaluation, tmp_path, capsys):
    a, b = evaluation("a", problems(0.25)), evaluation("b", problems(0.25, num=19))
    for words, expected in (
        ([a, f"{a},{b}"], "cannot be pooled, because 1 problems are in one of them only"),
        ([a, b], "task math500 cannot be compared: pairs need the same problems"),
        ([a, str(tmp_path / "none")], "does not exist: give the run directory"),
        ([a, "RLT="], "'RLT=' names no run"),
        ([a], "give two runs at least, as in"),
    ):
        assert run_command(main, words) != 0
        assert expected in capsys.readouterr().err
