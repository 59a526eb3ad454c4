"""Which process of how many: what the environment says, what is handed on, what is refused."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlt.errors import ConfigError, MachineLost
from rlt.launch.ports import free_ports
from rlt.surroundings.roll_call import meet_processes
from rlt.surroundings.world import (
    ALONE,
    World,
    forget_processes,
    join_world,
    refuse_many_launchers,
)

PROJECT = Path(__file__).parents[2]
PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
TORCH = {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8"}
SRUN = {**STEP, "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}
BATCH = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}
MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
HYDRA_MPI = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0"}
STAYS = {
    "SLURM_JOB_ID": "77",
    "SLURM_CPUS_PER_TASK": "8",
    "NCCL_SOCKET_IFNAME": "eth0",
    "GLOO_SOCKET_IFNAME": "eth0",
    "OMPI_MCA_btl": "tcp",
    "PMIX_MCA_gds": "hash",
    "RANKING": "x",
}


def run(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Return a finished program of ours with some more environment."""
    return subprocess.run(
        list(words),
        cwd=PROJECT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )


@pytest.mark.parametrize("given", [TORCH, SRUN, MPI, HYDRA_MPI], ids=["torchrun", "srun", "mpirun", "hydra"])
def test_a_full_set_counts_and_becomes_torchs_own(given):
    env = {**given, **PLACE, **STAYS}
    world = join_world(env)
    assert (world.rank, world.size, world.local_rank, world.port) == (2, 4, 0, 29511)
    assert env == {
        **TORCH,
        **PLACE,
        **STAYS,
    }  # nothing left that accelerate or DeepSpeed would read otherwise


@pytest.mark.parametrize("given", [TORCH, SRUN, MPI, HYDRA_MPI], ids=["torchrun", "srun", "mpirun", "hydra"])
@pytest.mark.parametrize("lacking", ["MASTER_ADDR", "MASTER_PORT", "local"])
def test_a_part_of_a_set_is_refused_by_name(given, lacking):
    env = {**given, **PLACE}
    if lacking == "local":
        lacking = next(
            name
            for name in given
            if name.startswith(("LOCAL", "SLURM_LOCAL", "MPI_LOCAL")) or "_LOCAL_" in name
        )
    del env[lacking]
    with pytest.raises(ConfigError, match=f"only in part: .* without {lacking}"):
        join_world(env)


@pytest.mark.parametrize(
    "part",
    [
        {"RANK": "0"},
        {"LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "1"},
        {"RANK": "0", **PLACE},
    ],
)
def test_a_single_variable_is_a_part(part):
    with pytest.raises(ConfigError, match="only in part"):
        join_world(dict(part))


@pytest.mark.parametrize(
    "wrong",
    [{"RANK": "4"}, {"RANK": "-1"}, {"WORLD_SIZE": "four"}, {"LOCAL_RANK": "3"}, {"MASTER_PORT": "0"}],
)
def test_numbers_that_do_not_fit_together(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        join_world({**TORCH, **PLACE, **wrong})


@pytest.mark.parametrize(
    "env",
    [{}, BATCH, {**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, {"WORLD_SIZE": "1"}, {**PLACE}, {"PMI_SIZE": "1"}],
)
def test_one_process_alone_keeps_none_of_them(env):
    env = {**env, **STAYS}
    assert join_world(env) == ALONE
    assert env == STAYS


def test_a_launcher_hands_none_of_them_on(caplog):
    caplog.set_level(logging.WARNING)
    left = {**TORCH, **PLACE, **SRUN, **MPI, **HYDRA_MPI, "PET_NNODES": "2", "TORCHELASTIC_RUN_ID": "x"}
    left |= {"LOCAL_WORLD_SIZE": "4", "PMIX_RANK": "1", "MV2_COMM_WORLD_SIZE": "2", "VLLM_DP_SIZE": "2"}
    env = {**left, **STAYS}
    forget_processes(env, "launch.sh")
    assert env == STAYS
    assert all(name in caplog.text for name in left)


@pytest.mark.parametrize("task", ["0", "5"])
def test_several_launchers_of_one_step_are_refused(task):
    with pytest.raises(ConfigError, match=r"srun has started launch.sh 4 times \(SLURM_PROCID=" + task):
        refuse_many_launchers({**SRUN, "SLURM_PROCID": task}, "launch.sh")
    refuse_many_launchers(BATCH, "launch.sh")  # a batch script of 8 tasks is one process
    refuse_many_launchers({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, "launch.sh")


def test_all_processes_meet_and_the_port_is_free_again():
    (port,) = free_ports(1)
    done: list[int] = []

    def come(rank: int) -> None:
        meet_processes(World(rank, 3, rank, "127.0.0.1", port, "a test"), limit=1000)
        done.append(rank)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in (2, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2]
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.slow
def test_those_who_do_not_come_are_named_at_the_limit(caplog):
    caplog.set_level(logging.WARNING)
    (port,) = free_ports(1)
    with pytest.raises(MachineLost, match=rf"process 1, 2 of 3 did not come to 127.0.0.1:{port} within 1 s"):
        meet_processes(World(0, 3, 0, "127.0.0.1", port, "a test"), limit=1)
    assert f"process 0 of 3 (a test): waiting for the others at 127.0.0.1:{port}, at most 1 s" in caplog.text
    with pytest.raises(MachineLost, match="process 0 did not come"):
        meet_processes(World(1, 3, 1, "127.0.0.1", port, "a test"), limit=1)


def test_a_stranger_at_the_meeting_point_is_no_process():
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken"):
            meet_processes(World(0, 2, 0, "127.0.0.1", port, "a test"), limit=1)


LEFT_OVER = {**TORCH, **PLACE, "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, "without MASTER_ADDR, MASTER_PORT"),
        ({**TORCH, **PLACE, "LOCAL_RANK": "1"}, "error (process 2 on "),
        ({**SRUN, **PLACE}, "error (process 2 on "),
        ({**LEFT_OVER, "LOCAL_RANK": "1"}, "left over in this environment"),
    ],
)
def test_no_process_of_train_py_ends_without_a_word(env, said):
    done = run(sys.executable, "train.py", "learning_rat=1", env=env)
    assert done.returncode == 2
    assert said in done.stderr


def test_train_py_says_whom_it_waits_for():
    (port,) = free_ports(1)
    env = os.environ | {**TORCH, **PLACE, "RANK": "0", "MASTER_PORT": str(port)}
    words = [sys.executable, "train.py", "run_cfg=teacher_sft", "model_name_or_path=nobody/nothing"]
    with subprocess.Popen(words, cwd=PROJECT, env=env, stderr=subprocess.PIPE, text=True) as train:
        assert train.stderr is not None
        said = next(line for line in train.stderr if "waiting" in line)
        train.kill()
    assert (
        f"process 0 of 4 (RANK and WORLD_SIZE): waiting for the others at 127.0.0.1:{port}, at most" in said
    )


def test_launchers_and_what_they_start_see_none(tmp_path):
    left = {**TORCH, **MPI, "VLLM_DP_RANK": "1"}
    words = ["./launch.sh", "learning_rat=1", f"output_dir={tmp_path}"]
    done = run(*words, env=left)
    assert done.returncode == 2
    assert "not handed on, as launch.sh decides which processes there are: LOCAL_RANK" in done.stderr
    assert "learning_rat" in done.stderr
    done = run("./launch.sh", "cfgs/run_cfg/teacher_sft.yaml", env=SRUN)
    assert (done.returncode, done.stderr.count("srun --ntasks=1 ./launch.sh")) == (2, 1)
