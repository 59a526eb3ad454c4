"""Runs that are suspended for longer than any limit on silence, and continue (SIGSTOP, `docker pause`)."""

from __future__ import annotations

import signal
import time

import psutil
import pytest
from helpers.fault_runs import LONG, SPLIT, num_requests, the_server
from helpers.moments import Moment
from helpers.stage_runs import count_differences

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.vllm]
SAME = "it continues, no server is started again, and metrics and weights are those of an undisturbed run"
SHORT, SUSPENDED = 90, 100
"""Seconds: limits that a busy machine keeps, and a suspension that is longer."""


@pytest.mark.parametrize(
    ("who", "limits"),
    [
        pytest.param(
            "everything",
            ["generation.silence_timeout", "generation.request_timeout", "trainer.hang_timeout"],
            marks=pytest.mark.fault("launcher, server and training are suspended beyond all limits", SAME),
        ),
        pytest.param(
            "the launcher",
            ["generation.silence_timeout", "trainer.hang_timeout"],
            marks=pytest.mark.fault("the launcher alone is suspended beyond its limits", SAME),
        ),
        pytest.param(
            "the training",
            ["generation.request_timeout"],
            marks=pytest.mark.fault("the training is suspended beyond its limit, amid a generation", SAME),
        ),
        pytest.param(
            "the server",
            [],
            marks=pytest.mark.fault("a server is suspended within its limits, amid a generation", SAME),
        ),
    ],
)
def test_what_is_suspended_goes_on(who, limits, rl_words, start_launcher, calm, lost, tmp_path):
    held = Moment(str(tmp_path / "run" / "now.json"), text='(?s)"phase": "generating".*"step": [2-9]')
    words = [*rl_words, *LONG, *(f"{limit}={SHORT}" for limit in limits)]
    launcher = start_launcher(SPLIT, "1", "1", *words, **held.environment())
    training, server, first = launcher.wait_until_held(), the_server(launcher), launcher.popen.pid
    below = {
        "the launcher": [],
        "the training": [training],
        "the server": [server, *server.children(recursive=True)],
    }
    processes = below.get(who, launcher.descendants())
    if who in ("everything", "the launcher"):
        processes = [psutil.Process(first), *processes]
    training.resume()
    launcher.wait_for("requests", lambda: num_requests(launcher.run, server) > 0, every=0.002)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    time.sleep(SUSPENDED)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    assert launcher.wait() == 0, launcher.console()
    assert "starting it again" not in launcher.console()
    lost(count_differences(launcher.run, calm))
