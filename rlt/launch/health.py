"""What runs without progress: servers that do not answer, a training that hangs in one phase."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rlt.errors import GenerationError, TrainingStuck
from rlt.generation.log_reason import quote_log
from rlt.generation.vllm_server import VLLMServer
from rlt.launch.server import ServerProcess
from rlt.rundir.now import LOADING, read_now
from rlt.surroundings.clock import running

logger = logging.getLogger(__name__)
LOG_LINES = 20
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
        now = running()
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
        """Forget the past: some servers have been replaced."""
        self._heard.clear()

    def _ask(self) -> None:
        while not self._stop.wait(_ASK_EVERY):
            for server in list(self._servers):
                pid, client = server.child.pid, VLLMServer(server.address)
                try:
                    client.get("/health", timeout=_ANSWER_WITHIN)
                    self._heard[pid] = running()
                except GenerationError:
                    pass  # how long it lasts is what counts
                finally:
                    client.close()


class MotionWatch:
    """Looks every few seconds whether a training has entered a new phase, or the same one of a later step."""

    def __init__(self, run_directory: str | Path, log_path: Path, timeout: float) -> None:
        """`timeout` is the number of seconds in one phase after which a training hangs; 0: it never does."""
        self._directory = Path(run_directory)
        self._log_path = log_path
        self._timeout = timeout
        self._earlier = self._last = read_now(self._directory)
        self._since = running()
        self._next = 0.0

    def check(self) -> None:
        """Raise TrainingStuck, with the last lines of the training's log, if there is no progress.

        What counts is the time that passes here without a change, not the times in the file: neither a step
        of the clock nor a suspension of this process makes a training look stuck.
        """
        now = running()
        if not self._timeout or now < self._next:
            return
        self._next = now + min(_ASK_EVERY, self._timeout / 4)
        current = read_now(self._directory)
        if current != self._last:
            self._last, self._since = current, now
        # What an earlier run was doing is of no interest. Loading waits for downloads and for servers.
        if current is None or current == self._earlier or current["phase"] == LOADING:
            return
        if now - self._since > self._timeout:
            raise TrainingStuck(
                f"the training has been in step {current['step']}, {current['phase']}, for "
                f"{now - self._since:.0f} s (trainer.hang_timeout) and is ended; resume_from=latest "
                f"continues from the last checkpoint{quote_log(self._log_path, LOG_LINES)}"
            )
