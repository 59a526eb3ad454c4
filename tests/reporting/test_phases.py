"""now.json: the phases of a real Trainer, and a disk that takes no more."""

from __future__ import annotations

import errno
import json
import logging
import os
import time

from transformers import IntervalStrategy

from rlt.rundir.now import NAME, Now, read_now
from rlt.rundir.phases import Phases


def test_the_phases_of_a_training(make_trainer, tmp_path):
    told = []

    class Recorded(Now):
        def enter(self, phase, step=None, of=None):
            super().enter(phase, step, of)
            told.append((phase, step, of))

    phases = Phases(Recorded(tmp_path))
    phases.enter("loading")
    trainer = make_trainer([phases], save_steps=3)
    trainer.eval_dataset, trainer.args.eval_steps = trainer.train_dataset, 2
    trainer.args.eval_strategy = IntervalStrategy.STEPS
    trainer.train()
    assert told[0] == ("loading", None, None)
    assert told[1:] == [
        ("updating", 1, 3),  # training begins
        ("updating", 1, 3),
        ("updating", 2, 3),
        ("evaluating", 3, 3),  # two steps are done
        ("updating", 3, 3),
        ("updating", 3, 3),
        ("evaluating", 3, 3),  # and at the end
        ("saving", 3, 3),
        ("saving", 3, 3),  # the final model
    ]
    now = json.loads((tmp_path / NAME).read_text())
    assert (now["phase"], now["step"], now["of"]) == ("saving", 3, 3)
    assert now["since"] <= now["written"] <= time.time() + 0.01  # rounded


def test_the_same_phase_is_not_written_at_every_fast_step(tmp_path, monkeypatch):
    monkeypatch.setattr("rlt.rundir.now._REPEAT_AFTER", 1000.0)  # so that 50 steps are fast anywhere
    now = Now(tmp_path)
    for step in range(50):
        now.enter("updating", step, 50)
    assert json.loads((tmp_path / NAME).read_text())["step"] == 0


def test_whoever_goes_on_with_the_file_adds_to_what_was_spent(tmp_path, monkeypatch):
    clock = iter((100.0, 107.5, 110.0, 111.0, 115.0))
    monkeypatch.setattr("rlt.rundir.now.since_boot", lambda: next(clock))
    begun = Now(tmp_path)
    begun.clear()
    begun.enter("loading")  # at 100
    going_on = Now(tmp_path)
    for phase in ("updating", "saving", "updating"):  # at 107.5, 110 and 111
        going_on.enter(phase)
    assert Now(tmp_path).spent() == {"loading": 7.5, "updating": 2.5 + 4, "saving": 1}  # at 115
    Now(tmp_path).clear()
    assert Now(tmp_path).spent() == {}


def test_a_disk_that_takes_no_more_ends_the_telling_alone(tmp_path, caplog):
    (tmp_path / "a_file").touch()
    now = Now(tmp_path / "a_file")
    with caplog.at_level(logging.WARNING):
        for phase in ("generating", "updating", "generating"):
            now.enter(phase)
    assert len(caplog.records) == 1
    assert "is not written any more" in caplog.text


def test_what_is_not_written_any_more_is_not_left_to_be_misread(tmp_path, monkeypatch):
    """Whoever saw the old phase for hours would take the run to hang."""
    now = Now(tmp_path)
    now.enter("generating")
    assert read_now(tmp_path) is not None

    def full(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rlt.rundir.now.write_json", full)
    now.enter("updating")
    assert read_now(tmp_path) is None
