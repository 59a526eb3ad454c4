"""Warnings are said once, and again only after the value was well back."""

from __future__ import annotations

import logging
import math

from rlt.trainers.alarms import Alarms


def said(alarms: Alarms, watch, values, caplog) -> list[int]:
    """Return for each value how many lines were logged."""
    counts = []
    for value in values:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            watch("length", value, 2.0, "explanations grow")
        counts.append(len(caplog.records))
    return counts


def test_over_a_limit(caplog):
    alarms = Alarms(speaks=True)
    values = [1.9, 2.1, 3.0, 1.1, 2.1, 1.0, 2.1, math.nan]
    assert said(alarms, alarms.over, values, caplog) == [0, 1, 0, 0, 0, 0, 1, 0]


def test_under_a_limit(caplog):
    alarms = Alarms(speaks=True)
    values = [2.0, 1.9, 3.9, 1.9, 4.0, math.nan, 1.9]
    assert said(alarms, alarms.under, values, caplog) == [0, 1, 0, 0, 0, 1, 0]


def test_names_are_apart_and_other_processes_are_silent(caplog):
    alarms = Alarms(speaks=False)
    with caplog.at_level(logging.WARNING):
        alarms.over("a", 2, 1, "a is over")
        alarms.over("b", 2, 1, "b is over")
    assert not caplog.records
    assert alarms.raised == {"a", "b"}
