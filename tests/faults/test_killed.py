"""Runs that are ended from outside: the same command continues, as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import psutil
import pytest
from helpers.fault_runs import ENDLESS
from helpers.launchers import Launcher
from helpers.moments import Moment
from helpers.stage_runs import count_differences, train_rows

pytestmark = [pytest.mark.slow, pytest.mark.long]
SAME = "the same command continues: metrics and weights are those of an undisturbed run"


def at_step(run: Path, step: int) -> dict[str, str]:
    """Return the environment in which a training stops itself once its metrics hold so many steps."""
    return Moment(str(run / "metrics.jsonl"), lines=step).environment()


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
def test_sigkill(stage, count, strategy, local_words, sft_words, start_launcher, tmp_path, lost):
    words = [*local_words] if stage == "teacher_rl" else sft_words
    command = ["launch.sh", str(count), *words, strategy]
    killed = start_launcher(*command, "resume_from=auto", **at_step(tmp_path / "run", 3))
    killed.wait_until_held()
    kill_training(killed)
    assert killed.wait() != 0
    assert len(train_rows(killed.run)) == 3
    assert not (killed.run / "model.safetensors").exists()
    resumed = start_launcher(*command, "resume_from=auto")
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))


@pytest.mark.fault("SIGKILL while a checkpoint is being written", SAME)
def test_sigkill_while_saving(local_words, start_launcher, tmp_path, lost):
    command = ["launch.sh", *local_words]
    torn = tmp_path / "run" / "checkpoint-4"
    moment = Moment(str(torn / "config.json"))  # written before the weights
    killed = start_launcher(*command, "resume_from=auto", **moment.environment())
    killed.wait_until_held()
    kill_training(killed)
    assert killed.wait() != 0
    assert (torn / "config.json").is_file()
    assert not (torn / "model.safetensors").exists()
    resumed = start_launcher(*command, "resume_from=auto")
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))


@pytest.mark.fault("one of two training processes is killed", "all end at once, and the run says so")
def test_one_of_two(local_words, start_launcher):
    launcher = start_launcher("launch.sh", "2", *local_words, *ENDLESS, "zero3")
    launcher.wait_for("a step", launcher.has_stepped)
    (second,) = (p for p in launcher.descendants() if p.name() == "rlt:train 1")
    second.kill()
    assert launcher.wait() not in (0, 75)  # else after trainer_args.ddp_timeout, which is two hours
    assert json.loads((launcher.run / "run.json").read_text())["status"] != "running"


@pytest.mark.fault("one of two training processes hangs", "ended after trainer.hang_timeout, with its log")
def test_one_of_two_hangs(local_words, start_launcher):
    words = [*local_words, *ENDLESS, "trainer.hang_timeout=60", "zero3"]
    launcher = start_launcher("launch.sh", "2", *words)
    launcher.wait_for("a step", launcher.has_stepped)
    (second,) = (p for p in launcher.descendants() if p.name() == "rlt:train 1")
    second.suspend()
    assert launcher.wait() == 7, launcher.console()
    assert "the training has been in step" in launcher.console()
    assert json.loads((launcher.run / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.fault("Ctrl-C in a step", "ended at once")),
        pytest.param(signal.SIGTERM, marks=pytest.mark.fault("SIGTERM in a step", "ended at once")),
    ],
)
def test_signals(number, local_words, start_launcher):
    launcher = start_launcher("launch.sh", *local_words, *ENDLESS)
    launcher.wait_for("a step", launcher.has_stepped)
    launcher.popen.send_signal(number)
    assert launcher.wait() == 128 + number
    assert json.loads((launcher.run / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.fault("a queue sends SIGUSR1 before its limit", "saved, exit code 75; " + SAME)
def test_sigusr1(local_words, start_launcher, tmp_path, lost):
    command = ["launch.sh", *local_words, "trainer.save_steps=0", "resume_from=auto"]
    paused = start_launcher(*command, **at_step(tmp_path / "run", 1))
    training = paused.wait_until_held()
    paused.popen.send_signal(signal.SIGUSR1)
    paused.wait_for("its answer", lambda: "saving a checkpoint after this step" in paused.console())
    training.resume()
    assert paused.wait() == 75
    assert set(train_rows(paused.run)) < set(range(1, 7))
    resumed = start_launcher(*command)
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))


@pytest.mark.fault("the launcher itself is killed", "its guard ends everything; " + SAME)
def test_sigkill_to_the_launcher(local_words, start_launcher, tmp_path, lost):
    command = ["launch.sh", "2", *local_words, "zero3"]
    killed = start_launcher(*command, "resume_from=auto", **at_step(tmp_path / "run", 3))
    killed.wait_until_held()
    killed.popen.kill()
    killed.wait_for_nothing()
    resumed = start_launcher(*command, "resume_from=auto")
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))
