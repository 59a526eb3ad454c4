"""Chains of runs that are followed by content: moved, replaced, and from the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlt.config.compose import compose
from rlt.config.save import save_config
from rlt.errors import DataError
from rlt.lineage.__main__ import main
from rlt.lineage.runs import Runs
from rlt.lineage.trace import find_traces, trace_lineage
from rlt.records import problem_id
from rlt.rundir.run_record import RunRecord
from rlt.surroundings.leaving import run_command

ID = problem_id("1+1?", "2")


def model(folder: Path, weights: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return folder


def table(path: Path, *rows: dict) -> Path:
    columns = {
        "problem_id": ID,
        "question": "1+1?",
        "solution": "2",
        "num_tokens": 3,
        "finish_reason": "stop",
    }
    columns |= {"teacher": "t", "sampling": {"temperature": 0.7}, "well_formed": True}
    columns |= dict.fromkeys(("score", "selected"))
    path.write_text("".join(json.dumps({**columns, **row}) + "\n" for row in rows))
    return path


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return run directories: warm-up, RL, traces, scores, a selection, a student of each of two tables."""
    monkeypatch.chdir(tmp_path)
    results = Path("results")
    with RunRecord.start(
        results / "pre_rl_model", stage="teacher_sft", seed=1, inputs={"model": ("owner/base", "v1")}
    ):
        model(results / "pre_rl_model", "warm")
    with RunRecord.start(
        results / "teacher_rl", stage="teacher_rl", seed=2, inputs={"model": str(results / "pre_rl_model")}
    ):
        model(results / "teacher_rl", "paid")
    inputs = {"teacher": str(results / "teacher_rl")}
    with RunRecord.start(results / "traces", stage="collect_traces", seed=3, inputs=inputs):
        texts = ("one and one is two", "1+1=2")
        table(
            results / "traces/traces.jsonl",
            *({"sample_index": i, "explanation": t} for i, t in enumerate(texts)),
        )
    inputs = {"dataset": str(results / "traces/traces.jsonl")}
    with RunRecord.start(results / "chosen", stage="select_traces", seed=3, inputs=inputs):
        rows = [{"sample_index": 4, "explanation": texts[0], "selected": False}]
        rows += [
            {"sample_index": 5, "explanation": texts[1], "selected": True}
        ]  # numbered on, as a join does
        table(results / "chosen/traces.jsonl", *rows)
        dropped = {
            "problem_id": ID,
            "sample_index": 4,
            "why": "another explanation was chosen",
            "detail": None,
        }
        (results / "chosen/dropped.jsonl").write_text(json.dumps(dropped) + "\n")
    inputs = {"dataset": str(results / "traces/traces.jsonl"), "teacher": str(results / "teacher_rl")}
    with RunRecord.start(results / "scores", stage="score_traces", seed=3, inputs=inputs):
        rows = [
            {"sample_index": i, "explanation": t, "score": -i, "rank": 1 + i} for i, t in enumerate(texts)
        ]
        table(results / "scores/scores.jsonl", *rows)
    for name, source in (("all", "traces"), ("best", "chosen")):
        inputs = {"dataset": str(results / source / "traces.jsonl")}
        with RunRecord.start(results / name, stage="student_sft", seed=3, inputs=inputs):
            model(results / name, name)
            save_config(compose(["run_cfg=student_sft"]), results / name / "config.yaml")
    return results


def told(results: Path, index: int) -> dict:
    runs = Runs([results])
    (rows,) = find_traces(ID[:6], index, runs)
    return trace_lineage(rows, runs)


def test_a_rehearsal_is_no_run(results):
    found = [run.directory for run in Runs([results]).all]
    rehearsed = results / "teacher_rl" / "rehearsal" / "run"
    with RunRecord.start(rehearsed, stage="teacher_rl", seed=2, inputs={}):
        pass
    assert [run.directory for run in Runs([results]).all] == found


def test_a_trace_is_followed_through_tables_that_number_it_otherwise(results):
    first, second = told(results, 0), told(results, 1)
    assert first["selected"] == [
        {
            "table": "results/chosen/traces.jsonl",
            "selected": False,
            "why": "another explanation was chosen",
        }
    ]
    assert {r["directory"]: r["left_out"] for r in first["readers"]} == {
        "results/all": None,
        "results/best": "it was not selected",
    }
    assert second["scores"] == [
        {"table": "results/scores/scores.jsonl", "score": -1, "rank": 2, "breakdown": None}
    ]
    assert [r["trained"] for r in second["readers"]] == [True, True]
    assert second["explanation"]["explanation"] == "1+1=2"


@pytest.fixture
def rivals(results: Path) -> Path:
    """Return the runs with a second teacher that wrote one of the same texts, and what was made of both."""
    with RunRecord.start(results / "rival_rl", stage="teacher_rl", seed=2, inputs={}):
        model(results / "rival_rl", "rival")
    inputs = {"teacher": str(results / "rival_rl"), "dataset": str(results / "chosen/dropped.jsonl")}
    with RunRecord.start(results / "rival_traces", stage="collect_traces", seed=3, inputs=inputs):
        rows = [{"sample_index": 0, "explanation": "2"}, {"sample_index": 1, "explanation": "1+1=2"}]
        table(results / "rival_traces/traces.jsonl", *({**row, "num_tokens": 4} for row in rows))
    first, second = (str(results / name / "traces.jsonl") for name in ("traces", "rival_traces"))
    inputs = {"dataset": first, "dataset 2": second}
    with RunRecord.start(results / "joined", stage="select_traces", seed=3, inputs=inputs):
        texts = ("one and one is two", "1+1=2", "2", "1+1=2")
        rows = [{"sample_index": i, "explanation": t, "selected": i == 3} for i, t in enumerate(texts)]
        table(results / "joined/traces.jsonl", *rows)
    for name, source in (("of_rival", "rival_traces"), ("of_joined", "joined")):
        inputs = {"dataset": str(results / source / "traces.jsonl")}
        with RunRecord.start(results / name, stage="student_sft", seed=3, inputs=inputs):
            model(results / name, name)
            save_config(compose(["run_cfg=student_sft"]), results / name / "config.yaml")
    return results


def test_two_teachers_that_write_the_same_text_stay_apart(rivals):
    runs = Runs([rivals])
    found = find_traces(ID, None, runs)
    told = [trace_lineage(rows, runs, found) for rows in found]
    alike = {one["table"]: one for one in told if one["explanation"]["explanation"] == "1+1=2"}
    assert len(alike) == 2
    ours, theirs = (alike[f"results/{name}/traces.jsonl"] for name in ("traces", "rival_traces"))
    assert [one["teacher"]["run"] for one in (ours, theirs)] == ["results/teacher_rl", "results/rival_rl"]
    # each reader is told with the trace that it read: joined holds both, and only the second is selected
    trained = [{r["directory"] for r in one["readers"] if r["trained"]} for one in (ours, theirs)]
    assert trained == [{"results/all", "results/best"}, {"results/of_rival", "results/of_joined"}]
    assert [s["table"] for s in theirs["scores"]] == []
    joined = [[s["selected"] for s in one["selected"] if "joined" in s["table"]] for one in (ours, theirs)]
    assert joined == [[False], [True]]
    other = {"table": "results/rival_traces/traces.jsonl", "line": 2, "sample_index": 1}
    assert ours["same_text"] == [other]
    assert [one["same_text"] for one in told if one["explanation"]["explanation"] == "2"] == [[]]


def test_equal_text_is_said_as_such(rivals, capsys):
    assert run_command(main, [f"{ID}:1"]) == 0
    text = capsys.readouterr().out
    assert text.count("another explanation, written word for word alike") == 2
    assert "explanation 1 in results/rival_traces/traces.jsonl, line 2: another explanation" in text


def test_one_teacher_that_writes_a_text_twice_has_written_two(results):
    inputs = {"teacher": str(results / "teacher_rl")}
    with RunRecord.start(results / "twice", stage="collect_traces", seed=4, inputs=inputs):
        table(
            results / "twice/traces.jsonl",
            *({"sample_index": i, "explanation": "it is 2"} for i in (7, 9)),
        )
    inputs = {"dataset": str(results / "twice/traces.jsonl")}
    with RunRecord.start(results / "pruned", stage="select_traces", seed=3, inputs=inputs):
        rows = [{"sample_index": i, "explanation": "it is 2", "selected": i == 7} for i in (7, 9)]
        table(results / "pruned/traces.jsonl", *rows)
    first, second = told(results, 7), told(results, 9)
    assert [len(one["selected"]) for one in (first, second)] == [1, 1]
    assert [one["selected"][0]["selected"] for one in (first, second)] == [True, False]


def test_tables_of_one_that_is_lost_are_joined_by_its_content(results):
    shutil.rmtree(results / "traces")
    first, second = told(results, 0), told(results, 1)
    assert [len(one["scores"]) for one in (first, second)] == [1, 1]
    assert first["same_text"] == second["same_text"] == []


def test_the_chain_leads_back_to_the_hub_though_directories_have_moved(results, tmp_path):
    Path("results").rename("old")
    Path("old/pre_rl_model").rename("old/warm_up.1")
    history = told(Path("old"), 0)["history"]
    assert [(run["directory"], run["stage"]) for run in history] == [
        ("old/traces", "collect_traces"),
        ("old/teacher_rl", "teacher_rl"),
        ("old/warm_up.1", "teacher_sft"),
    ]
    assert history[1]["inputs"][0]["recorded"] == "results/pre_rl_model"
    assert history[1]["inputs"][0]["path"] == "old/warm_up.1"
    assert history[2]["inputs"][0]["end"] == "owner/base at v1 is from the Hub."


def test_a_checkpoint_that_was_replaced_is_not_taken_for_the_teacher(results):
    model(results / "teacher_rl", "PAID")  # of the same size
    teacher = told(results, 0)["teacher"]
    assert teacher["run"] is None
    assert teacher["end"].startswith(
        "results/teacher_rl holds something else by now, and no run under results"
    )
    shutil.rmtree(results / "teacher_rl")
    assert told(results, 0)["teacher"]["end"].startswith("results/teacher_rl does not exist any more")


def test_what_is_typed_and_what_is_printed(results, capsys):
    assert run_command(main, [f"{ID}:0"]) == 0
    text = capsys.readouterr().out
    assert f"problem {ID}, explanation 0" in text
    assert (
        "results/best (finished) from results/chosen/traces.jsonl, not trained on it: it was not selected"
        in text
    )
    assert "+0.0000      results/scores/scores.jsonl, rank 1 of its problem" in text
    assert "owner/base at v1 is from the Hub. The chain ends here." in text
    assert run_command(main, [ID, "results", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert run_command(main, ["results/best"]) == 0
    assert [
        line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines() if "seed" in line
    ] == [
        *("results/best", "results/chosen", "results/traces", "results/teacher_rl", "results/pre_rl_model"),
    ]


def test_what_a_model_took_is_summed_over_the_runs_behind_it(results, capsys):
    def took(name: str, **fields: object) -> None:
        path = results / name / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    for name in ("best", "chosen", "pre_rl_model"):
        took(name, seconds=30.0, gpu_hours=0.0)
    earlier = [{"seconds": 1000.0, "gpu_hours": 2.25}, {"seconds": None, "gpu_hours": None}]  # one was killed
    took("teacher_rl", seconds=2570.0, gpu_hours=5.75, earlier=earlier)
    took("traces", seconds=600.0, gpu_hours=0.5, results={"tokens": 1234})
    lines = ({"step": n, "time": n, "completions/total_tokens": 5000 * n} for n in (1, 2))
    closing = {"step": 2, "time": 2, "train_runtime": 9}
    text = "".join(json.dumps(line) + "\n" for line in (*lines, closing))
    (results / "teacher_rl/metrics.jsonl").write_text(text)
    assert run_command(main, ["results/best"]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines() if " took " in line]
    assert said == [
        "took         30s",
        "took         30s",
        "took         10m 00s, 0.50 GPU hours, 1,234 generated tokens",
        "took         59m 30s, 8.00 GPU hours, 10,000 generated tokens",
        "took         30s",
        "all together took 1h 11m, 8.50 GPU hours, 11,234 generated tokens",
    ]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("feedfeed", "no run under results holds an explanation of problem feedfeed"),
        (f"{ID}:7", f"problem {ID} has no explanation 7, only [0, 1]"),
        ("x:y", "`x:y` is neither a path that exists nor PROBLEM_ID"),
    ],
)
def test_what_is_not_there_is_one_sentence(results, typed, sentence, capsys):
    assert run_command(main, [typed]) == DataError.exit_code
    assert sentence in capsys.readouterr().err
