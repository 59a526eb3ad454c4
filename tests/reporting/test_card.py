from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from rlt.evaluation.intervals import paired_interval
from rlt.reporting.card import write_card
from rlt.reporting.report import write_report
from rlt.rundir.run_record import RunRecord


def test_the_card_is_a_valid_card_with_the_facts_of_the_run(rl_run):
    path = write_card(rl_run)
    card = ModelCard.load(path)
    assert card.data.library_name == "transformers"
    assert card.data.datasets == ["bespokelabs/Bespoke-Stratos-17k"]
    assert card.data.base_model is None  # a local folder
    # -0.9 + 0.01 + 0.05 sin(1.7) and -0.9 + 0.6 + 0.05 sin(102)
    assert "reinforcement-learned-teacher" in card.data.tags
    assert "| reward | -0.8404 | -0.2503 | 60 |" in card.text
    for expected in (
        "./launch.sh cfgs/run_cfg/teacher_rl.yaml",
        "Seed: 7",
        "`learning_rate` | `1e-06`",
        "## Licence",
    ):
        assert expected in card.text


@pytest.mark.slow
def test_a_student_that_moved_says_so_in_card_and_report(rl_run):
    config = rl_run / "config.yaml"
    frozen = yaml.safe_load(config.read_text()) | {"stage": "teacher_rl", "student_model": "small"}
    for student, every, said in (
        ("small", 32, None),
        ("policy", 0, "the trained model itself (`student_model=policy`), which moved with every step"),
        ("reference", 32, "the reference model (`student_model=reference`), which moved every 32 steps"),
        ("reference", 0, None),
    ):
        config.write_text(
            yaml.safe_dump(frozen | {"student_model": student, "trainer": {"ref_sync_steps": every}})
        )
        for text in (write_card(rl_run).read_text(), write_report(rl_run, paired_interval).read_text()):
            assert (said in text) if said else ("which moved" not in text)


def test_a_student_paid_by_likelihood_is_not_said_to_give_right_answers(tmp_path):
    RunRecord.start(tmp_path, stage="student_rl", seed=1, inputs={"dataset": ("gsm8k", None)})
    facts = {"stage": "student_rl", "student_model": "policy", "correctness": {"grader": "likelihood"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(facts))
    text = write_card(tmp_path).read_text()
    assert "after which the known solution is likely" in text
    assert "right answers" not in text
    assert "which moved with every step" in text
    assert "`student_model` | `policy`" in text
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(facts | {"correctness": {"grader": "math"}}))
    text = write_card(tmp_path).read_text()
    assert "right answers" in text
    assert "student_model" not in text


def test_the_card_holds_no_secret_and_no_home_path(rl_run, monkeypatch):
    monkeypatch.setenv("HOME", str(rl_run.parent))
    config = rl_run / "config.yaml"
    config.write_text(config.read_text() + f"student_model: {rl_run.parent}/student\n")
    text = write_card(rl_run).read_text()
    assert "hf_abcdef" not in text
    assert str(rl_run.parent) not in text
    assert "`~/student`" in text


def test_a_hub_base_model_is_named_also_through_our_earlier_run(tmp_path):
    warmup, teacher = tmp_path / "pre_rl_model", tmp_path / "teacher"
    with RunRecord.start(warmup, stage="teacher_sft", seed=1, inputs={"model": "Qwen/Qwen2.5-7B-Instruct"}):
        (warmup / "config.json").write_text("{}")
    with RunRecord.start(teacher, stage="teacher_rl", seed=1, inputs={"model": str(warmup)}):
        pass
    for folder in (warmup, teacher):
        header = write_card(folder, license_id="apache-2.0").read_text().split("---")[1]
        fields = yaml.safe_load(header)
        assert (fields["base_model"], fields["license"]) == ("Qwen/Qwen2.5-7B-Instruct", "apache-2.0")


def test_an_unfinished_run_says_so(tmp_path):
    RunRecord.start(tmp_path, stage="teacher_rl", seed=1, inputs={"dataset": ("gsm8k", None)})
    text = write_card(tmp_path).read_text()
    assert "has not finished: its status is running" in text
    assert "datasets:" not in text  # not a full Hub name
    assert Path(tmp_path / "README.md").exists()
