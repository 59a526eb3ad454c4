"""Engine drift since the last log line: token-weighted, NaN first, said once."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from rlt.errors import GenerationError
from rlt.trainers.alarms import Alarms
from rlt.trainers.drift_log import DriftLog


@pytest.fixture
def drift_log():
    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(cpu=True)
    yield DriftLog(Alarms(speaks=True), limit=0.05, error_limit=None)
    AcceleratorState._reset_state(reset_partial_state=True)


def add(log: DriftLog, *differences: float) -> None:
    policy = torch.tensor([differences])
    log.add(policy, torch.zeros_like(policy), torch.ones_like(policy))


def test_the_mean_is_over_tokens_and_starts_anew(drift_log):
    add(drift_log, 0.01, 0.03, 0.02)
    add(drift_log, 0.06)
    # (0.01 + 0.03 + 0.02 + 0.06) / 4, not the mean of 0.02 and 0.06
    assert drift_log.metrics() == pytest.approx({"drift/max": 0.06, "drift/mean": 0.03})
    assert drift_log.metrics() == {}


def test_it_warns_once_until_it_has_been_well_below_again(drift_log, caplog):
    said = []
    for difference in (0.06, 0.07, 0.04, 0.06, 0.02, 0.06, math.nan):
        add(drift_log, difference)
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            drift_log.metrics()
            said.append(len(caplog.records))
    assert said == [1, 0, 0, 0, 0, 1, 0]


def test_a_nan_is_the_largest(drift_log):
    add(drift_log, math.nan, 0.5)
    add(drift_log, 0.9)
    assert math.isnan(drift_log.metrics()["drift/max"])


@pytest.mark.parametrize("difference", [0.002, math.nan])
def test_a_reward_that_reads_the_samples_allows_none(difference):
    Accelerator(cpu=True)
    log = DriftLog(Alarms(speaks=True), limit=0.05, error_limit=0.001)
    add(log, 0.0005)
    assert log.metrics()["drift/max"] == pytest.approx(0.0005)
    add(log, difference)
    with pytest.raises(GenerationError, match=r"reward.teacher_logprobs=engine is exact only up to 0.001"):
        log.metrics()
