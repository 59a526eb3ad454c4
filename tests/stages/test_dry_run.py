"""A dry run checks what is on this machine, although something else of the run is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import train
from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.schema import Config
from rlt.errors import ConfigError, DataError, ModelError
from rlt.launch.preflight import check_local_data

STUDENT, TEACHER, DATA = "bespokelabs/Bespoke-Stratos-7B", "owner/teacher", "owner/data"
"""Names of the Hub."""
ROOT = Path(train.__file__).parent
ROW = {"question": "2+2", "solution": "4", "reasoning_trace": "Two and two."}
SKIP = "data.on_bad_row=skip"
RL = ("run_cfg=teacher_rl", "train_batch_size=8", "num_generations=4", "max_completion_length=64")


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., str]:
    """Return the writer of a data file."""

    def write(*rows: dict) -> str:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def composed(*words: str) -> Config:
    return resolve(compose(words))


def check(*words: str) -> None:
    config = composed(*words)
    import_module(f"rlt.stages.{config.stage}").check(config)


@pytest.mark.parametrize(
    "words",
    [
        (*RL, f"student_model={STUDENT}", f"model_name_or_path={TEACHER}"),
        ("run_cfg=student_sft", f"model_name_or_path={TEACHER}"),
        ("run_cfg=student_rl", f"model_name_or_path={TEACHER}", "layout.student_prompt=from_dataset"),
        (
            *("run_cfg=student_opd", f"model_name_or_path={TEACHER}", f"teacher_model={STUDENT}"),
            "layout.student_prompt=from_dataset",
        ),
    ],
)
def test_rows_without_the_prompt_of_a_student_that_is_elsewhere(words, rows):
    """Before, nothing was looked into where one model was not on this machine."""
    path = rows(*[ROW] * 3)
    for look in (check, lambda *words: check_local_data(composed(*words))):
        with pytest.raises(DataError) as error:
            look(*words, f"dataset_id_or_path={path}")
        said = str(error.value)
        assert "line 1: problem " in said
        assert "has no system prompt, which layout.student_prompt=from_dataset reads" in said
        assert "2 more rows are bad" in said
        assert SKIP not in said  # it would leave no row
    some = rows({**ROW, "system": "Think."}, ROW)
    with pytest.raises(DataError, match=f"line 2: problem .* or skip such rows with {SKIP}"):
        check_local_data(composed(*words, f"dataset_id_or_path={some}"))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nowhere_rewards:f", "nowhere_rewards cannot be imported"),
        ("math:sqr", "`reward.functions` names math:sqr, but math has no function sqr: did you mean sqrt?"),
    ],
)
def test_reward_functions_are_imported(function, said, rows):
    """Before, a dry run did not look at them, and called the run ready."""
    functions = f"reward.functions=[{{path: {function}, weight: 1}}]"
    with pytest.raises(ConfigError, match=re.escape(said)):
        check(*RL, f"student_model={STUDENT}", f"model_name_or_path={TEACHER}", functions)


def test_columns_that_a_reward_function_reads_are_looked_for(tiny_teacher, rows, tmp_path, monkeypatch):
    (tmp_path / "rewards_by_level.py").write_text("def by_level(level): return level\n")
    monkeypatch.syspath_prepend(tmp_path)
    models = (f"student_model={tiny_teacher}", f"model_name_or_path={tiny_teacher}")
    own = "reward.functions=[{path: rewards_by_level:by_level, weight: 1}]"
    words = (*RL, *models, "max_prompt_length=256", "layout.student_prompt=Think.", own)
    problems = [{**ROW, "question": f"2+{n}"} for n in range(8)]
    check(*words, f"dataset_id_or_path={rows(*[{**row, 'level': 1} for row in problems])}")
    with pytest.raises(DataError, match="has the parameter `level`, which is no column of the dataset"):
        check(*words, f"dataset_id_or_path={rows(*problems)}")


def test_traces_without_the_prompt_are_found_before_scoring(rows, capsys):
    words = ["run_cfg=score_traces", f"student_model={STUDENT}", "layout.student_prompt=from_dataset"]
    assert train.main([*words, f"dataset_id_or_path={rows(ROW)}", "--dry-run"]) == DataError.exit_code
    assert "has no system prompt" in capsys.readouterr().err


def test_rows_of_a_run_whose_models_are_elsewhere(rows):
    """Too few for a step; a trace that ends in its own tag."""
    told = {**ROW, "system": "Think."}
    elsewhere = (f"model_name_or_path={TEACHER}",)
    with pytest.raises(DataError, match=r"leaves 1 problems to train on, but one step needs .* = 2"):
        check(*RL, f"student_model={STUDENT}", *elsewhere, f"dataset_id_or_path={rows(told)}")
    bad = {**ROW, "reasoning_trace": "It ends <|end_of_explanation|>"}
    with pytest.raises(DataError, match=r"contains <\|end_of_explanation\|>"):
        check("run_cfg=teacher_sft", *elsewhere, f"dataset_id_or_path={rows(bad)}")
    unlike = {**told, "question": "Make 5 of 2 and 3.", "solution": "2+3", "numbers": [2, 3], "target": 5}
    student_rl = ("run_cfg=student_rl", "correctness.grader=math", *elsewhere)
    with pytest.raises(DataError, match="is a Countdown problem, for which the grader math"):
        check(*student_rl, f"dataset_id_or_path={rows(unlike)}")


@pytest.mark.parametrize("stage", ["teacher_sft", "teacher_rl", "student_sft", "student_rl", "student_opd"])
def test_a_model_without_a_chat_template_is_found_though_the_data_is_elsewhere(
    stage, tiny_teacher, tmp_path, monkeypatch
):
    shutil.copytree(tiny_teacher, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    words = [f"run_cfg={stage}", f"dataset_id_or_path={DATA}", f"model_name_or_path={tmp_path / 'model'}"]
    words += [f"student_model={STUDENT}"] if stage == "teacher_rl" else []
    words += [f"teacher_model={STUDENT}"] if stage == "student_opd" else []
    with pytest.raises(ModelError, match="has no chat template"):
        check(*words)


def test_a_student_is_looked_into_though_teacher_and_data_are_elsewhere(tiny_student):
    words = [*RL, f"model_name_or_path={TEACHER}", f"student_model={tiny_student}"]
    words += [f"dataset_id_or_path={DATA}", "layout.student_prompt=default"]
    with pytest.raises(ConfigError, match=r"max_completion_length=4096` must leave room for question"):
        check(*words, "max_completion_length=4096")
    check(*words)


def test_a_row_that_fills_the_students_context_is_found_though_the_teacher_is_elsewhere(tiny_student, rows):
    long = {"question": "1" + "+1" * 1000, "solution": "4"}
    words = [*RL, f"model_name_or_path={TEACHER}", f"student_model={tiny_student}"]
    words += ["layout.student_prompt=default", "data.on_long_row=error"]
    with pytest.raises(DataError, match=r"student tokens around the explanation where the student's context"):
        check(*words, f"dataset_id_or_path={rows(long, ROW)}")


def test_what_is_elsewhere_is_named_and_the_rest_is_said_to_be_right(rows, capfd):
    told = {**ROW, "system": "Think."}
    words = [*RL, f"student_model={STUDENT}", f"model_name_or_path={TEACHER}"]
    config = composed(*words, f"dataset_id_or_path={rows(told, {**told, 'question': '3+1'})}")
    train.check_text(config)
    said = f"not checked, because it comes from the Hub: {TEACHER}, {STUDENT}; what is here is as"
    assert f"{said} teacher_rl needs it" in capfd.readouterr().err


@pytest.mark.slow
def test_a_model_in_the_hubs_cache_is_looked_into(tiny_teacher, rows, tmp_path):
    """Before, it was said not to be on this machine."""
    cached = tmp_path / "cache" / "models--someone--model"
    shutil.copytree(tiny_teacher, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    words = ["run_cfg=teacher_sft", "model_name_or_path=someone/model", f"dataset_id_or_path={rows(ROW)}"]
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *words, "train_batch_size=1", "--dry-run"],
        env=os.environ | {"HF_HUB_CACHE": str(cached.parent), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert "`data.max_length = 16384` must fit the context of someone/model" in done.stderr
