"""Runs that are ended from outside: the same command goes on, as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import signal
import time

import psutil
import pytest
from launchers import Launcher
from stage_runs import count_differences

pytestmark = [pytest.mark.slow, pytest.mark.long]
LOCAL = "generation.backend=transformers"
SAME = "the same command goes on: metrics and weights are those of an undisturbed run"


def kill_training(launcher: Launcher) -> None:
    """Kill every process of the training at once."""
    for process in launcher.called("train.py"):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


KILLS = [
    pytest.param(
        *(stage, count, strategy),
        id=f"{stage}-{count}-{strategy}",
        marks=pytest.mark.fault(f"SIGKILL to {stage}, {count} process{'es' * (count > 1)}, {strategy}", SAME),
    )
    for stage in ("teacher_sft", "teacher_rl")
    for count, strategy in ((1, "ddp"), (2, "zero2"), (2, "zero3"))
]


@pytest.mark.parametrize(("stage", "count", "strategy"), KILLS)
def test_sigkill(stage, count, strategy, rl_words, sft_words, start_launcher, tmp_path, lost):
    words = [*rl_words, LOCAL] if stage == "teacher_rl" else sft_words
    command = ["launch.sh", str(count), *words, strategy]
    killed = start_launcher(*command, "resume_from=auto")
    killed.wait_for("step 3", lambda: killed.has_stepped(3), 300, every=0.02)
    kill_training(killed)
    assert killed.wait(60) != 0
    assert not (killed.run / "model.safetensors").exists()
    resumed = start_launcher(*command, "resume_from=auto")
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))


@pytest.mark.fault("SIGKILL while a checkpoint is being written", SAME)
def test_sigkill_while_saving(rl_words, start_launcher, tmp_path, lost):
    command = ["launch.sh", *rl_words, LOCAL]
    killed = start_launcher(*command, "resume_from=auto")
    torn = killed.run / "checkpoint-4"
    killed.wait_for("step 3", lambda: killed.has_stepped(3), 300, every=0.01)
    training = killed.called("train.py")
    killed.wait_for("the checkpoint's folder", torn.is_dir, 300, every=0.001)
    for process in training:
        process.kill()
    killed.wait(60)
    assert not (torn / "trainer_state.json").exists(), "it was whole already: nothing was tried"
    resumed = start_launcher(*command, "resume_from=auto")
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))


@pytest.mark.fault("one of two training processes is killed", "all end within a minute, and the run says so")
def test_one_of_two(rl_words, start_launcher):
    launcher = start_launcher("launch.sh", "2", *rl_words, LOCAL, "trainer.max_steps=500", "zero3")
    launcher.wait_for("a step", launcher.has_stepped, 300)
    (second,) = (p for p in launcher.descendants() if p.name() == "rlt:train 1")
    second.kill()
    start = time.monotonic()
    assert launcher.wait(90) not in (0, 75)
    assert time.monotonic() - start < 60
    assert json.loads((launcher.run / "run.json").read_text())["status"] != "running"


@pytest.mark.fault("one of two training processes hangs", "ended after trainer.hang_timeout, with its log")
def test_one_of_two_hangs(rl_words, start_launcher):
    words = [*rl_words, LOCAL, "trainer.max_steps=500", "trainer.hang_timeout=15", "zero3"]
    launcher = start_launcher("launch.sh", "2", *words)
    launcher.wait_for("a step", launcher.has_stepped, 300)
    (second,) = (p for p in launcher.descendants() if p.name() == "rlt:train 1")
    second.suspend()
    assert launcher.wait(150) == 7, launcher.console()
    assert "the training has stood in step" in launcher.console()
    assert json.loads((launcher.run / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.fault("Ctrl-C in a step", "ended within seconds")),
        pytest.param(signal.SIGTERM, marks=pytest.mark.fault("SIGTERM in a step", "ended within seconds")),
    ],
)
def test_signals(number, rl_words, start_launcher):
    launcher = start_launcher("launch.sh", *rl_words, LOCAL, "trainer.max_steps=500")
    launcher.wait_for("a step", launcher.has_stepped, 300)
    start = time.monotonic()
    launcher.popen.send_signal(number)
    assert launcher.wait(60) == 128 + number
    assert time.monotonic() - start < 30
    assert json.loads((launcher.run / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.fault("a queue sends SIGUSR1 before its limit", "saved, exit code 75; " + SAME)
def test_sigusr1(rl_words, start_launcher, tmp_path, lost):
    command = ["launch.sh", *rl_words, LOCAL, "trainer.save_steps=0", "resume_from=auto"]
    paused = start_launcher(*command)
    paused.wait_for("a step", paused.has_stepped, 300, every=0.02)
    paused.popen.send_signal(signal.SIGUSR1)
    assert paused.wait(60) == 75
    resumed = start_launcher(*command)
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))


@pytest.mark.fault("the launcher itself is killed", "its guard ends everything; " + SAME)
def test_sigkill_to_the_launcher(rl_words, start_launcher, tmp_path, lost):
    command = ["launch.sh", "2", *rl_words, LOCAL, "zero3"]
    killed = start_launcher(*command, "resume_from=auto")
    killed.wait_for("step 3", lambda: killed.has_stepped(3), 300, every=0.02)
    killed.popen.kill()
    deadline = time.monotonic() + 60
    while killed.descendants() and time.monotonic() < deadline:
        time.sleep(0.2)
    killed.wait(1)
    resumed = start_launcher(*command, "resume_from=auto")
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))
