"""The launchers of one run on several machines: they meet before it starts, and learn how each other ends.

torchrun ends one machine's processes only, and those of the others would wait in a collective until its
timeout. Machine 0 listens at the port after the training's own; every other launcher holds a connection to it
for as long as it lives, so that even its death is seen: at once where a process dies, within 40 s where a
machine does (keepalive of the connection).
"""

# Why a protocol of our own, when torch and Slurm have some:
# - torch.distributed.TCPStore was tried (torch 2.13): after SIGKILL of a peer its keys stay, `num_keys` and
#   `check` answer as before and nothing is raised; a `wait` for its next word ends with its timeout alone.
#   Each machine would need a thread with heartbeats, as generation/heartbeat.py has for another purpose;
#   who is missing and what differs between machines would still have to be found by hand. Its import costs
#   the launcher 1.4 s of CPU and 220 MB, while nothing else there needs torch.
# - torchrun's elastic agents notice a lost node, but only to form the group again (c10d rendezvous); with the
#   static rendezvous that accelerate uses they hear nothing of each other.
# - `srun --kill-on-bad-exit=1` ends the other tasks, on Slurm alone, and names no reason.

from __future__ import annotations

import errno
import logging
import math
import queue
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt.config.server_key import is_loopback
from rlt.errors import ConfigError, MachineLost, Paused
from rlt.launch.lines import Event, Line, Message, read_in_background
from rlt.launch.machines import Machines
from rlt.launch.training import TrainingProcess
from rlt.surroundings.waiting import Wait, wait_until

logger = logging.getLogger(__name__)

TIMEOUT = 600.0
"""Seconds in which all machines have to come; a queue may give them one after the other."""
PATIENCE = 15.0
"""Seconds for a training to end by itself after that of another machine: its own error says more."""
_SAME_DIRECTORY_TIMEOUT = 30.0
"""Seconds in which a file of machine 0 is seen by the others; network file systems remember for a while."""
_LAST_WORDS = 5.0
_TOKEN = ".machines"
_WELL = (0, Paused.exit_code)


@dataclass(frozen=True)
class Ended:
    """How the run on a machine ended."""

    machine: int
    host: str
    code: int | None
    """None where it is unknown."""
    reason: str

    def __str__(self) -> str:
        """Return who, and why."""
        return f"machine {self.machine} ({self.host}): {self.reason}"


class Meeting:
    """The other machines of a run, from the moment when all have come."""

    def __init__(
        self,
        machines: Machines,
        hosts: Mapping[int, str],
        lines: Mapping[int, Line],
        events: queue.SimpleQueue[Event],
    ) -> None:
        """`hosts` names all machines, `lines` lead to the others, and `events` come over them."""
        self._machines = machines
        self._hosts = hosts
        self._lines = lines
        self._events = events
        self._ended: dict[int, Ended] = {}

    def failed(self) -> Ended | None:
        """Return the first machine, as far as is known, that has ended before its time."""
        self._listen()
        return next((ended for ended in self._ended.values() if ended.code not in _WELL), None)

    def tell(self, code: int, reason: str) -> None:
        """Send the others how the run has ended here."""
        self._send(Ended(self._machines.rank, socket.gethostname(), code, reason))

    def watch(self, training: TrainingProcess, look: Callable[[], None]) -> int:
        """Return the training's exit code; raise MachineLost when another machine has ended before.

        `look` is called now and then, and may raise.
        """
        while (code := training.poll()) is None:
            look()
            if failed := self.failed():
                wait_until(lambda: training.poll() is not None, PATIENCE)
                if training.poll() is None:
                    raise MachineLost(f"{failed}; the training here has been ended too")
            time.sleep(0.2)
        training.drain()
        return code

    def agree(self, code: int) -> int:
        """Return the exit code of this launcher after its training's, and send it to the others.

        Where all is well it is machine 0's, who alone knows whether the run is paused.
        """
        if code in _WELL and not self._machines.is_first:
            wait_until(lambda: self._has_heard_of(0), math.inf)
            first = self._ended[0]
            if first.code is None:
                raise MachineLost(f"{first}")
            return first.code
        self.tell(code, f"its training has ended with exit code {code}")
        if code not in _WELL:
            wait_until(lambda: self._has_heard_of(*range(self._machines.count)), _LAST_WORDS)
            logger.error("the training on this machine has ended with exit code %d", code)
            for ended in self._ended.values():
                logger.error("%s", ended)
        return code

    def close(self) -> None:
        """Close all connections. Peers that got no exit code treat this machine as lost."""
        for line in self._lines.values():
            line.close()

    def _has_heard_of(self, *machines: int) -> bool:
        """Whether it is known of all these machines, ourselves apart, how their runs have ended."""
        self._listen()
        return {*machines} - {self._machines.rank} <= self._ended.keys()

    def _listen(self) -> None:
        """Take in what has come since the last time; machine 0 passes it on."""
        with suppress(queue.Empty):
            while True:
                line, message = self._events.get_nowait()
                machine = next((m for m, known in self._lines.items() if known is line), None)
                if machine is None:
                    continue
                if message is None:
                    reason = "it closed the connection without an exit code (killed, or unreachable)"
                    ended = Ended(machine, self._hosts[machine], None, reason)
                else:
                    ended = Ended(**message)
                if ended.machine not in self._ended:
                    self._ended[ended.machine] = ended
                    if self._machines.is_first:
                        self._send(ended)

    def _send(self, ended: Ended) -> None:
        for machine, line in self._lines.items():
            if machine != ended.machine:
                line.send(vars(ended))


def meet(machines: Machines, directory: str, plan: Mapping[str, Any]) -> Meeting:
    """Return once all machines of a run are there, with the same `plan` and the same run directory.

    Raises ConfigError where they differ, MachineLost where some do not come.
    """
    plan = {"--num_machines": machines.count, **plan}
    return _gather(machines, directory, plan) if machines.is_first else _join(machines, directory, plan)


def _gather(machines: Machines, directory: str, plan: Message) -> Meeting:
    lines: dict[int, Line] = {}
    hosts = {0: socket.gethostname()}
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    token = secrets.token_hex(16)
    (Path(directory) / _TOKEN).write_text(token)
    waiting = _Waiting(machines)
    _warn_of_another_address(machines.ip)
    with ExitStack() as stack:
        server = stack.enter_context(_server(machines))
        stack.callback(lambda: [line.close() for line in lines.values()])
        server.settimeout(0.2)
        while len(lines) < machines.count - 1:
            with suppress(TimeoutError):
                read_in_background(Line(server.accept()[0]), events)
            with suppress(queue.Empty):
                line, message = events.get_nowait()
                _welcome(line, message, machines, plan, lines, hosts)
            missing = [str(m) for m in range(1, machines.count) if m not in lines]
            waiting.go_on(f"machine {', '.join(missing)}")
        stack.pop_all()
        server.close()
    for line in lines.values():
        line.send({"token": token, "hosts": hosts})
    return Meeting(machines, hosts, lines, events)


def _welcome(
    line: Line,
    message: Message | None,
    machines: Machines,
    plan: Message,
    lines: dict[int, Line],
    hosts: dict[int, str],
) -> None:
    """Take a launcher in, or let one go that has ended before all were there; refuse one of another run."""
    known = next((machine for machine, other in lines.items() if other is line), None)
    if message is None or known is not None:
        if known is not None:
            logger.warning("machine %d (%s) has gone again", known, hosts[known])
            del lines[known]
        line.close()
        return
    machine, host, theirs = message.get("machine"), message.get("host"), message.get("plan")
    if not isinstance(machine, int) or not isinstance(theirs, dict):
        line.close()  # somebody else's program
        return
    refused = None
    if machine in lines or not 0 < machine < machines.count:
        refused = (
            f"--machine_rank {machine} on {host} is not free among {machines.count} machines: number them "
            f"from 0 to {machines.count - 1}, each once."
        )
    for name, ours in plan.items():
        if refused is None and theirs.get(name) != ours:
            refused = _difference(name, ours, theirs.get(name), f"machine {machine} ({host})")
    if refused:
        for other in (line, *lines.values()):
            other.send({"refused": refused})
        line.close()
        raise ConfigError(refused)
    lines[machine], hosts[machine] = line, str(host)
    logger.info("machine %d is here: %s", machine, host)


def _difference(name: str, ours: Any, theirs: Any, who: str) -> str:
    if isinstance(ours, list):
        ours_only = [word for word in ours if word not in (theirs or [])]
        theirs_only = [word for word in theirs or [] if word not in ours]
        ours, theirs = " ".join(ours_only) or "less", " ".join(theirs_only) or "less"
    return (
        f"{who} was started with {name} {theirs}, and machine 0 with {ours}: give the same command and the "
        "same version of this project on every machine, all but --machine_rank."
    )


def _server(machines: Machines) -> socket.socket:
    """Return a listening socket: on all addresses, since a machine's own name may lead to loopback there."""
    port = machines.port + 1
    try:
        if is_loopback(machines.ip):
            return socket.create_server((machines.ip, port))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigError(
            f"port {port} {reason}, where the launchers of this run would meet (--main_process_port + 1): "
            "give another --main_process_port on every machine."
        ) from None


def _warn_of_another_address(ip: str) -> None:
    """Warn if the address of machine 0 is not one of this machine, as behind address translation."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(ip, 0, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        logger.warning(
            "this is machine 0, but --main_process_ip %s does not seem to be it (%s)", ip, reason.lower()
        )


def _join(machines: Machines, directory: str, plan: Message) -> Meeting:
    waiting = _Waiting(machines)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    hello = {"machine": machines.rank, "host": socket.gethostname(), "plan": plan}
    while True:
        line = _connect(machines)
        if line is not None:
            read_in_background(line, events)
            line.send(hello)
            message = _answer(line, events, waiting)
            if message is not None:
                break
            line.close()  # machine 0 was restarted, or is that of a run which is ending
        waiting.go_on("machine 0")
        waiting.pause("machine 0")
    if "refused" in message:
        line.close()
        raise ConfigError(message["refused"])
    hosts = {int(machine): str(host) for machine, host in message["hosts"].items()}
    meeting = Meeting(machines, hosts, {0: line}, events)
    try:
        _require_same_directory(directory, message["token"], hosts[0])
    except ConfigError as error:
        meeting.tell(error.exit_code, str(error))
        meeting.close()
        raise
    return meeting


def _connect(machines: Machines) -> Line | None:
    try:
        return Line(socket.create_connection((machines.ip, machines.port + 1), timeout=5.0))
    except socket.gaierror as error:
        raise ConfigError(
            f"--main_process_ip {machines.ip} is not known here ({error.strerror}): give that of machine 0."
        ) from None
    except OSError:
        return None


def _answer(line: Line, events: queue.SimpleQueue[Event], waiting: _Waiting) -> Message | None:
    """Return what machine 0 says, None when it leaves instead."""
    while True:
        with suppress(queue.Empty):
            spoke, message = events.get(timeout=0.5)
            if spoke is line:
                return message
        waiting.go_on("all machines")


def _require_same_directory(directory: str, token: str, host: str) -> None:
    wait = Wait(_SAME_DIRECTORY_TIMEOUT, every=0.5)
    while True:
        with suppress(OSError):
            if (Path(directory) / _TOKEN).read_text() == token:
                return
        if wait.is_over:
            raise ConfigError(
                f"`output_dir={directory}` on {socket.gethostname()} is not that of machine 0 ({host}): give "
                "a folder on a file system that all machines share."
            )
        wait.pause()


class _Waiting(Wait):
    """Says now and then what is waited for, and ends the wait."""

    def __init__(self, machines: Machines) -> None:
        self._where = where = f"{machines.ip}:{machines.port + 1}"
        words = "waiting for %s at %s for %.0f s"
        super().__init__(TIMEOUT, every=0.5, say=lambda what, so_far: logger.info(words, what, where, so_far))

    def go_on(self, what: str) -> None:
        """Raise MachineLost when it has taken too long."""
        if self.is_over:
            raise MachineLost(
                f"{what} did not come to {self._where} within {TIMEOUT:.0f} s: start the same command there, "
                "with its --machine_rank, and see that this port can be reached."
            )
        self.say_so(what)
