"""The start and the end of a run directory."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from rlt.config.compose import compose
from rlt.data.kept import BadRow, KeptRows
from rlt.errors import CheckpointError, ConfigError, DataError
from rlt.rundir.run_record import COMMAND_VARIABLE, read_run
from rlt.stages.common import places_of, resume_point, run_directory, start_step, write_skipped
from rlt.trainers.order import Places, all_of


def config(directory: Path, *words: str):
    return compose(["run_cfg=teacher_rl", f"output_dir={directory}", "report_to=null", *words])


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"`output_dir=.*/file/run` cannot hold a run \(.*Not a directory\)"),
        run_directory(config(tmp_path / "file" / "run"), {}),
    ):
        pass


def test_an_early_failure_leaves_a_record_and_no_report(tmp_path, monkeypatch):
    monkeypatch.setenv(COMMAND_VARIABLE, "./launch.sh 2 cfgs/run_cfg/teacher_rl.yaml")
    with pytest.raises(DataError), run_directory(config(tmp_path), {}):
        raise DataError("row 3 is empty")
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", "DataError: row 3 is empty")
    assert record["command"] == "./launch.sh 2 cfgs/run_cfg/teacher_rl.yaml"
    assert (tmp_path / "config.yaml").is_file()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk that is always full")
@pytest.mark.parametrize(
    ("write", "what"),
    [
        (lambda: Path("/dev/full").write_text("x"), "a file"),
        (lambda: torch.save({"moment": torch.zeros(2**20)}, "/dev/full"), "a checkpoint's file"),
    ],
    ids=["text", "torch"],
)
def test_a_full_disk_is_one_sentence(tmp_path, write, what):
    with (
        pytest.raises(CheckpointError, match=rf"{what} cannot be written \(No space left on device\)"),
        run_directory(config(tmp_path), {}),
    ):
        write()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "failed"
    assert "No space left on device" in record["error"]


def test_safetensors_tells_a_full_disk_in_its_own_words(tmp_path):
    """Its words on a full tmpfs; /dev/full does not serve, as it renames a finished file onto its target."""
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with (
        pytest.raises(CheckpointError, match="a model's weights cannot be written"),
        run_directory(config(tmp_path), {}),
    ):
        raise error


def test_another_error_of_the_same_kind_stays_itself(tmp_path):
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), run_directory(config(tmp_path), {}):
        raise RuntimeError("shapes differ")


def test_left_out_rows_are_listed_by_the_main_process_and_for_this_run_only(tmp_path, monkeypatch):
    bad = (BadRow("a.jsonl", 9, "too long: “é”\n"), BadRow("a.jsonl", 2, "empty"))
    left_out, whole = (KeptRows("a.jsonl", "line", {1: "x"}, 3, skipped) for skipped in (bad, ()))
    monkeypatch.setenv("RANK", "1")
    assert write_skipped(config(tmp_path), left_out, None) == 2
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    assert write_skipped(config(tmp_path), left_out, whole) == 2
    lines = (tmp_path / "skipped_rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"source": "a.jsonl", "row": 2, "reason": "empty"},
        {"source": "a.jsonl", "row": 9, "reason": "too long: “é”\n"},
    ]
    assert write_skipped(config(tmp_path), whole, None) == 0
    assert not list(tmp_path.iterdir())


def test_latest_checkpoint(tmp_path):
    for step in (8, 16, 24):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step < 24:  # the save of step 24 was interrupted
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    assert resume_point(config(tmp_path, "resume_from=latest")) == tmp_path / "checkpoint-16"
    assert start_step(tmp_path / "checkpoint-16") == 16
    assert resume_point(config(tmp_path)) is None
    assert start_step(None) == 0
    with pytest.raises(CheckpointError, match=r"checkpoint-24 is no whole checkpoint: its last file"):
        resume_point(config(tmp_path, f"resume_from={tmp_path / 'checkpoint-24'}"))
    with pytest.raises(CheckpointError, match="finds no whole checkpoint"):
        resume_point(config(tmp_path / "empty", "resume_from=latest"))


def test_a_run_goes_on_in_the_order_that_it_began_with(tmp_path):
    """A checkpoint from before rows kept their places in the dataset shuffles those that are left."""
    rows = KeptRows("a.jsonl", "line", {1: "x", 4: "y", 9: "z"}, 5, numbers=[1, 3, 4, 5, 9])
    checkpoint = tmp_path / "checkpoint-8"
    checkpoint.mkdir()
    origin = {"traits": {}, "inputs": {}}
    for found, kept, order in (
        (None, Places([0, 2, 4], 5), "of the dataset"),
        (origin, all_of(3), "of the rows that are left"),
        ({**origin, "row_order": "of the rows that are left"}, all_of(3), "of the rows that are left"),
        ({**origin, "row_order": "of the dataset"}, Places([0, 2, 4], 5), "of the dataset"),
    ):
        (checkpoint / "origin.json").write_text(json.dumps(found))
        with run_directory(config(tmp_path / "run"), {}, card=None) as record:
            places = places_of(rows, checkpoint if found else None, record)
        assert (list(places.of_rows), places.total) == (list(kept.of_rows), kept.total)
        assert read_run(tmp_path / "run")["row_order"] == order
