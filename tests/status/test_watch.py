"""The live view of a run, from its files."""

from __future__ import annotations

import os

from test_status import write_metrics, write_run

from rlt.errors import DataError
from rlt.status.watch import curves, fit, main, sparkline
from rlt.surroundings.leaving import run_command


def test_a_run_that_has_ended_is_shown_once_with_its_curves(tmp_path, capsys):
    write_run(tmp_path, "finished", pid=os.getpid())
    write_metrics(tmp_path, 16)
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{tmp_path}: teacher_rl finished after 1m 30s, step 16 done\n")
    assert "\nreward      ████▇▆" not in shown  # rewards of -1/8, -2/8, … fall
    assert "\nreward      ██▇▇▆▆▅▅▄▄▃▃▂▂▁▁  -0.125 -> -2\n" in shown
    assert "\nloss        ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁  0.5 -> 0.5\n" in shown
    assert "\x1b" not in shown  # the output is no terminal


def test_a_bar_is_the_mean_of_its_steps():
    # 4 groups of two: 0.5, 2.5, 4.5, 6.5 of a range from 0.5 to 6.5
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 4) == "▁▃▆█"
    assert sparkline([1.0, float("nan")], 8) == "▁▁"


def test_a_page_is_cut_to_the_terminal():
    assert fit("abcdef\nb\nc\nd\n", columns=3, lines=4) == "abc\nb\nc\n"


def test_a_run_without_steps_has_no_curves(tmp_path):
    assert curves(write_run(tmp_path, "running"), 80) == ""


def test_watching_less_than_no_time_is_refused(tmp_path, capsys):
    assert run_command(main, [str(tmp_path), "--every", "0"]) == DataError.exit_code
    assert "--every must be positive, got 0" in capsys.readouterr().err
