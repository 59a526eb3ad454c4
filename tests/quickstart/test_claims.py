"""The claims: tables from what seeds left, with intervals worked out by hand, and one seed end to end."""

import json
from dataclasses import replace

import pytest

from rlt.quickstart import claims
from rlt.quickstart.claims_tables import (
    TABLES,
    accuracy,
    collect,
    rewards,
    seeds_of,
    table_text,
    write_tables,
)
from rlt.records import problem_id
from rlt.surroundings.leaving import run_command

RIVALS = TABLES[0]


def answered(run, right: list[list[bool]]):
    """Leave what an evaluation of these verdicts would leave: a list for each problem."""
    run.mkdir(parents=True)
    rows = [
        {"task": "problems", "problem_id": str(n), "correct": verdict}
        for n, verdicts in enumerate(right)
        for verdict in verdicts
    ]
    (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "manifest.json").write_text("{}")
    (run / "summary.json").write_text("{}")


def scored(run, rows: list[tuple[str, str, float]]):
    """Leave scores: problem, explanation, r_SS; r_KL is 0.5."""
    run.mkdir(parents=True)
    lines = [
        {
            "problem_id": problem,
            "question": "7?9?3=5",
            "explanation": text,
            "score": r_ss - 0.5,
            "breakdown": {"r_ss": r_ss, "r_kl": 0.5},
        }
        for problem, text, r_ss in rows
    ]
    (run / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def output(tmp_path):
    for seed, share in enumerate((0.5, 0.6, 0.7)):
        directory = tmp_path / f"seed_{seed}"
        for row in RIVALS.rows:
            if row.answers is None or row.answers.endswith(".json"):
                continue
            of_ten = 9 if row.name == RIVALS.against else round(10 * share)
            answered(directory / row.answers, [[n < of_ten] for n in range(10)])
        (directory / "prefix.json").write_text(json.dumps({"a": 0.25, "b": 0.75}))
        scored(
            directory / "rivals/reward_warm",
            [("a", "This is easy.", -2.0), ("a", "7-9=8,8-3=5", -0.1), ("b", "This is easy.", -1.0)],
        )
    return tmp_path


def test_every_problem_counts_alike(output, tmp_path):
    run = tmp_path / "other"
    answered(run, [[True, False], [True, True], [False, False, False, False]])
    assert accuracy(run) == pytest.approx((0.5 + 1 + 0) / 3)
    assert accuracy(output / "seed_0/prefix.json") == 0.5
    assert accuracy(tmp_path / "nothing") is None


def test_rewards_are_means_over_problems_and_the_best_of_all_is_chosen_by_reward(output):
    found = rewards(output / "seed_0/rivals/reward_warm", best_of_all=False)
    # a: (-2 - 0.1) / 2 = -1.05; b: -1
    assert found["r_SS"] == pytest.approx(-1.025)
    assert found["reward"] == pytest.approx(-1.525)
    assert (found["vague"], found["direct"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    best = rewards(output / "seed_0/rivals/reward_warm", best_of_all=True)
    assert best["r_SS"] == pytest.approx((-0.1 - 1) / 2)
    assert best["direct"] == 0.5


def test_of_ranked_traces_those_that_were_selected_count(tmp_path):
    scored(tmp_path / "rank_1", [("a", "This is easy.", -2.0), ("a", "7-9=8,8-3=5", -0.1)])
    file = tmp_path / "rank_1/scores.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    marked = [{**line, "selected": n == 1} for n, line in enumerate(lines)]
    (tmp_path / "rank_1/traces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in marked))
    file.unlink()
    found = rewards(tmp_path / "rank_1", best_of_all=False)
    assert (found["r_SS"], found["direct"]) == (pytest.approx(-0.1), 1)


def test_the_lead_is_paired_by_seed(output):
    text = table_text(RIVALS, collect(RIVALS, seeds_of(output)))
    # leads 0.4, 0.3, 0.2: mean 0.3, standard deviation 0.1, half width 4.3027 * 0.1 / sqrt(3) = 0.2484
    assert "+30.0 [+5.2, +54.8] %" in text
    # shares 0.5, 0.6, 0.7 have the same half width
    assert "60.0 % [35.2, 84.8]" in text


def test_what_each_way_took_is_a_mean_over_seeds(tmp_path):
    table = next(table for table in TABLES if table.part == "three_ways")
    for seed in (0, 1):
        directory = tmp_path / f"seed_{seed}"
        for row in table.rows:
            assert row.answers is not None
            answered(directory / row.answers, [[True]])
        for run in {run for row in table.rows for run in row.cost}:
            (directory / run).mkdir(parents=True)
            record = {"stage": "student_sft", "seconds": 60.0 + seed}
            (directory / run / "run.json").write_text(json.dumps(record))
        traces = {"stage": "collect_traces", "seconds": 40.0, "results": {"tokens": 1000 + 500 * seed}}
        (directory / "rivals/traces_rl/run.json").write_text(json.dumps(traces))
        steps = [{"step": n, "time": n, "completions/total_tokens": 700 * n} for n in (1, 2)]
        (directory / "three_ways/opd/metrics.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps))
    lines = table_text(table, collect(table, seeds_of(tmp_path))).splitlines()
    assert lines[0].split(" | ")[3:] == ["generated tokens", "seconds |"]  # no rewards: no column of them
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[4:-1]] for line in lines}
    assert cells["its traces"] == ["1,250", "100"]
    assert cells["on-policy distillation"] == ["1,400", "60"]
    assert cells["half of its traces"] == ["0", "121"]


def test_a_seed_that_is_not_finished_does_not_count(output):
    (output / "seed_2" / RIVALS.rows[0].answers / "summary.json").unlink()
    values = collect(RIVALS, seeds_of(output))
    assert all(of_row["right"].keys() == {"0", "1"} for of_row in values.values())


def test_the_page_names_the_chance_and_leaves_out_what_has_not_run(output):
    (output / "seed_0.log").write_text("")  # as scripts/claims.sh leaves it
    text = write_tables(output)
    assert text == (output / "claims.md").read_text()
    assert "Chance: 11.1 %." in text
    assert "Ablations" not in text
    assert json.loads((output / "claims.json").read_text())["tables"].keys() == {"rivals"}


def test_the_solvers_right_answers_become_traces(tmp_path):
    problems = tmp_path / "train.jsonl"
    problems.write_text(
        '{"question": "7?9?3=5", "solution": "5"}\n{"question": "1?1?1=3", "solution": "1"}\n'
    )
    whole = "<|begin_of_thought|>\n\n7-9=8:15\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n5"
    rows = [
        {"problem_id": problem_id("7?9?3=5", "5"), "text": whole, "correct": True},
        {"problem_id": problem_id("1?1?1=3", "1"), "text": whole, "correct": False},
        {"problem_id": problem_id("1?1?1=3", "1"), "text": "no end", "correct": True},
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    right = claims.solver_traces(tmp_path, problems, only_right=True)
    assert right == [("7?9?3=5", "5", "7-9=8:15")]
    assert len(claims.solver_traces(tmp_path, problems, only_right=False)) == 2


@pytest.mark.long
def test_a_seed_runs_end_to_end_and_again_without_repeating_anything(tmp_path, monkeypatch):
    tiny = {"steps": 3, "batch_size": 8, "hidden_size": 32, "num_heads": 1, "intermediate_size": 32}
    for name in ("BASE", "SOLVER", "LARGE"):
        monkeypatch.setattr(claims, name, replace(getattr(claims, name), **tiny))
    monkeypatch.setattr(claims, "NUM_TRAIN", 16)
    monkeypatch.setattr(claims, "NUM_HELD_OUT", 4)
    words = [
        "--output",
        str(tmp_path),
        "--seeds",
        "7",
        "--parts",
        "models",
        "pipeline.every.trainer.max_steps=1",
    ]
    assert claims.main(words) == 0
    directory = tmp_path / "seed_7"
    for name in ("teacher_sft", "teacher_rl", "unshown_sft", "unshown_rl"):
        assert (directory / "models" / name / "config.json").is_file()
    shown, unshown = (
        json.loads((directory / "models" / name / "run.json").read_text())
        for name in ("teacher_rl", "unshown_rl")
    )
    assert (shown["status"], unshown["status"]) == ("finished", "finished")
    ended = {path: path.read_text() for path in directory.glob("models/*/run.json")}
    assert claims.main(words) == 0
    assert {path: path.read_text() for path in directory.glob("models/*/run.json")} == ended


def test_a_misspelt_setting_is_found_before_a_model_is_made(tmp_path, capsys):
    words = ["--output", str(tmp_path), "--seeds", "0", "--parts", "models", "learning_rat=3"]
    assert run_command(claims.main, words) == 2
    assert "`learning_rat` on the command line is not a setting" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
