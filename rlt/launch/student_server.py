"""`python -m rlt.launch.student_server MODEL --temperature T [--port N]`: serve a frozen student for scoring.

Writes once a copy of the student with its LM head divided by the temperature, since an engine ignores the
temperature where it scores given tokens, and serves it until Ctrl-C. A training run uses it with
reward.placement=server reward.servers=[http://127.0.0.1:N].
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rlt.config.schema import Config
from rlt.config.server_key import VARIABLE
from rlt.devices import named_gpus, refuse_unusable, visible_gpus
from rlt.errors import ConfigError, ModelError, RLTError
from rlt.generation.server_logprobs import served_name
from rlt.io import describe_input, write_json
from rlt.launch.ports import is_free
from rlt.launch.server import ServerProcess, plan_servers, start_servers, wait_for_servers
from rlt.launch.signals import Stopped, stop_on_signals
from rlt.models.load import DTYPES, load_context
from rlt.models.scaled_head import model_folder, write_scaled_copy
from rlt.parser import Parser
from rlt.surroundings.place import settle
from rlt.surroundings.world import forget_processes

logger = logging.getLogger("rlt.launch")

MARKER = "scaled_head.json"
"""The file in a copy with its temperature and what it is a copy of."""
TOKENS_PER_STEP = 2048
"""Longer prompts are scored in parts: for each token of a part the engine holds a vocabulary in float32."""
GPU_SHARE = 0.8
"""Of a GPU's memory: what scoring a prompt takes comes on top of what the engine plans with."""


def main(argv: Sequence[str]) -> int:
    """Return the exit code after serving until a signal comes or the server ends."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("rlt").setLevel(logging.INFO)
    try:
        settle(os.environ)
        forget_processes(os.environ, "rlt.launch.student_server")
        serve(parse(argv))
    except RLTError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except Stopped as stopped:
        return 128 + stopped.number


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return what the user typed."""
    ours = list(itertools.takewhile(lambda word: word != "--", argv))
    parser = Parser(
        prog="python -m rlt student-server",
        description="Serve a frozen student for the reward, until Ctrl-C.",
        epilog="What follows a lone -- goes to vLLM as it is.",
    )
    parser.add_argument("model", metavar="MODEL", help="the student's folder or Hub name")
    parser.add_argument("--temperature", type=_positive, required=True, help="reward.student_temperature")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port there; default a free one")
    parser.add_argument(
        "--api-key-file",
        type=os.path.expanduser,
        help=f"file (mode 600) with the key that the server demands; default {VARIABLE}, if it is set",
    )
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bfloat16", help="of the engine")
    parser.add_argument("--dir", type=Path, help="for copy and log; default student_servers/NAME-T")
    parser.add_argument("--gpus", help="the server's GPUs, e.g. 6,7; default the first visible one")
    parser.add_argument("--max-model-len", type=int, help="tokens of a sequence; default the model's context")
    options = parser.parse_args(ours)
    options.vllm_args = list(argv)[len(ours) + 1 :]
    return options


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return value


def serve(options: argparse.Namespace) -> NoReturn:
    """Serve the student until the server ends, which raises."""
    stop_on_signals()
    with running_student_server(options) as server:
        logger.info(
            "train with: reward.placement=server reward.servers=[%s] reward.student_temperature=%g",
            server.address,
            options.temperature,
        )
        while True:
            server.check()
            time.sleep(0.5)


@contextmanager
def running_student_server(options: argparse.Namespace) -> Iterator[ServerProcess]:
    """Yield a ready server of the scaled copy, written now if it is not there; it ends with the block."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("a student server needs vLLM, which is not installed: run scripts/setup.sh.")
    if options.port and not is_free(options.port, options.host):
        raise ConfigError(f"--port {options.port} is taken: give another one, or none for a free one.")
    gpus = named_gpus(options.gpus, "--gpus") if options.gpus else visible_gpus(os.environ)[:1]
    refuse_unusable(gpus)
    name = Path(options.model).resolve().name
    directory = (options.dir or Path("student_servers", f"{name}-{options.temperature:g}")).resolve()
    config = server_config(options, scaled_copy(options.model, options.temperature, directory / "model"))
    config.generation.tensor_parallel = max(len(gpus), 1)
    with ExitStack() as stack:
        servers = start_servers(plan_servers(config, [gpus], directory), stack)
        wait_for_servers(servers, config)
        yield servers[0]


def scaled_copy(model: str, temperature: float, target: Path) -> Path:
    """Return the folder of the scaled copy, written now unless it is there already."""
    source = model_folder(model, download=True)
    assert source is not None
    made_from = {"temperature": temperature, "source": model, "sha256": content_hash(source)}
    if (target / MARKER).is_file():
        found = json.loads((target / MARKER).read_text())
        if found["temperature"] == temperature and found["sha256"] == made_from["sha256"]:
            return target
        raise ConfigError(
            f"{target} is a copy of {found['source']} (sha256 {found['sha256'][:12]}) at temperature "
            f"{found['temperature']:g}, not of {model} ({made_from['sha256'][:12]}) at {temperature:g}: "
            "delete it, or give another --dir."
        )
    logger.info("writing a copy of %s for temperature %g to %s", model, temperature, target)
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of an earlier start that was interrupted
        write_scaled_copy(source, unfinished, temperature)
        write_json(unfinished / MARKER, made_from)
        unfinished.rename(target)
    except OSError as error:
        raise ModelError(
            f"cannot write {target}: {error.strerror or error}; give another --dir, or make room for as much "
            "as the model itself takes."
        ) from error
    return target


def content_hash(folder: Path) -> str:
    """Return the hash that run.json shows for the model."""
    return describe_input(str(folder))["sha256"]


def server_config(options: argparse.Namespace, copy: Path) -> Config:
    """Return the configuration of a server for the copy, as the launchers' servers have one."""
    context = options.max_model_len or load_context(str(copy))
    if context is None:
        raise ConfigError(f"{options.model} does not state its context: give --max-model-len.")
    # Of a stage whose sequences are as long as its two lengths together.
    config = Config(stage="teacher_rl", model_name_or_path=str(copy))
    config.max_prompt_length, config.max_completion_length = context, 0
    generation: Any = config.generation
    generation.dtype, generation.base_port = options.dtype, options.port
    generation.host, generation.api_key_file = options.host, options.api_key_file
    generation.gpu_memory_utilization = GPU_SHARE
    generation.server_args = [
        *("--served-model-name", served_name(options.model, options.temperature)),
        *("--enable-chunked-prefill", "--max-num-batched-tokens", str(TOKENS_PER_STEP)),
        "--no-enable-prefix-caching",  # a prompt that is scored is computed whole
        *options.vllm_args,
    ]
    return config


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
