"""score_traces through the real entry point: scores, ranks, kills, several processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from helpers.moments import Moment, run_until_killed
from helpers.stage_runs import run_here, run_processes, succeed
from pyarrow import parquet

from rlt.errors import CheckpointError, DataError
from rlt.rewards import StudentLikelihood
from rlt.rundir.run_record import read_run

STAGE = "score_traces"
ROWS_PER_SHARD = 4


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory) -> Path:
    """Return 15 problems with four explanations each, the last one reserved; one of them is far too long."""
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    rows = []
    for a in range(5):
        for b in range(3):
            texts = [f"{a}+{b}={(a + b + k) % 10}\n" * (k + 1) for k in range(4)]
            rows.append({"question": f"{a}+{b}*2", "solution": str((a + b) * 2 % 10), "completions": texts})
    rows[2]["completions"][1] = "1+1=2\n" * 400
    rows[3]["completions"][:3] = [None, "1+1=2\n" * 400, None]
    rows[4]["note"] = "kept"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def words(tiny_student, tiny_teacher, trace_file):
    """Return a function that gives the command-line words of a scoring run."""

    def build(output: Path, *changes: str) -> list[str]:
        return [
            "run_cfg=score_traces",
            f"student_model={tiny_student}",
            f"model_name_or_path={tiny_teacher}",
            f"dataset_id_or_path={trace_file}",
            f"output_dir={output}",
            "model.dtype=float32",
            "reward.dtype=float32",
            f"score.rows_per_shard={ROWS_PER_SHARD}",
            "score.fallback_index=-1",
            *changes,
        ]

    return build


@pytest.fixture(scope="module")
def scored(words, tmp_path_factory) -> Path:
    """Return the directory of an undisturbed run in one process."""
    return run_here(words(tmp_path_factory.mktemp("scored") / "run"), STAGE)


def rows_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "scores.jsonl").read_text().splitlines()]


def test_scores_are_those_of_the_public_reward(scored, tiny_student, tiny_teacher):
    rows = [row for row in rows_of(scored) if row["score"] is not None][:6]
    reward = StudentLikelihood(str(tiny_student), teacher=str(tiny_teacher), dtype="float32")
    from rlt.formats.layout import TeacherLayout
    from rlt.formats.prompts import default_teacher_prompt
    from rlt.formats.tags import TAG_STYLES
    from rlt.records import Problem

    tags = TAG_STYLES["bespoke"]
    layout = TeacherLayout(reward.teacher_tokenizer, tags, default_teacher_prompt(tags))
    problems = [Problem(r["problem_id"], r["question"], r["solution"]) for r in rows]
    prompts = [reward.teacher_tokenizer.decode(layout.prompt_ids(p)) for p in problems]
    expected = reward.score(
        [p.question for p in problems],
        [p.solution for p in problems],
        [r["explanation"] for r in rows],
        prompts=prompts,
    )
    for row, score in zip(rows, expected, strict=True):
        assert row["score"] == pytest.approx(score.reward, abs=1e-4)
        far = {name: row["breakdown"].pop(name) for name in ("log_ratio", "student_nll")}
        assert row["breakdown"] == pytest.approx(score.parts, abs=1e-4)
        assert far["log_ratio"] == pytest.approx(score.parts["r_kl_mean"], abs=1e-4)  # of the estimator k1
        assert far["student_nll"] > 0


def test_every_trace_has_a_row_and_long_or_missing_ones_a_reason(scored, trace_file):
    rows = rows_of(scored)
    source = [json.loads(line) for line in trace_file.read_text().splitlines()]
    assert [row["explanation"] for row in rows] == [text for s in source for text in s["completions"]]
    assert [row["sample_index"] for row in rows] == [0, 1, 2, 3] * 15
    unscored = {i: row["why"] for i, row in enumerate(rows) if row["score"] is None}
    assert unscored.keys() == {9, 12, 13, 14}
    assert unscored[9].startswith("too long: ")
    assert unscored[9].endswith("tokens where the student's context has 1024")
    assert unscored[12] == "there is no explanation"
    assert rows[16]["note"] == "kept"
    assert rows[0]["messages"][-1]["content"].startswith("<|begin_of_thought|>\n\n0+0=0")
    results = read_run(scored)["results"]
    assert (results["problems"], results["traces"], results["scored"]) == (15, 60, 56)
    assert (results["selected"], results["selected_fallbacks"]) == (15, 1)
    assert read_run(scored)["status"] == "finished"


def test_the_best_of_each_problem_is_selected_and_the_fallback_where_nothing_else_has_a_score(scored):
    rows = rows_of(scored)
    for start in range(0, 60, 4):
        group = rows[start : start + 4]
        (chosen,) = [row for row in group if row["selected"]]
        if start == 12:
            assert chosen["is_fallback"]
            continue
        others = [row for row in group[:3] if row["score"] is not None]
        assert chosen["score"] == max(row["score"] for row in others)
        assert chosen["rank"] == 1
        assert sorted(row["rank"] for row in group[:3]) == [1, 2, 3]
        assert group[3]["rank"] is None


def test_parquet_holds_the_same_rows_and_the_card_the_table(scored):
    table = parquet.read_table(scored / "scores.parquet").to_pylist()
    rows = rows_of(scored)
    assert [row["score"] for row in table] == [row["score"] for row in rows]
    assert [row["breakdown"] for row in table] == [row["breakdown"] for row in rows]
    assert [row["messages"] for row in table] == [row["messages"] for row in rows]
    best_first = [bucket["score"] for bucket in json.loads((scored / "ranks.json").read_text())["buckets"]]
    assert best_first == sorted(best_first, reverse=True)
    assert (scored / "ranks.md").read_text().strip() in (scored / "README.md").read_text()


@pytest.mark.slow
def test_two_kills_on_the_way_change_no_byte_and_nothing_is_scored_twice(scored, words, tmp_path):
    output, pattern = tmp_path / "run", "scores/shard_*.jsonl"
    command = words(output)
    stamps: dict[Path, int] = {}
    for count in (3, 6):
        moment = Moment(str(output / pattern), paths=count, signal=signal.SIGKILL)
        run_until_killed(command, moment)
        shards = {path: path.stat().st_mtime_ns for path in output.glob(pattern)}
        assert len(shards) == count
        assert stamps.items() <= shards.items()
        stamps = shards
    run_here(command, STAGE)
    assert (output / "scores.jsonl").read_bytes() == (scored / "scores.jsonl").read_bytes()
    assert (output / "ranks.json").read_bytes() == (scored / "ranks.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_the_same_command_again_scores_nothing_and_another_setting_is_refused(scored, words):
    before = (scored / "scores.jsonl").read_bytes()
    stamps = [path.stat().st_mtime_ns for path in sorted(scored.glob("scores/*"))]
    run_here(words(scored), STAGE)
    assert (scored / "scores.jsonl").read_bytes() == before
    assert [path.stat().st_mtime_ns for path in sorted(scored.glob("scores/*"))] == stamps
    with pytest.raises(CheckpointError, match=r"reward\.student_temperature was 0\.7 and is 1\.0"):
        run_here(words(scored, "reward.student_temperature=1.0"), STAGE)
    run_here(words(scored), STAGE)  # leaves a finished run for other tests


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "placement"), [("ddp", "replicated"), ("zero3", "zero3")])
def test_two_processes_give_the_same_scores(scored, words, tmp_path, strategy, placement):
    output = tmp_path / "run"
    succeed(run_processes(strategy, words(output, f"reward.placement={placement}")))
    if placement == "replicated":
        assert (output / "scores.jsonl").read_bytes() == (scored / "scores.jsonl").read_bytes()
        return
    for ours, theirs in zip(rows_of(output), rows_of(scored), strict=True):
        assert ours["score"] == (theirs["score"] and pytest.approx(theirs["score"], abs=1e-4))
        assert (ours["rank"], ours["selected"]) == (theirs["rank"], theirs["selected"])


def test_without_a_teacher_the_divergence_is_the_students_surprise(words, scored, tmp_path):
    output = run_here(words(tmp_path / "run", "model_name_or_path=null"), STAGE)
    assert "no teacher is given, so the divergence is the student's own surprise" in log(output)
    with_teacher = rows_of(scored)
    for row, other in zip(rows_of(output), with_teacher, strict=True):
        if row["score"] is not None:
            assert row["breakdown"]["r_ss"] == pytest.approx(other["breakdown"]["r_ss"], abs=1e-4)
            assert row["breakdown"]["r_kl_mean"] > 0


def test_the_divergence_can_be_off(words, tmp_path):
    changes = ("kl_penalty_reward_coeff=[0,0]", "model_name_or_path=null")
    output = run_here(words(tmp_path / "run", *changes), STAGE)
    assert "so r_KL is 0" in log(output)
    for row in rows_of(output):
        if row["score"] is not None:
            assert row["score"] == pytest.approx(row["breakdown"]["r_ss"])


def test_our_own_output_is_read_again(scored, words, tmp_path):
    output = tmp_path / "run"
    run_here(words(output, f"dataset_id_or_path={scored}/scores.jsonl"), STAGE)
    assert [row["score"] for row in rows_of(output)] == [row["score"] for row in rows_of(scored)]
    assert [row["selected"] for row in rows_of(output)] == [row["selected"] for row in rows_of(scored)]


def test_a_row_that_cannot_be_scored_stops_or_is_listed(words, tmp_path):
    path = tmp_path / "bad.jsonl"
    good = {"question": "1+1?", "solution": "2", "explanation": "1+1=2"}
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, {**good, "explanation": 3})))
    changes = (f"dataset_id_or_path={path}", "score.fallback_index=null")
    with pytest.raises(DataError, match="line 2: `explanation` must be text"):
        run_here(words(tmp_path / "stop", *changes), STAGE)
    output = run_here(words(tmp_path / "skip", *changes, "data.on_bad_row=skip"), STAGE)
    assert len(rows_of(output)) == 1
    assert json.loads((output / "skipped_rows.jsonl").read_text())["row"] == 2


def log(output: Path) -> str:
    return (output / "log.txt").read_text()
