"""`python -m rlt.launch.serve cfgs/run_cfg/NAME.yaml [KEY=VALUE …]`: vLLM servers alone, until Ctrl-C.

For a machine that generates while another one trains, with a key in a file that both have:

    (umask 077; openssl rand -hex 32 > ~/.rlt_key)
    python -m rlt.launch.serve cfgs/run_cfg/teacher_rl.yaml generation.host=0.0.0.0 \\
        generation.api_key_file=~/.rlt_key
    ./launch.sh cfgs/run_cfg/teacher_rl.yaml generation.servers=[http://HOST:PORT] \\
        generation.api_key_file=~/.rlt_key        # on the machine that trains
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.schema import Config, stage_of
from rlt.config.server_key import is_loopback
from rlt.config.validate import validate
from rlt.device_plan import plan_generation
from rlt.devices import refuse_unusable, visible_gpus
from rlt.errors import ConfigError, RLTError
from rlt.launch.server import ServerPlan, plan_servers, start_servers, wait_for_servers
from rlt.launch.signals import Stopped, stop_on_signals
from rlt.surroundings.place import settle
from rlt.surroundings.world import forget_processes

logger = logging.getLogger("rlt.launch")


def main(words: Sequence[str]) -> int:
    """Return the exit code after serving until a signal comes or a server ends."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("rlt").setLevel(logging.INFO)
    try:
        settle(os.environ)
        if not words or {"-h", "--help"} & set(words):
            sys.stdout.write(f"usage: {__doc__}\n")
            return 0 if words else ConfigError.exit_code
        forget_processes(os.environ, "rlt.launch.serve")
        config = resolve(compose(words, launched=True))  # generation.servers may name others
        serve(config, planned(config))
    except RLTError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except Stopped as stopped:
        return 128 + stopped.number
    return 0


def planned(config: Config) -> list[ServerPlan]:
    """Return the servers that the run file's model gets on all GPUs of this machine, or one on its CPU."""
    if not stage_of(config).generates or config.generation.backend != "vllm":
        raise ConfigError(
            f"stage {config.stage} with generation.backend={config.generation.backend} asks no server: give "
            "the run file of a stage that generates with vllm."
        )
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("serving needs vLLM, which is not installed: run scripts/setup.sh.")
    config.generation.servers = []
    validate(config, servers_follow=True)
    plan = plan_generation(visible_gpus(os.environ), None, config.generation.tensor_parallel)
    refuse_unusable(plan.gpus)
    return plan_servers(config, plan.servers, Path(config.output_dir))


def serve(config: Config, plans: Sequence[ServerPlan]) -> None:
    """Serve until a server ends, which raises, or a signal comes."""
    stop_on_signals()
    with ExitStack() as stack:
        servers = start_servers(plans, stack)
        wait_for_servers(servers, config)
        logger.info("use: generation.servers=[%s]", ",".join(seen_from_afar(p, config) for p in plans))
        while True:
            for server in servers:
                server.check()
            time.sleep(0.5)


def seen_from_afar(plan: ServerPlan, config: Config) -> str:
    """Return a server's address, by this machine's name where it listens on all of its addresses."""
    is_here = is_loopback(config.generation.host)
    everywhere = not is_here and is_loopback(urlsplit(plan.address).hostname)
    return f"http://{socket.getfqdn()}:{plan.port}" if everywhere else plan.address


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
