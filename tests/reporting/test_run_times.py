"""The time of a run by phase: counted from one phase to the next, and shown with each one's share."""

import pytest
from helpers.page_tags import parse

from rlt.reporting.run_page import write_run_page
from rlt.rundir.now import Now
from rlt.rundir.run_record import RunRecord, read_run


def test_a_phase_ends_where_the_next_begins(tmp_path, monkeypatch):
    clock = iter((10.0, 13.0, 14.5, 16.5, 20.5))
    monkeypatch.setattr("rlt.rundir.now.since_boot", lambda: next(clock))
    now = Now(tmp_path)
    for phase in ("reading", "answering", "reading", "writing"):
        now.enter(phase)
    # reading 3 and again 2, answering 1.5, writing 4 until now
    assert now.spent() == {"reading": 5.0, "answering": 1.5, "writing": 4.0}


@pytest.mark.parametrize("stage", ["teacher_sft", "evaluate"])
def test_the_page_shows_time_and_share(tmp_path, stage):
    with RunRecord.start(tmp_path, stage=stage, seed=1, inputs={}) as record:
        record.update(seconds_by_phase={"loading": 3.0, "updating": 5940.0, "saving": 57.0})
    write_run_page(tmp_path, read_run(tmp_path), "run.html.j2")
    rows = parse(tmp_path / "report.html").text.split("Time of the run")[1].split("Phases follow")[0]
    # of 6,000 seconds
    found = [row for row in rows.split("\n") if row]
    assert found == ["phasetimeshare", "loading3.0s0 %", "updating1h 39m99 %", "saving57s1 %"]


def test_a_run_whose_phases_are_not_known_has_no_table(tmp_path):
    with RunRecord.start(tmp_path, stage="evaluate", seed=1, inputs={}):
        pass
    write_run_page(tmp_path, read_run(tmp_path), "run.html.j2")
    assert "Time of the run" not in parse(tmp_path / "report.html").text
