"""A child process that can be ended with everything it started, and with nothing else.

A child runs in a session of its own, so a Ctrl-C in the terminal reaches only us and we decide the order.
If we are killed, our guard ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from typing import IO

from rlt.launch.descendants import GRACE, MARK, kill_living, living
from rlt.launch.guard import KILL_TIMEOUT, the_guard
from rlt.surroundings.clock import start_of
from rlt.surroundings.waiting import wait_until

logger = logging.getLogger(__name__)

_ORPHAN_GRACE = 2.0


class Child:
    """A started command, its log and its descendants."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], output: IO[bytes] | int
    ) -> None:
        """Start the command with `env` on top of our environment; both its streams go to `output`."""
        self.name = name
        self.mark = uuid.uuid4().hex[:12]
        guard = the_guard()
        marks = [*filter(None, [os.environ.get(MARK)]), guard.mark, self.mark]
        self._popen = subprocess.Popen(
            list(command),
            env={**os.environ, **env, MARK: ",".join(marks)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self._start = start_of(self.pid)
        guard.watch(self.pid)

    def poll(self) -> int | None:
        """Return the exit code as a shell would show it, None while it runs."""
        code = self._popen.poll()
        return 128 - code if code is not None and code < 0 else code

    def stop(self, grace: float = GRACE) -> None:
        """End the command and all its descendants: SIGTERM, and SIGKILL after `grace` seconds."""
        stop_all([self], grace)

    def terminate(self) -> None:
        """Ask the command's group to end."""
        if self._popen.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGTERM)  # it leads its session, so its pid is its group

    def kill(self) -> int:
        """Kill what is left of the command and its descendants; return how many that were."""
        return kill_living(self.mark, {self.pid: self._start})


def stop_all(children: Sequence[Child], grace: float = GRACE) -> None:
    """End the children and all their descendants, together: SIGTERM, and SIGKILL after `grace` seconds."""
    for child in children:
        child.terminate()
    wait_until(lambda: all(child.poll() is not None for child in children), grace)
    # Descendants that outlive their command have nobody left to end them well.
    wait_until(lambda: not any(living(child.mark) for child in children), min(grace, _ORPHAN_GRACE))
    wait_until(lambda: sum(child.kill() for child in children) == 0, KILL_TIMEOUT)
    for child in children:
        if child.poll() is None:
            logger.warning("%s (process %d) could not be ended: look after it", child.name, child.pid)
