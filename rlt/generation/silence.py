"""Requests in flight, and whether the servers that have them still work.

A generation may take an hour: the number of its tokens decides, and nobody knows it beforehand. So the limit
is on silence. A server shows that it works by an answer, or by the tokens that its /metrics count, which
grow with every step of its engine. Where they are not to be had (another make of server, or
--disable-log-stats), only answers count.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rlt.errors import GenerationError
from rlt.generation.parallel import run_all
from rlt.generation.vllm_server import VLLMServer
from rlt.surroundings.clock import running

_LOOK_EVERY = 5.0
_ANSWER_WITHIN = 10.0
_TOKENS = re.compile(
    r"^vllm:(?:prompt_tokens|generation_tokens|iteration_tokens)(?:_total)?(?:_total|_sum)(?:\{.*\})? (\S+)$",
    re.MULTILINE,
)


class InFlight:
    """The requests in flight of each server; a server that is silent with some raises. Safe in threads.

    `limit` is the number of seconds of silence, `named` by the settings that it comes from.
    """

    def __init__(self, limit: float, named: str = "generation.request_timeout") -> None:
        self.look_every = min(_LOOK_EVERY, limit / 4)
        """Seconds between two calls of `check`."""
        self._limit = limit
        self._named = named
        self._lock = threading.Condition()
        self._failed: BaseException | None = None
        self._count: dict[VLLMServer, int] = {}
        self._heard: dict[VLLMServer, float] = {}
        self._tokens: dict[VLLMServer, float | None] = {}

    def join(self, servers: list[VLLMServer], server: VLLMServer) -> None:
        """Add a server to those that requests wait for."""
        with self._lock:
            servers.append(server)
            self._lock.notify_all()

    def fail(self, error: BaseException) -> None:
        """Have the next `check` raise an error."""
        self._failed = error

    @contextmanager
    def at_idlest(
        self, servers: Sequence[VLLMServer], home: list[VLLMServer] | None = None, most: float = math.inf
    ) -> Iterator[VLLMServer]:
        """Yield the server with the fewest requests in flight, for one more.

        Requests that share a `home`, empty at first, all go to the server of the first of them. While all
        servers have `most` in flight, it waits.
        """
        with self._lock:
            self._lock.wait_for(lambda: min(self._count.get(s, 0) for s in home or servers) < most)
            server = min(home or servers, key=lambda server: self._count.get(server, 0))
            if home is not None:
                home[:] = [server]
            count = self._count[server] = self._count.get(server, 0) + 1
            if count == 1:  # it had nothing to say before
                self._heard[server], self._tokens[server] = running(), None
        try:
            yield server
        finally:
            with self._lock:
                self._count[server] -= 1
                self._heard[server] = running()
                self._lock.notify()

    def check(self) -> None:
        """Raise GenerationError if a server has requests and has shown no work for too long."""
        if self._failed is not None:
            raise self._failed
        with self._lock:
            busy = [server for server, count in self._count.items() if count]
        found = run_all([(server.address, lambda server=server: self._tokens_of(server)) for server in busy])
        now = running()
        with self._lock:
            for server, tokens in zip(busy, found, strict=True):
                before = self._tokens[server]
                if tokens is not None and tokens != before:
                    self._tokens[server] = tokens
                    if before is not None:
                        self._heard[server] = now
            silent = [s for s in busy if self._count[s] and now - self._heard[s] > self._limit]
            for server in silent:
                raise self._failure(server)

    def _tokens_of(self, server: VLLMServer) -> float | None:
        return tokens_written(server, min(_ANSWER_WITHIN, self._limit))

    def _failure(self, server: VLLMServer) -> GenerationError:
        counted = "its /metrics count no tokens, so answers alone show that it works"
        if self._tokens[server] is not None:
            counted = "it has written no token in that time"
        return server.failure(
            f"did not answer for {self._limit:g} s ({self._named}) with {self._count[server]} "
            f"requests in flight, and {counted}"
        )


def tokens_written(server: VLLMServer, timeout: float) -> float | None:
    """Return how many tokens a server has read and written since its start, None where it does not say."""
    try:
        text = server.text("/metrics", timeout=timeout)
    except GenerationError:
        return None  # silence: how long it lasts is what counts
    numbers = [float(value) for value in _TOKENS.findall(text)]
    return sum(numbers) if numbers else None
