"""Runs on several machines: what is typed, how launchers meet and part, and a run of two launchers."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from helpers.launchers import Launcher
from helpers.stage_runs import largest_difference, rows, sft_words, weights

import rlt.launch.meeting as meeting_module
from rlt.device_plan import plan_training
from rlt.errors import ConfigError, MachineLost, RLTError
from rlt.launch.command_line import parse
from rlt.launch.machines import ALONE, Machines, take_options
from rlt.launch.main import prepare
from rlt.launch.meeting import Meeting, meet
from rlt.launch.ports import is_free
from rlt.status.look import look

SFT, RL = "cfgs/run_cfg/teacher_sft.yaml", "cfgs/run_cfg/teacher_rl.yaml"
HUB_MODEL = "model_name_or_path=Qwen/Qwen2.5-7B-Instruct"
TWO = ["--num_machines", "2", "--main_process_ip", "node-0", "--machine_rank", "1"]


def free_pair() -> int:
    """Return a port that is free, and so is the next one."""
    return next(p for p in range(20000, 32000, 2) if is_free(p, "127.0.0.1") and is_free(p + 1, "127.0.0.1"))


def test_options_in_both_spellings_and_anywhere():
    words = ["8", "--num_machines=2", SFT, "--machine-rank", "1", "seed=1", "--main_process_ip", "node-0"]
    assert take_options(words) == (Machines(2, 1, "node-0", 29500), ["8", SFT, "seed=1"])
    assert take_options([SFT]) == (ALONE, [SFT])
    assert take_options(["--num_machines", "1", "--machine_rank", "0", "--main_process_ip", "x"]) == (
        ALONE,
        [],
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--num_machines", "two"], "--num_machines must be a number from 1 on, got 'two'"),
        (
            ["--num_machines", "2", "--main_process_ip", "h"],
            "--machine_rank must be a number from 0 to 1, got n",
        ),
        (
            ["--num_machines", "2", "--machine_rank", "2"],
            "--machine_rank must be a number from 0 to 1, got '2'",
        ),
        (["--num_machines", "2", "--machine_rank", "1"], "--num_machines 2 needs --main_process_ip HOST"),
        (["--machine_rank", "0"], "--machine_rank goes with --num_machines"),
        (["--machine_rank"], "--machine_rank needs a value"),
        ([*TWO, "--main_process_port", "65535"], "--main_process_port must be a number from 1 to 65534"),
    ],
)
def test_wrong_options_are_one_sentence(words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        take_options(words)


@pytest.mark.parametrize(
    ("script", "words", "sentence"),
    [
        ("launch.sh", [RL, HUB_MODEL], "launch.sh starts no servers with --num_machines 2"),
        ("launch_with_server.sh", ["1", "1", RL, HUB_MODEL], "launch_with_server.sh starts no servers with"),
        (
            "launch.sh",
            ["cfgs/run_cfg/evaluate.yaml", HUB_MODEL],
            "evaluate trains nothing: run it on one machine",
        ),
        ("launch.sh", ["cfgs/run_cfg/pipeline.yaml"], "--num_machines is for one stage"),
        ("launch.sh", ["3", SFT], "training processes = 1 x 6, so that accumulation"),
        (
            "launch.sh",
            [
                *(RL, HUB_MODEL, "generation.servers=[http://h:1]", "generation.allow_open_servers=true"),
                *("reward.placement=server", "reward.servers=[http://127.0.0.1:2]"),
            ],
            "`reward.servers` names http://127.0.0.1:2, which is another server on each of 2 machines",
        ),
    ],
)
def test_what_several_machines_cannot_share(script, words, sentence, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        prepare(script, parse(script, [*words, *TWO, "--dry-run"]))


def test_counts_are_those_of_each_machine_and_the_batch_is_divided_by_all(monkeypatch):
    plan = plan_training(("0", "1", "2", "3"), None, None, True, num_machines=2)
    assert (plan.num_processes, plan.processes_here, plan.num_gpus, plan.strategy) == (8, 4, 8, "zero3")
    assert plan_training((), 1, "ddp", True, num_machines=2).strategy == "ddp"  # not one process alone
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    planned = prepare("launch.sh", parse("launch.sh", [SFT, *TWO, "--dry-run"]))
    command = " ".join(planned.command)
    assert "--num_processes 8 --main_process_port 29500 --num_machines 2 --machine_rank 1" in command
    assert "--main_process_ip node-0 --same_network --deepspeed_multinode_launcher standard" in command
    assert (planned.env["RLT_NUM_GPUS"], planned.log_path.name) == ("8", "train.1.log")


# ---- meetings ----


class Attempt(threading.Thread):
    """One launcher's side of a meeting."""

    def __init__(self, machines: Machines, directory: Path, **plan: object) -> None:
        super().__init__(daemon=True)
        self.machines, self.directory, self.plan = machines, directory, plan
        self.result: Meeting | RLTError | None = None
        self.start()

    def run(self) -> None:
        """Meet."""
        try:
            self.result = meet(self.machines, str(self.directory), self.plan)
        except RLTError as error:
            self.result = error

    def meeting(self) -> Meeting:
        """Return the meeting that came about."""
        self.join()
        assert isinstance(self.result, Meeting), self.result
        return self.result

    def error(self) -> str:
        """Return why none did."""
        self.join()
        assert isinstance(self.result, RLTError), self.result
        return str(self.result)


def attempts(tmp_path: Path, count: int) -> list[Attempt]:
    """Return the meetings of machines that agree; the last one comes first."""
    port = free_pair()
    return [Attempt(Machines(count, k, "127.0.0.1", port), tmp_path) for k in reversed(range(count))][::-1]


def until(is_true) -> None:
    while not is_true():  # pytest's own limit ends what does not come
        time.sleep(0.05)


def test_every_machine_learns_how_another_one_has_ended(tmp_path):
    first, second, third = (attempt.meeting() for attempt in attempts(tmp_path, 3))
    assert first.failed() is second.failed() is third.failed() is None
    second.tell(3, "its training has ended with exit code 3")
    until(first.failed)  # passes it on
    until(third.failed)
    host = socket.gethostname()
    assert str(third.failed()) == f"machine 1 ({host}): its training has ended with exit code 3"
    assert first.failed() == third.failed()


def test_a_launcher_that_is_killed_is_missed(tmp_path):
    first, second, third = (attempt.meeting() for attempt in attempts(tmp_path, 3))
    third.close()
    until(first.failed)
    until(second.failed)
    assert "machine 2" in str(second.failed())
    assert "closed the connection without an exit code" in str(first.failed())


@pytest.mark.parametrize("code", [0, 75])
def test_machine_0_says_whether_a_run_is_paused(tmp_path, code):
    first, second = (attempt.meeting() for attempt in attempts(tmp_path, 2))
    assert first.agree(code) == code
    first.close()
    assert second.agree(0) == code


def test_without_the_last_word_of_machine_0_nothing_is_well(tmp_path):
    first, second = (attempt.meeting() for attempt in attempts(tmp_path, 2))
    first.close()
    with pytest.raises(MachineLost, match=r"machine 0 .* closed the connection without an exit code"):
        second.agree(0)


def test_other_settings_and_a_rank_given_twice_are_refused_everywhere(tmp_path):
    port = free_pair()
    first = Attempt(Machines(2, 0, "127.0.0.1", port), tmp_path, settings=["a=1", "b=2"])
    second = Attempt(Machines(2, 1, "127.0.0.1", port), tmp_path, settings=["a=1", "b=3"])
    assert first.error() == second.error()
    assert "was started with settings b=3, and machine 0 with b=2: give the same command" in first.error()
    port = free_pair()
    three = [Attempt(Machines(3, k, "127.0.0.1", port), tmp_path) for k in (0, 1, 1)]
    assert "--machine_rank 1 on" in three[0].error()
    assert three[0].error() == three[1].error() == three[2].error()


def test_a_run_directory_of_its_own_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(meeting_module, "_SAME_DIRECTORY_TIMEOUT", 0.5)
    (tmp_path / "other").mkdir()
    port = free_pair()
    first = Attempt(Machines(2, 0, "127.0.0.1", port), tmp_path)
    second = Attempt(Machines(2, 1, "127.0.0.1", port), tmp_path / "other")
    assert "is not that of machine 0" in second.error()
    meeting = first.meeting()
    until(meeting.failed)
    assert "on a file system that all machines share" in str(meeting.failed())


def test_a_machine_that_never_comes_and_a_stranger_at_the_port(tmp_path, monkeypatch):
    monkeypatch.setattr(meeting_module, "TIMEOUT", 2.0)
    port = free_pair()
    first = Attempt(Machines(2, 0, "127.0.0.1", port), tmp_path)
    until(lambda: not is_free(port + 1, "127.0.0.1"))
    with socket.create_connection(("127.0.0.1", port + 1)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(1) == b""
    assert f"machine 1 did not come to 127.0.0.1:{port + 1} within 2 s" in first.error()


# ---- whole runs ----


@pytest.mark.slow
def test_two_launchers_train_as_one_with_two_processes(tmp_path, tiny_teacher, toy_problems):
    usual = sft_words("teacher_sft", tiny_teacher, toy_problems, tmp_path)
    words = [SFT, *(word for word in usual if not word.startswith(("run_cfg=", "output_dir=")))]
    machines = [
        "--num_machines",
        "2",
        "--main_process_ip",
        "127.0.0.1",
        "--main_process_port",
        str(free_pair()),
    ]
    env = {"OMP_NUM_THREADS": "1"}
    started = [Launcher(tmp_path / "one" / "run", "launch.sh", "2", "ddp", *words, **env)]
    for rank in ("1", "0"):
        typed = ["launch.sh", "1", "ddp", *words, *machines, "--machine_rank", rank]
        started.append(Launcher(tmp_path / "two" / "run", *typed, **env))
    try:
        assert [launcher.wait() for launcher in started] == [0, 0, 0], "".join(s.console() for s in started)
        assert "this is machine 1" in started[1].console()
    finally:
        for launcher in started:
            launcher.end()
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    assert len(rows(two)) > 2
    assert rows(one) == rows(two)
    assert largest_difference(weights(one), weights(two)) == 0
    assert (two / "logs" / "train.1.log").is_file()
    assert look(two)["state"] == "finished"
