"""vLLM server processes: their command, their start up to the first token, and their end.

A server is ready when it answers /health *and* has generated one token: with an unsupported head size
it reports good health and dies on its first request.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from rlt.config.files import sequence_length
from rlt.config.schema import Config
from rlt.config.server_key import VARIABLE, find_key, refuse_open_host
from rlt.devices import gpu_env
from rlt.errors import GenerationError
from rlt.generation.log_reason import quote_end, quote_log
from rlt.generation.server_checks import CONTROL_TIMEOUT
from rlt.generation.vllm_guard import GUARD
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import VLLMServer, server_log_path
from rlt.generation.vllm_worker import EXTENSION
from rlt.launch.limits import check_limits, socket_env
from rlt.launch.ports import free_ports, ports_from
from rlt.launch.process import Child, stop_all
from rlt.surroundings.clock import running
from rlt.surroundings.waiting import Wait

logger = logging.getLogger(__name__)

LOG_LINES = 20
"""Seconds between two lines that say what is waited for."""
ENTRY_POINT = "vllm.entrypoints.launchers.api_server.entry"
"""What `python -m` serves with, in every version that pyproject.toml allows; not deprecated."""
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class ServerPlan:
    """One server as it will be started; printable before anything runs."""

    index: int
    port: int
    address: str
    """What the trainer connects to, e.g. http://127.0.0.1:23456"""
    command: tuple[str, ...]
    env: dict[str, str]
    """Only what is added to our environment."""
    log_path: Path
    key: str | None = field(default=None, repr=False)
    """What the server demands; None leaves it open. Never printed, and handed on in the environment alone."""
    workers: int = 1
    """Processes that compute, one for each of its GPUs."""

    def __str__(self) -> str:
        """Return the line that starts the server in a shell."""
        words = [f"{key}={shlex.quote(value)}" for key, value in self.env.items()]
        return " ".join([*words, shlex.join(self.command), ">", shlex.quote(str(self.log_path)), "2>&1"])


def plan_servers(
    config: Config, devices: Sequence[tuple[str, ...]], run_directory: Path, *, key: str | None = None
) -> list[ServerPlan]:
    """Return one plan per entry of `devices`: the GPUs of each server, an empty tuple on a CPU.

    `key` is what they will demand, by default the configured one. Ports are free when chosen; raises
    ConfigError when the host is not allowed.
    """
    generation = config.generation
    key = key or find_key(generation.api_key_file)
    refuse_open_host(generation.host, key, allowed=generation.allow_open_servers)
    if generation.base_port:
        ports = ports_from(generation.base_port, len(devices), generation.host)
    else:
        ports = free_ports(len(devices), generation.host)
    plans = []
    for index, (gpus, port) in enumerate(zip(devices, ports, strict=True)):
        plans.append(
            ServerPlan(
                index=index,
                port=port,
                address=f"http://{_url_host(_ANY_ADDRESS.get(generation.host, generation.host))}:{port}",
                command=tuple(server_command(config, port, on_cpu=not gpus, guarded=key is not None)),
                env=server_env(config, gpus, len(devices)),
                log_path=server_log_path(run_directory, port),
                key=key,
                workers=generation.tensor_parallel,
            )
        )
    return plans


def run_key(config: Config) -> str | None:
    """Return the key for the servers of one run: the configured one, or a new one by default."""
    generation = config.generation
    return find_key(generation.api_key_file) or (None if generation.allow_open_servers else token_hex(32))


def key_env(key: str | None) -> dict[str, str]:
    """Return the environment in which a key travels to a process."""
    return {VARIABLE: key} if key else {}


def server_command(config: Config, port: int, *, on_cpu: bool, guarded: bool = False) -> list[str]:
    """Return the command line of one vLLM server for the model that is trained.

    `python -m` because the `vllm` command refuses to start with the CPU distribution.
    """
    assert config.model_name_or_path is not None
    generation = config.generation
    command = [sys.executable, "-m", ENTRY_POINT]
    command += ["--model", config.model_name_or_path]
    command += ["--host", generation.host, "--port", str(port)]
    command += ["--dtype", generation.dtype, "--seed", str(config.seed)]
    if (length := sequence_length(config)) is not None:
        command += ["--max-model-len", str(length)]
    # Log-probabilities of the distribution that was sampled from, temperature included.
    command += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    # The model's own generation_config would add a repetition penalty, top_p and top_k to requests.
    command += ["--generation-config", "vllm"]
    command += ["--worker-extension-cls", EXTENSION]
    command += ["--tensor-parallel-size", str(generation.tensor_parallel)]
    if on_cpu:
        # A prompt that is prefilled in parts loses its seed's place, which the CPU engine dies of
        # ("CPU Generator does not use offset"): whole prompts only.
        command += ["--enforce-eager", "--no-enable-chunked-prefill"]
    else:
        command += ["--gpu-memory-utilization", str(generation.gpu_memory_utilization)]
        command += ["--weight-transfer-config", '{"backend": "nccl"}']
    if config.model.revision:
        command += ["--revision", config.model.revision]
    if config.model.trust_remote_code:
        command += ["--trust-remote-code"]
    command += generation.server_args
    return [*command, "--middleware", GUARD] if guarded else command  # the last one is the outermost


def server_env(config: Config, gpus: tuple[str, ...], num_servers: int) -> dict[str, str]:
    """Return what a server's environment holds besides ours."""
    env = {
        "VLLM_SERVER_DEV_MODE": "1",  # weight updates and the prefix-cache reset
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONFAULTHANDLER": "1",  # a worker that the system ends for a fault leaves its name in the log
    }
    env |= gpu_env(gpus) | socket_env(os.environ)
    if not gpus:
        env["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
        # Each server would bind its threads to the same cores; the scheduler spreads them better.
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # One core stays for the engine's own processes: compute threads that wait for a core spin, which
        # made generation ten times slower with two threads than with one on two busy cores.
        env["OMP_NUM_THREADS"] = str(cpu_threads(num_servers, reserved=1))
    assert config.model_name_or_path is not None
    if Path(config.model_name_or_path).is_dir():
        env["HF_HUB_OFFLINE"] = "1"
    return env


def cpu_threads(num_processes: int, reserved: int = 0) -> int:
    """Return the compute threads of one of several equal processes, unless OMP_NUM_THREADS is set.

    Servers and trainers take turns, so each side may count on all cores.
    """
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (cores - reserved) // num_processes)


class ServerProcess:
    """A started vLLM server."""

    def __init__(self, plan: ServerPlan) -> None:
        """Start the server; `wait_until_ready` says when it can be used."""
        self.plan = plan
        self.address = plan.address
        self.log_path = plan.log_path
        plan.log_path.parent.mkdir(parents=True, exist_ok=True)
        with plan.log_path.open("ab") as log:
            log.write(f"$ {plan}\n".encode())
            log.flush()
            self.child = Child(
                f"vLLM server {plan.index}", plan.command, {**plan.env, **key_env(plan.key)}, log
            )

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self.child.poll()

    def check(self) -> None:
        """Raise GenerationError with the reason in the log if the server has ended."""
        code = self.poll()
        if code is not None:
            raise self._failure(f"ended with exit code {code}", quote_end(self.log_path, code, LOG_LINES))

    def wait_until_ready(self, deadline: float, abandoned: Callable[[], bool], config: Config) -> None:
        """Return once the server is healthy and has generated a token; `deadline` in seconds of `running`."""
        index = self.plan.index
        wait = Wait(
            deadline - running(),
            every=0.5,
            say=lambda _, seconds: logger.info("  server %d: loading for %.0f s", index, seconds),
        )
        client = VLLMServer(self.address)
        while True:
            self.check()
            if abandoned():
                return
            try:
                client.get("/health", timeout=2.0)
                break
            except GenerationError:
                pass  # not yet
            if wait.is_over:
                waited = f"{wait.seconds:.0f} s (generation.startup_timeout)"
                raise self._failure(f"was not healthy within {waited}")
            wait.pause()
        logger.info("  server %d: healthy after %.0f s, first token …", index, wait.seconds)
        if self.plan.key and not client.demands_key(CONTROL_TIMEOUT):
            raise self._failure(f"answers without its key, in spite of --middleware {GUARD}")
        left = max(1.0, deadline - running())
        pool = VLLMPool([self.address], timeout=left, key=self.plan.key, log_paths=[self.log_path])
        assert config.model_name_or_path is not None
        try:
            pool.check(config.model_name_or_path, sequence_length(config))
        except GenerationError:
            time.sleep(1.0)  # a dying engine takes a moment; its end explains more than a broken connection
            self.check()
            raise
        finally:
            pool.close()
            client.close()
        logger.info("  server %d: ready at %s after %.0f s", index, self.address, wait.seconds)

    def _failure(self, what: str, why: str | None = None) -> GenerationError:
        why = quote_log(self.log_path, LOG_LINES) if why is None else why
        return GenerationError(f"vLLM server {self.plan.index} at {self.address} {what}{why}")


def start_servers(plans: Sequence[ServerPlan], stack: ExitStack) -> list[ServerProcess]:
    """Return the servers, started but not yet ready; `stack` ends them, all together."""
    check_limits([plan.workers for plan in plans])
    servers: list[ServerProcess] = []
    stack.callback(lambda: stop_all([server.child for server in servers]))
    for plan in plans:
        servers.append(ServerProcess(plan))
    return servers


def wait_for_servers(
    servers: Sequence[ServerProcess], config: Config, *, unless: Callable[[], bool] = lambda: False
) -> None:
    """Return when all servers are ready, or nobody wants them any more (`unless`).

    Raises GenerationError for the first that ends or is too slow.
    """
    timeout = config.generation.startup_timeout
    logger.info("waiting for %d vLLM server(s), at most %.0f s each", len(servers), timeout)
    deadline = running() + timeout
    errors: list[BaseException] = []
    give_up = threading.Event()

    def wait(server: ServerProcess) -> None:
        try:
            server.wait_until_ready(deadline, give_up.is_set, config)
        except BaseException as error:  # carried to the waiting thread below
            errors.append(error)

    # Threads, since the first token of each server compiles for up to half a minute. Daemons, since a
    # Ctrl-C must not wait for them.
    threads = [threading.Thread(target=wait, args=(server,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads) and not errors and not unless():
            for thread in threads:
                thread.join(timeout=0.1)
            if not errors:
                for server in servers:
                    server.check()
    finally:
        give_up.set()
    if errors:
        raise errors[0]


@contextmanager
def running_servers(
    config: Config,
    num_servers: int = 1,
    *,
    devices: Sequence[tuple[str, ...]] | None = None,
    run_directory: Path | None = None,
) -> Iterator[list[ServerProcess]]:
    """Yield ready vLLM servers for `config.model_name_or_path`; they end with the block.

    `devices` gives the GPUs of each server; without it there are `num_servers` servers on the CPU. Logs
    go to logs/ in `run_directory`, by default `output_dir`.
    """
    plans = plan_servers(config, devices or ((),) * num_servers, run_directory or Path(config.output_dir))
    with ExitStack() as stack:
        servers = start_servers(plans, stack)
        wait_for_servers(servers, config)
        yield servers


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
