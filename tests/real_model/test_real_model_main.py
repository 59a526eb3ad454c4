"""The command: its words for the two pipelines, the teacher it measures, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rlt.errors import ConfigError, RLTError
from rlt.quickstart.stages import Backend
from rlt.real_model import results
from rlt.real_model.calls import read_calls, recorded_call
from rlt.real_model.main import (
    MEASURES,
    TEACHER_STEPS,
    WAYS,
    last_teacher,
    main,
    measure_words,
    place_model,
    training_words,
    ways_words,
)
from rlt.real_model.sizes import short_sizes

ROOT = Path(__file__).parents[2]


def test_every_step_that_reads_the_teacher_after_rl_gets_the_newest(tmp_path):
    steps = yaml.safe_load((ROOT / MEASURES).read_text())["pipeline"]["steps"]
    reading = [name for name, step in steps.items() if "teacher_rl" in str(step.get("model_name_or_path"))]
    assert sorted(reading) == sorted(TEACHER_STEPS)
    run = tmp_path / "training/teacher_rl"
    for step in (5, 10, 15):
        (run / f"checkpoint-{step}").mkdir(parents=True)
        if step < 15:  # the save of the last one was interrupted
            (run / f"checkpoint-{step}/trainer_state.json").touch()
    words = measure_words(tmp_path)
    assert words[2:] == [
        f"pipeline.steps.{name}.model_name_or_path={run}/checkpoint-10" for name in TEACHER_STEPS
    ]
    assert_ways_read(f"{run}/checkpoint-10", tmp_path)
    (run / "config.json").touch()  # RL has reached its last step
    assert last_teacher(run) == run


def test_the_report_reads_steps_that_the_pipeline_has():
    steps = yaml.safe_load((ROOT / WAYS).read_text())["pipeline"]["steps"]
    for student, made_by in results.WAYS.values():
        assert {f"likelihood_{student}", student, *made_by} <= steps.keys()
        assert steps[f"likelihood_{student}"]["student_model"] == f"{{{student}}}"


def assert_ways_read(teacher: str, folder: Path) -> None:
    """Every step of the three ways that names the teacher gets this one."""
    steps = yaml.safe_load((ROOT / WAYS).read_text())["pipeline"]["steps"]
    reading = [
        f"pipeline.steps.{name}.{key}={teacher}"
        for name, step in steps.items()
        for key, value in step.items()
        if "teacher_rl" in str(value)
    ]
    words = ways_words(folder, 1)
    assert sorted(words[4:]) == sorted(reading)
    assert words[2:4] == ["seed=1", f"output_dir={folder}/three_ways/seed_1"]


def test_rl_without_a_step_is_one_sentence(tmp_path):
    with pytest.raises(RLTError, match="RL has not done a single step; give more hours"):
        last_teacher(tmp_path)


def test_rl_gets_its_share_of_the_hours_and_the_engine_there_is(tmp_path):
    with_server = training_words(tmp_path, short_sizes("bfloat16"), 2.0, Backend("vllm", "a server"))
    assert "pipeline.steps.teacher_rl.trainer.max_hours=1.2" in with_server
    assert "pipeline.steps.teacher_rl.trainer.max_steps=2" in with_server
    assert "pipeline.steps.teacher_rl.generation.dtype=bfloat16" in with_server
    assert not any("backend" in word for word in with_server)
    alone = training_words(tmp_path, short_sizes("float32"), 2.0, Backend("transformers", "no vLLM"))
    assert "pipeline.steps.teacher_rl.generation.backend=transformers" in alone
    assert "pipeline.steps.teacher_rl.gpus=1" in alone


def test_a_folder_keeps_its_model(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    folder = tmp_path / "results"
    folder.mkdir()
    place_model(folder, tmp_path / "one")
    place_model(folder, tmp_path / "one")
    assert (folder / "model").resolve() == tmp_path / "one"
    with pytest.raises(ConfigError, match=r"is another model than --model=.*two: take another FOLDER"):
        place_model(folder, tmp_path / "two")
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        place_model(folder, tmp_path)


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "1e9"])
def test_hours_that_are_none(hours, tmp_path):
    with pytest.raises(ConfigError, match="HOURS must be above 0"):
        main([hours, str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_call_is_recorded_however_it_ends(tmp_path):
    def fails() -> None:
        with recorded_call(tmp_path):
            assert [call.ended for call in read_calls(tmp_path)] == [None]
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    with recorded_call(tmp_path) as second:
        pass
    first, again = read_calls(tmp_path)
    assert first.ended is not None
    assert again == second
    assert len(first.load) == 2
    assert first.cpus >= 1
