"""Generation with any number of running vLLM servers: the `Generator` of real training.

Starting and ending servers is the launcher's work, weights are pushed by a WeightSync.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import resource
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rlt.config.server_key import beyond_this_machine
from rlt.errors import GenerationError, ServerLost
from rlt.generation.parallel import run_all, run_each
from rlt.generation.seeds import spread_seed
from rlt.generation.server_health import health
from rlt.generation.silence import InFlight
from rlt.generation.types import Sampling
from rlt.generation.vllm_server import VLLMServer, finite_logprobs
from rlt.records import Completion
from rlt.surroundings.clock import running
from rlt.surroundings.timeline import Stopwatch

logger = logging.getLogger(__name__)
T = TypeVar("T")

REQUESTS_PER_SERVER = 64
"""Prompts in flight per server: each brings n samples, so the engine's own queue is never empty."""
CONTROL_TIMEOUT = 60.0
"""Seconds for requests that compute nothing: health, model name, prefix cache."""
_SAY_EVERY = 15.0
_OTHER_FILES = 512
"""Open files that are left for everything but connections."""
UNLIMITED = 7 * 24 * 3600.0
"""Seconds that a request may take whose server is watched: its silence is limited, see silence.py."""


class VLLMPool:
    """A `Generator` that spreads prompts over servers, one HTTP request per prompt.

    The n samples of a prompt share one request, so its prefix is computed once. `timeout` is the number
    of seconds that a server may be silent with requests in flight: no answer, no further token. `key` is
    what the servers demand, by default that of the environment. `log_paths` are the servers' log files in
    the order of the addresses, None where unknown; their last lines become part of every error.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        timeout: float,
        key: str | None = None,
        log_paths: Sequence[Path | str | None] = (),
        requests_per_server: int = REQUESTS_PER_SERVER,
        requests_setting: str | None = None,
    ) -> None:
        if not addresses:
            raise GenerationError(
                "generation.servers is empty; start vLLM servers with launch.sh, or give their addresses"
            )
        paths = [Path(p) if p is not None else None for p in log_paths] or [None] * len(addresses)
        assert len(paths) == len(addresses), "one log path per address"
        self.servers = [
            self.make_server(address, key=key, log_path=path)
            for address, path in zip(addresses, paths, strict=True)
        ]
        self.timeout = timeout
        self._requests_per_server = requests_per_server
        self.max_requests = requests_per_server * len(self.servers)
        """Requests in flight over all servers."""
        _require_sockets(self.max_requests, requests_setting)
        self._in_flight = InFlight(timeout)
        self.stopwatch = Stopwatch()
        """Records when each server has requests; of a training, its own."""

    def make_server(self, address: str, **options: Any) -> VLLMServer:
        """Return the client of one server."""
        return VLLMServer(address, **options)

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Return n completions for each prompt, in order."""
        assert len(prompts) == len(seeds), "one seed per prompt"

        def task(prompt: list[int], seed: int) -> Callable[[], list[Completion]]:
            return lambda: self.on_idlest(
                lambda server: _complete(server, prompt, n, sampling, seed, UNLIMITED)
            )

        tasks = [
            (f"prompt {i}", task([int(t) for t in prompt], spread_seed(seed)))
            for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        return self.run_watched(tasks)

    def stream_groups(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        known: Container[int] = (),
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (row, completion) as each is done: the very completions of `generate`, one request each.

        Row i * n + k is the k-th completion of prompt i; rows that are `known` are not asked for again. The
        requests of a prompt go to one server, which computes the prompt once. As many prompts are in flight
        as with `generate`, and limits are as there.
        """
        assert len(prompts) == len(seeds), "one seed per prompt"
        is_greedy = sampling.temperature <= 0  # all n are equal then
        tasks: list[tuple[str, Callable[[], Completion]]] = []
        rows: list[range] = []
        for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            home: list[VLLMServer] = []
            group = range(i * n, (i + 1) * n)
            for same in [group] if is_greedy else [group[k : k + 1] for k in range(n)]:
                if all(row in known for row in same):
                    continue
                # vLLM gives the k-th of n samples of one request the request's seed + k.
                k = same[0] % n
                ids, own_seed = [int(t) for t in prompt], spread_seed(seed) + k
                tasks.append((f"prompt {i}, sample {k}", partial(self._one, ids, sampling, own_seed, home)))
                rows.append(same)
        connections = _allow_sockets(min(len(tasks), self.max_requests * n), at_least=self.max_requests)
        for task, completion in run_each(tasks, max_threads=connections, watch=self._in_flight):
            yield from ((row, completion) for row in rows[task] if row not in known)

    def _one(self, prompt: list[int], sampling: Sampling, seed: int, home: list[VLLMServer]) -> Completion:
        return self.on_idlest(lambda server: _complete(server, prompt, 1, sampling, seed, UNLIMITED)[0], home)

    def run_watched(self, tasks: Sequence[tuple[str, Callable[[], T]]]) -> list[T]:
        """Return the results of (name, call) tasks, in order, each of which asks `on_idlest`.

        They need no time limits of their own: GenerationError when a server is silent for `timeout` seconds.
        """
        return run_all(tasks, max_threads=self.max_requests, watch=self._in_flight)

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | Sequence[Sampling],
        seeds: Sequence[int],
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index of a prompt, its one completion) as each is done, without log-probabilities.

        `sampling` is one for all prompts, or one for each.

        Many requests wait in a server's queue before they run, so none has a limit of its own: raises
        GenerationError when a server has been silent for `timeout` seconds.
        """
        each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
        assert len(prompts) == len(each) == len(seeds), "one sampling and one seed per prompt"

        def ask(prompt: Sequence[int], sampling: Sampling, seed: int) -> Completion:
            ids = [int(t) for t in prompt]
            return self.on_idlest(lambda server: self.draw(server, ids, sampling, seed))

        tasks = [
            (f"prompt {i}", partial(ask, prompt, one, seed))
            for i, (prompt, one, seed) in enumerate(zip(prompts, each, seeds, strict=True))
        ]
        return run_each(tasks, max_threads=self.max_requests, watch=self._in_flight)

    def draw(self, server: VLLMServer, prompt: list[int], sampling: Sampling, seed: int) -> Completion:
        """Return one completion without log-probabilities; it may wait in the server's queue."""
        return _complete(server, prompt, 1, sampling, spread_seed(seed), UNLIMITED, logprobs=False)[0]

    def generate_on_each(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> list[tuple[str, list[Completion]]]:
        """Return every server's name with its own completion of each prompt."""
        asked = [[int(t) for t in prompt] for prompt in prompts]

        def ask(server: VLLMServer) -> tuple[str, list[Completion]]:
            one = partial(_complete, server, n=1, sampling=sampling, seed=spread_seed(seed))
            return f"the server at {server.address}", [one(ids, timeout=self.timeout)[0] for ids in asked]

        return self.on_all("sample", ask)

    def check(
        self, expected_model: str | None = None, min_context: int | None = None, *, logprobs: bool = True
    ) -> None:
        """Raise unless every server is healthy, generates a token, and serves what is expected.

        `expected_model` is the folder or name that the servers were started with; `min_context` the
        tokens of the longest prompt and completion together; `logprobs` whether theirs will be read.
        """
        self.on_all("check", lambda server: self.check_one(server, expected_model, min_context))
        if logprobs:
            self.on_all("check of the log-probabilities", _check_logprobs)

    def check_one(
        self, server: VLLMServer, expected_model: str | None = None, min_context: int | None = None
    ) -> None:
        """Raise unless a server is healthy, generates a token, and serves what is expected."""
        _check(server, expected_model, min_context, self.timeout)

    def wait_until_back(self, expected_model: str | None, timeout: float, *, quietly: bool = False) -> None:
        """Return once every server generates with the expected model; ServerLost after `timeout` seconds."""
        start = said = running()
        while True:
            try:
                self.check(expected_model, logprobs=False)
                return
            except ServerLost:
                now = running()
                if now - start > timeout:
                    raise
            if now - said > _SAY_EVERY and not quietly:
                said = now
                logger.warning("waiting for the servers for %.0f s, at most %g s", now - start, timeout)
            time.sleep(0.5)

    def join_when_ready(self, check: Callable[[VLLMServer], None], timeout: float) -> None:
        """Return once one server passes `check`; each of the others is asked from the moment it does.

        Until then none gets more than its share, so that work is left for those that come later. ServerLost
        after `timeout` seconds without it, from here or, later, from whoever waits for completions.
        """
        coming, self.servers = self.servers, []
        first: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def join(server: VLLMServer) -> None:
            start = running()
            try:
                while True:
                    try:
                        check(server)
                        break
                    except ServerLost:
                        if running() - start > timeout:
                            raise
                    time.sleep(0.5)
                self._in_flight.join(self.servers, server)
                first.put(None)
            except BaseException as error:  # belongs to whoever waits for the servers
                self._in_flight.fail(error)
                first.put(error)

        for server in coming:
            threading.Thread(target=join, args=(server,), daemon=True, name="rlt-joining").start()
        if (error := first.get()) is not None:
            raise error

    def show_health(self) -> None:
        """Log a line for each server; those that are not well are for the check that follows to refuse."""
        for line in self.on_all("health", health):
            logger.info("%s", line)

    def check_doors(self, timeout: float = CONTROL_TIMEOUT) -> None:
        """Raise if a server that other machines reach answers without a key."""
        for server in self.servers:
            check_door(server, timeout)

    def versions(self) -> list[str]:
        """Return the versions of vLLM that the servers run, each once."""
        found = self.on_all("version", lambda s: s.get("/version", timeout=CONTROL_TIMEOUT, missing_ok=True))
        return sorted({str(a["version"]) for a in found if isinstance(a, dict) and "version" in a})

    def reset_prefix_cache(self, timeout: float = CONTROL_TIMEOUT) -> None:
        """Make every server forget cached keys and values."""
        self.on_all("reset of the prefix cache", lambda server: server.reset_prefix_cache(timeout))

    def on_all(self, what: str, call: Callable[[VLLMServer], T], timeout: float | None = None) -> list[T]:
        """Return what `call` returns for each server, all at the same time."""

        def task(server: VLLMServer) -> tuple[str, Callable[[], T]]:
            return f"{what} at {server.address}", lambda: call(server)

        return run_all([task(server) for server in self.servers], timeout=timeout)

    def close(self) -> None:
        """Close the connections; the servers run on."""
        for server in self.servers:
            server.close()

    def on_idlest(self, call: Callable[[VLLMServer], T], home: list[VLLMServer] | None = None) -> T:
        """Return what `call` returns for the server with the fewest requests in flight.

        Calls that share a `home`, empty at first, all go to the server of the first of them.
        """
        is_whole = len(self.servers) * self._requests_per_server >= self.max_requests
        most = math.inf if is_whole else self._requests_per_server
        with self._in_flight.at_idlest(self.servers, home, most) as server:
            lane = f"server {server.address.partition('://')[2]}"
            with self.stopwatch.span(lane, "generate"):
                return call(server)


def check_door(server: VLLMServer, timeout: float = CONTROL_TIMEOUT) -> None:
    """Raise if other machines reach a server that answers without a key."""
    if beyond_this_machine(server.address) and not server.demands_key(timeout):
        raise server.failure(
            "answers without a key, so anyone who reaches it can run code there; start it with one, as "
            "python -m rlt.launch.serve does, or set generation.allow_open_servers=true on a network "
            "that you trust",
            with_log=False,
        )


def _allow_sockets(wanted: int, at_least: int = 0) -> int:
    """Return how many connections this process may have open, `wanted` if it can be.

    Raises the process's own limit of open files, usually 1024, if the machine allows it. `at_least` so many
    have been allowed before.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(at_least, limit - _OTHER_FILES)


def _require_sockets(count: int, setting: str | None) -> None:
    """Raise GenerationError where this process may not have so many connections open.

    `setting` is what the stage takes the number of requests from, None where there is nothing to lower.
    """
    if _allow_sockets(count) < count:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        raise GenerationError(
            f"{count} requests at once need {count + _OTHER_FILES} open files, and this machine allows "
            f"{hard} (ulimit -Hn): {f'lower {setting}, or ' if setting else ''}raise the limit"
        )


def _complete(
    server: VLLMServer,
    prompt: list[int],
    n: int,
    sampling: Sampling,
    seed: int,
    timeout: float,
    *,
    logprobs: bool = True,
) -> list[Completion]:
    """Return n completions of one prompt from one server."""
    # vLLM refuses several greedy samples; they would be equal.
    num_requested = n if sampling.temperature > 0 else 1
    body = {
        "prompt": prompt,
        "n": num_requested,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": sampling.max_tokens,
        "min_tokens": 0,
        "stop_token_ids": list(sampling.stop_token_ids),
        # Only the listed ids stop. With False the end-of-sequence ids of the model's folder would as well.
        "ignore_eos": True,
        "stop": list(sampling.stop_strings),
        "include_stop_str_in_output": True,
        "seed": seed,
        "logprobs": 0 if logprobs else None,
        "return_token_ids": True,
        "skip_special_tokens": False,
    }
    what = f"prompt of {len(prompt)} tokens, n {num_requested}, max_tokens {sampling.max_tokens}"
    answer = server.post("/v1/completions", body, timeout=timeout, what=what, retry=True)
    with server.reading(what):
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        if len(choices) != num_requested:
            raise server.failure(f"returned {len(choices)} completions for n {num_requested} ({what})")
        completions = [_completion(server, choice, prompt, logprobs) for choice in choices]
    return completions if num_requested == n else completions * n


def _completion(server: VLLMServer, choice: dict[str, Any], prompt: list[int], logprobs: bool) -> Completion:
    """Return one choice of an answer as a record, or raise if it is not usable."""
    if choice.get("token_ids") is None:
        raise server.failure("returned no token ids; it is older than vLLM 0.22, and this project needs 0.29")
    if choice.get("prompt_token_ids") not in (None, prompt):
        raise server.failure("generated from other prompt ids than the ones sent")
    if choice["finish_reason"] not in ("stop", "length"):
        raise server.failure(f"ended a completion with finish_reason {choice['finish_reason']!r}")
    token_ids = tuple(choice["token_ids"])
    if not set(map(type, token_ids)) <= {int}:
        raise server.failure(f"returned token ids that are no whole numbers: {token_ids!r:.80}")
    if not logprobs:
        return Completion(token_ids, (), choice["finish_reason"])
    values = finite_logprobs(server, (choice.get("logprobs") or {}).get("token_logprobs"), len(token_ids))
    return Completion(token_ids, values, choice["finish_reason"])


def _check(server: VLLMServer, expected_model: str | None, min_context: int | None, timeout: float) -> None:
    """Raise unless one server is healthy, generates, and serves what is expected."""
    server.get("/health", timeout=CONTROL_TIMEOUT)
    answer = server.get("/v1/models", timeout=CONTROL_TIMEOUT)
    with server.reading("GET /v1/models"):
        card = answer["data"][0]
        if expected_model is not None and not _same_model(expected_model, card):
            raise server.failure(
                f"serves {card['id']!r} where {expected_model!r} is wanted; start it with that model"
            )
        context = card.get("max_model_len")
        if min_context is not None and context is not None and context < min_context:
            raise server.failure(
                f"holds {context} tokens where prompt and completion may need {min_context}; start it with "
                f"--max-model-len {min_context}, or lower max_prompt_length or max_completion_length"
            )
    _complete(server, [0], 1, Sampling(0.0, 1, ()), 0, timeout, logprobs=False)


def _check_logprobs(server: VLLMServer) -> None:
    """Raise if a server's log-probabilities are not those of the distribution that it samples from."""
    mode = _logprobs_mode(server)
    if mode is None:
        logger.warning(
            "the vLLM server at %s runs without VLLM_SERVER_DEV_MODE=1: whether it returns processed "
            "log-probabilities is not known, and weights cannot be pushed to it",
            server.address,
        )
    elif mode != "processed_logprobs":
        raise server.failure(
            f"returns {mode}, which ignore the sampling temperature; start it with "
            "--logprobs-mode processed_logprobs"
        )


def _same_model(expected: str, card: dict[str, Any]) -> bool:
    """Return whether a server's model card names the expected folder or Hub name."""
    names = {card["id"], card.get("root")}
    return expected in names or any(
        name and os.path.realpath(name) == os.path.realpath(expected) for name in names
    )


def _logprobs_mode(server: VLLMServer) -> str | None:
    """Return the server's setting, or None where the development endpoints are off."""
    info = server.get("/server_info", timeout=CONTROL_TIMEOUT, missing_ok=True, config_format="json")
    with server.reading("GET /server_info"):
        return None if info is None else info["vllm_config"]["model_config"]["logprobs_mode"]
