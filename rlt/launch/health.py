"""Servers that run and answer nothing: asked beside the supervision, and ended after a long silence."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from typing_extensions import Self

from rlt.errors import GenerationError
from rlt.generation.vllm_server import VLLMServer
from rlt.launch.server import ServerProcess

logger = logging.getLogger(__name__)
_ASK_EVERY = 5.0
_ANSWER_WITHIN = 10.0


class HealthWatch:
    """Asks each server's /health every few seconds; a busy one answers too."""

    def __init__(self, servers: Sequence[ServerProcess], silence: float) -> None:
        """`silence` is the number of seconds without an answer after which a server is ended; 0: never."""
        self._servers = servers
        self._silence = silence
        self._heard: dict[int, float] = {}
        """When each process last answered; one that never has is loading, which has its own time limit."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True, name="rlt-health")

    def __enter__(self) -> Self:
        if self._silence and self._servers:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    def end_silent(self) -> None:
        """End every server that has been silent for too long."""
        now = time.monotonic()
        for server in self._servers:
            heard = self._heard.get(server.child.pid)
            if heard is None or now - heard < self._silence or server.poll() is not None:
                continue
            logger.warning(
                "vLLM server %d at %s runs, but has answered nothing for %.0f s "
                "(generation.silence_timeout): ending it",
                *(server.plan.index, server.address, now - heard),
            )
            server.child.stop()

    def forget(self) -> None:
        """Start anew: some servers have been replaced."""
        self._heard.clear()

    def _ask(self) -> None:
        while not self._stop.wait(_ASK_EVERY):
            for server in list(self._servers):
                pid, client = server.child.pid, VLLMServer(server.address)
                try:
                    client.get("/health", timeout=_ANSWER_WITHIN)
                    self._heard[pid] = time.monotonic()
                except GenerationError:
                    pass  # how long it lasts is what counts
                finally:
                    client.close()
