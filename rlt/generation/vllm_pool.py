"""Generation with any number of running vLLM servers: the `Generator` of real training.

Starting and ending servers is the launcher's work, weights are pushed by a WeightSync.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rlt.errors import GenerationError, ServerLost
from rlt.generation.completions import complete
from rlt.generation.parallel import run_all, run_each
from rlt.generation.seeds import spread_seed
from rlt.generation.server_checks import CONTROL_TIMEOUT, check_door, check_logprobs, check_server
from rlt.generation.server_health import health
from rlt.generation.silence import InFlight
from rlt.generation.sockets import allow_sockets, require_sockets
from rlt.generation.types import Sampling
from rlt.generation.vllm_server import VLLMServer
from rlt.records import Completion
from rlt.surroundings.timeline import Stopwatch
from rlt.surroundings.waiting import Wait

logger = logging.getLogger(__name__)
T = TypeVar("T")

REQUESTS_PER_SERVER = 64
"""Prompts in flight per server: each brings n samples, so the engine's own queue is never empty."""
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
        require_sockets(self.max_requests, requests_setting)
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
                lambda server: complete(server, prompt, n, sampling, seed, UNLIMITED)
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
        connections = allow_sockets(min(len(tasks), self.max_requests * n), at_least=self.max_requests)
        for task, completion in run_each(tasks, max_threads=connections, watch=self._in_flight):
            yield from ((row, completion) for row in rows[task] if row not in known)

    def _one(self, prompt: list[int], sampling: Sampling, seed: int, home: list[VLLMServer]) -> Completion:
        return self.on_idlest(lambda server: complete(server, prompt, 1, sampling, seed, UNLIMITED)[0], home)

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
        return complete(server, prompt, 1, sampling, spread_seed(seed), UNLIMITED, logprobs=False)[0]

    def generate_on_each(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> list[tuple[str, list[Completion]]]:
        """Return every server's name with its own completion of each prompt."""
        asked = [[int(t) for t in prompt] for prompt in prompts]

        def ask(server: VLLMServer) -> tuple[str, list[Completion]]:
            one = partial(complete, server, n=1, sampling=sampling, seed=spread_seed(seed))
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
            self.on_all("check of the log-probabilities", check_logprobs)

    def check_one(
        self, server: VLLMServer, expected_model: str | None = None, min_context: int | None = None
    ) -> None:
        """Raise unless a server is healthy, generates a token, and serves what is expected."""
        check_server(server, expected_model, min_context, self.timeout)

    def wait_until_back(self, expected_model: str | None, timeout: float, *, quietly: bool = False) -> None:
        """Return once every server generates with the expected model; ServerLost after `timeout` seconds."""
        words = "waiting for the servers for %.0f s, at most %g s"
        say = None if quietly else lambda _, seconds: logger.warning(words, seconds, timeout)
        wait = Wait(timeout, every=0.5, say=say)
        while True:
            try:
                self.check(expected_model, logprobs=False)
                return
            except ServerLost:
                if wait.is_over:
                    raise
            wait.pause()

    def join_when_ready(self, check: Callable[[VLLMServer], None], timeout: float) -> None:
        """Return once one server passes `check`; each of the others is asked from the moment it does.

        Until then none gets more than its share, so that work is left for those that come later. ServerLost
        after `timeout` seconds without it, from here or, later, from the call that waits for completions.
        """
        coming, self.servers = self.servers, []
        first: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def join(server: VLLMServer) -> None:
            wait = Wait(timeout, every=0.5)
            try:
                while True:
                    try:
                        check(server)
                        break
                    except ServerLost:
                        if wait.is_over:
                            raise
                    wait.pause()
                self._in_flight.join(self.servers, server)
                first.put(None)
            except BaseException as error:  # raised by the call that waits for the servers
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
