"""How many connections a process may have open."""

from __future__ import annotations

import resource

from rlt.errors import GenerationError

_OTHER_FILES = 512
"""Open files that are left for everything but connections."""


def allow_sockets(number: int, at_least: int = 0) -> int:
    """Return how many connections this process may have open, `number` if possible.

    Raises the process's own limit of open files, usually 1024, if the machine allows it. `at_least` so many
    have been allowed before.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return number
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(at_least, limit - _OTHER_FILES)


def require_sockets(count: int, setting: str | None) -> None:
    """Raise GenerationError where this process may not have so many connections open.

    `setting` is what the stage takes the number of requests from, None where there is nothing to lower.
    """
    if allow_sockets(count) < count:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        raise GenerationError(
            f"{count} requests at once need {count + _OTHER_FILES} open files, and this machine allows "
            f"{hard} (ulimit -Hn): {f'lower {setting}, or ' if setting else ''}raise the limit"
        )
