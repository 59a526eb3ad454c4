"""JSON objects over a connection, one a line."""

from __future__ import annotations

import json
import queue
import socket
import threading
from contextlib import suppress
from typing import Any

_LONGEST_LINE = 65536
Message = dict[str, Any]


class Line:
    """JSON objects over a connection, one a line."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A machine without power says nothing: the kernel asks every 10 s, and gives up after 40 s.
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connection = connection
        self._file = connection.makefile("rb")

    def send(self, message: Message) -> None:
        """Send an object; peers that have closed the connection do not get it."""
        with suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Message | None:
        """Return the next object, None at the end of the connection and for anything else."""
        try:
            message = json.loads(self._file.readline(_LONGEST_LINE))
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """End the connection, for the thread that reads it too."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


Event = tuple[Line, Message | None]
"""A line and what came over it, None when it has ended."""


def read_in_background(line: Line, events: queue.SimpleQueue[Event]) -> None:
    """Put what comes over a line into the events, and None at its end."""

    def read() -> None:
        while (message := line.receive()) is not None:
            events.put((line, message))
        events.put((line, None))

    threading.Thread(target=read, daemon=True).start()
