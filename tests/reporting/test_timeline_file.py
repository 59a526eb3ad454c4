"""timeline.jsonl of a training, and the picture of one of its steps."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.page_tags import parse
from transformers import TrainerState

from rlt.errors import DataError
from rlt.evaluation.intervals import paired_interval
from rlt.reporting.report import write_report
from rlt.reporting.timeline_plot import _place, draw_timeline, median_step
from rlt.rundir.processes import describe_process, gpus_of_servers, write_processes
from rlt.rundir.timeline import TimelineFile, read_timelines
from rlt.surroundings.timeline import Span, Timeline


def step(number: int, seconds: float = 10.0) -> Timeline:
    """Return a step in which a process scores while it waits for a server."""
    spans = [
        Span("process 0, GPU 1", "wait", 0.5, 6.0),
        Span("process 0, GPU 1", "reward", 2.0, 7.25),
        Span("process 0, GPU 1", "update", 7.25, seconds),
        Span("server 127.0.0.1:8000", "generate", 0.5, 6.0),
    ]
    return Timeline(number, seconds, tuple(spans))


def begin(file: TimelineFile, at_step: int) -> TimelineFile:
    file.on_train_begin(None, TrainerState(global_step=at_step), None)  # pyright: ignore[reportArgumentType]
    return file


def test_steps_are_appended_and_those_that_are_repeated_are_cut(tmp_path: Path):
    file, path = begin(TimelineFile(tmp_path), 0), tmp_path / "timeline.jsonl"
    for number in (1, 2, 3):
        file.write(step(number))
    assert read_timelines(path) == [step(1), step(2), step(3)]
    begin(TimelineFile(tmp_path), 2).write(step(3, 11.0))
    assert read_timelines(path) == [step(1), step(2), step(3, 11.0)]
    begin(TimelineFile(tmp_path), 0).write(step(1))
    assert read_timelines(path) == [step(1)]
    assert len(read_timelines(tmp_path / "timeline.jsonl.1")) == 3


def test_a_line_that_a_crash_cut_is_skipped_and_another_is_named(tmp_path: Path):
    file, path = TimelineFile(tmp_path), tmp_path / "timeline.jsonl"
    file.write(step(1))
    whole = path.read_text()
    path.write_text(whole + whole[:40])
    assert read_timelines(path) == [step(1)]
    path.write_text(whole[:40] + "\n" + whole)
    with pytest.raises(DataError, match=r"timeline\.jsonl line 1 is not a step's timeline .*; remove it"):
        read_timelines(path)


def test_the_median_of_an_even_number_is_the_shorter_one():
    assert median_step([step(1, 30), step(2, 12), step(3, 11), step(4, 10)]).step == 3
    assert median_step([step(1, 30), step(2, 12), step(3, 11)]).step == 2


def test_servers_stand_above_processes_and_ten_comes_after_two():
    lanes = ["process 10, GPU 2", "process 2, GPU 10", "server 10.0.0.1:8001", "server 10.0.0.1:8000"]
    assert sorted(lanes, key=_place) == lanes[::-1]


def test_the_picture_says_which_step_it_is(rl_run: Path):
    for number, seconds in ((1, 30.0), (2, 12.5), (3, 11.0)):
        TimelineFile(rl_run).write(step(number, seconds))
    page = parse(write_report(rl_run, paired_interval))
    assert "One step" in page.text
    assert "step 2, of median length among the 3 that were logged: 12.5 s" in page.text


def test_a_server_is_drawn_with_the_gpus_that_its_launcher_gave_it(tmp_path: Path):
    assert gpus_of_servers(tmp_path) == {}
    here = describe_process("vLLM server 0", 1, address="http://127.0.0.1:8000", gpus="0,1")
    elsewhere = describe_process("vLLM server 1", 1, address="http://127.0.0.1:8001", gpus=None)
    write_processes(tmp_path, [here, elsewhere, describe_process("training", 1)])
    gpus = gpus_of_servers(tmp_path)
    assert gpus == {"http://127.0.0.1:8000": "0,1"}
    assert "<!-- server 127.0.0.1:8000, GPU 0,1 -->" in draw_timeline(step(1), gpus)


def test_a_bar_begins_and_ends_where_its_span_does():
    """Ten seconds are as wide as the axis, so a bar's share of the axis is its share of the step."""
    svg = draw_timeline(step(1), {})
    ElementTree.fromstring(svg)
    edges = {}
    for name, color in (("update", "1f5fa8"), ("generate", "2d8050"), ("reward", "c2571a")):
        bars = re.findall(rf'<path d="M ([\d. \nLz-]+)"[^>]*style="fill: #{color}"', svg)
        xs = [float(x) for x in re.findall(r"(-?[\d.]+) -?[\d.]+ *\n", max(bars, key=len) + " \n")]
        edges[name] = (min(xs), max(xs))
    seconds_wide = (edges["update"][1] - edges["update"][0]) / 2.75
    assert edges["generate"][1] - edges["generate"][0] == pytest.approx(5.5 * seconds_wide, rel=1e-3)
    assert edges["reward"][1] == pytest.approx(edges["update"][0], abs=0.01)
    assert edges["update"][0] - edges["generate"][0] == pytest.approx(6.75 * seconds_wide, rel=1e-3)
