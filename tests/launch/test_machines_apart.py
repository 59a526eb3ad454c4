"""Teacher RL on two machines with the server on a third: network namespaces with host names of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.launchers import PROJECT, Launcher
from helpers.moments import Moment
from helpers.stage_runs import largest_difference, rl_words, rows, weights

from rlt.status.look import look
from rlt.status.text import text

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.long]
RL = "cfgs/run_cfg/teacher_rl.yaml"
SERVER_PORT = 8000
ADDRESS = "10.77.0.{}"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """Machines on one bridge, which only they reach; each has a host name, and `eth0` as its only way out."""

    def __init__(self, count: int) -> None:
        self._tag = secrets.token_hex(2)
        self._bridge = f"rltb{self._tag}"
        self.names = [f"rlt{self._tag}-{k}" for k in range(count)]
        ip("link", "add", self._bridge, "type", "bridge")
        ip("link", "set", self._bridge, "up")
        for number, name in enumerate(self.names):
            ours = f"rltv{self._tag}{number}"
            ip("netns", "add", name)
            ip("link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", ours, "master", self._bridge, "up")
            ip("-n", name, "addr", "add", f"{ADDRESS.format(number + 1)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def on(self, number: int) -> list[str]:
        """Return the words that run what follows on a machine."""
        rename = 'hostname "$0" && exec "$@"'
        inside = ["unshare", "--uts", "sh", "-c", rename, f"node-{number}"]
        return [shutil.which("ip") or "", "netns", "exec", self.names[number], *inside]

    def remove(self) -> None:
        """Take the machines down."""
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", self._bridge], check=False)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Return three machines."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    built = Network(3)
    yield built
    built.remove()


@pytest.fixture(scope="module")
def words(tiny_teacher, tiny_student, toy_problems, tmp_path_factory) -> list[str]:
    """Return the words of three RL steps that ask the server of the third machine."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    changes = [
        "generation.backend=vllm",
        "generation.dtype=float32",
        "trainer.max_steps=3",
        "learning_rate=1e-3",
    ]
    changes += [f"generation.api_key_file={key}"]
    usual = rl_words(tiny_teacher, tiny_student, toy_problems, Path("unused"), *changes)
    return [RL, *(word for word in usual if not word.startswith(("run_cfg=", "output_dir=")))]


@pytest.fixture(scope="module")
def server(network, words, tmp_path_factory) -> Iterator[Launcher]:
    """Serve the teacher on the third machine, for all others."""
    pytest.importorskip("vllm")
    serve = [sys.executable, "-m", "rlt.launch.serve", *words]
    where = ["generation.host=0.0.0.0", f"generation.base_port={SERVER_PORT}"]
    folder = tmp_path_factory.mktemp("server")
    launcher = Launcher(folder / "run", *network.on(2), *serve, *where, PYTHONPATH=str(PROJECT))
    try:
        launcher.wait_for("the server", lambda: "use: generation.servers=" in launcher.console())
        yield launcher
    finally:
        launcher.end()


ENV = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
"""gloo would look its own host name up, which no name server of these machines knows."""


def start(network: Network, run: Path, words: list[str], *ranks: int) -> list[Launcher]:
    """Start the launchers of a run with a process on each of two machines."""
    servers = f"generation.servers=[http://{ADDRESS.format(3)}:{SERVER_PORT}]"
    machines = ["--num_machines", "2", "--main_process_ip", ADDRESS.format(1)]
    started = []
    for rank in ranks:
        typed = [
            str(PROJECT / "launch.sh"),
            "1",
            "zero3",
            *words,
            servers,
            *machines,
            "--machine_rank",
            str(rank),
        ]
        started.append(Launcher(run, *network.on(rank), *typed, **ENV))
    return started


def test_two_machines_and_a_server_on_a_third_train_as_one_with_two_processes(
    network, server, words, tmp_path
):
    servers = f"generation.servers=[http://{ADDRESS.format(3)}:{SERVER_PORT}]"
    typed = [str(PROJECT / "launch.sh"), "2", "zero3", *words, servers]
    alone = Launcher(tmp_path / "one" / "run", *network.on(0), *typed, OMP_NUM_THREADS="1")
    both: list[Launcher] = []
    try:
        assert alone.wait() == 0, alone.console()
        both = start(network, tmp_path / "two" / "run", words, 1, 0)
        assert [launcher.wait() for launcher in both] == [0, 0], both[0].console() + both[1].console()
        first = both[1].console()
        assert f"server http://{ADDRESS.format(3)}:{SERVER_PORT}: healthy, serves " in first
        assert "machine 1 is here: node-1" in first
    finally:
        for launcher in (alone, *both):
            launcher.end()
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    assert [row["step"] for row in rows(two) if "loss" in row] == [1, 2, 3]
    assert rows(two) == rows(one)
    assert largest_difference(weights(two), weights(one)) == 0


def test_both_launchers_end_when_a_trainer_is_killed_on_machine_1(network, server, words, tmp_path):
    run = tmp_path / "run"
    first, second = start(network, run, [*words, "trainer.max_steps=5000"], 0, 1)
    try:
        first.wait_for("two steps", lambda: first.has_stepped(2))
        told = text([look(run)])
        assert " on node-0)" in told
        assert "machine 1: training (pid " in told
        assert "HAS ENDED" not in told  # nobody here can know
        (trainer,) = [p for p in second.descendants() if p.name() == "rlt:train 1"]
        trainer.kill()
        assert (first.wait(), second.wait()) == (1, 137)
        assert "machine 1 (node-1): its training has ended with exit code 137" in first.console()
        assert "the training on this machine has ended with exit code 137" in second.console()
    finally:
        first.end()
        second.end()
    told = look(run)
    assert told["state"] == "failed"
    assert told["error"].startswith("machine 1 (node-1): its training has ended with exit code 137")


SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do
    [[ "$1" == --nodelist=* ]] && node="${1#*=}"
    shift
done
number=$((${node##*.} - 1))
exec ip netns exec "$NAMESPACES-$number" unshare --uts sh -c 'hostname "$0" && exec "$@"' "node-$number" "$@"
"""
SCONTROL = """#!/usr/bin/env bash
case "$1" in
show) tr , '\\n' <<< "$3" ;;
requeue) echo "$2" >> "$REQUEUED" ;;
esac
"""


def test_a_job_of_three_nodes_pauses_is_queued_again_and_goes_on(network, words, tmp_path):
    """The batch script itself, on stand-ins for srun and scontrol that know the three machines."""
    pytest.importorskip("vllm")
    if not shutil.which("curl"):
        pytest.skip("the script asks servers with curl")
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    env = {
        **ENV,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "NAMESPACES": network.names[0].rpartition("-")[0],
        "REQUEUED": str(tmp_path / "requeued"),
        "SLURM_JOB_ID": f"77{secrets.randbelow(10**6)}",
        "SLURM_JOB_NODELIST": ",".join(ADDRESS.format(number) for number in (3, 1, 2)),
        "SERVERS_PER_NODE": "1",
        "SERVER_PORT": "8100",  # beside the server of the other tests
        "START_TIMEOUT": "500",
    }
    ours = [w for w in words if not w.startswith(("generation.api_key_file=", "trainer.max_steps="))]
    script = str(PROJECT / "scripts/slurm/several_nodes.sbatch")
    typed = [*network.on(2), "bash", script, "zero3", *ours, "trainer.max_steps=12"]
    key = PROJECT / f".rlt_key.{env['SLURM_JOB_ID']}"
    run = tmp_path / "job" / "run"
    job = Launcher(run, *typed, **env, **Moment(str(run / "metrics.jsonl"), lines=2).environment())
    try:
        training = job.wait_until_held()
        assert key.is_file()
        job.popen.send_signal(signal.SIGUSR1)
        job.wait_for("its answer", lambda: "saving a checkpoint after this step" in job.console())
        training.resume()
        assert job.wait() == 75, job.console()
        assert (tmp_path / "requeued").read_text() == env["SLURM_JOB_ID"] + "\n"
        assert look(run)["state"] == "paused"
        assert not key.exists()
    finally:
        job.end()
    job = Launcher(run, *typed, **env)
    try:
        assert job.wait() == 0, job.console()
    finally:
        job.end()
    assert [row["step"] for row in rows(run) if "loss" in row] == list(range(1, 13))
    assert (tmp_path / "requeued").read_text().count("\n") == 1
