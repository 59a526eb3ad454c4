"""What a process takes for granted and may lack: open standard streams, a home, and its own code below it."""

from __future__ import annotations

import getpass
import logging
import os
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from rlt.errors import ConfigError

logger = logging.getLogger(__name__)
PROJECT = Path(__file__).resolve().parents[2]


def settle(env: MutableMapping[str, str]) -> None:
    """Make up for what is lacking, for this process and all below it; `env` is os.environ."""
    open_streams()
    run_own_code(env)
    find_home(env)


def open_streams() -> None:
    """Open closed standard streams (`>&-`, daemons) on /dev/null: the next file would become our stdout."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def run_own_code(env: MutableMapping[str, str]) -> None:
    """Make every Python below this process import this checkout, and nothing of the current folder.

    The environment's Python may have another checkout installed. `python -m` looks into the current folder
    first, where a random.py or hydra/ would be taken for the real one; PYTHONSAFEPATH keeps it from that.
    An empty entry of PYTHONPATH means the current folder as well.
    """
    given = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    others = [entry for entry in given if Path(entry).resolve() != PROJECT]
    env["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *others])
    env["PYTHONSAFEPATH"] = "1"


def find_home(env: MutableMapping[str, str]) -> None:
    """Set HOME and USER where libraries would fail without; caches then go to a temporary folder."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, and none of LOGNAME, USER, …; torch asks
        env["USER"] = env["LOGNAME"] = f"uid-{os.getuid()}"
    home = Path(os.path.expanduser("~"))
    if home.is_absolute() and home.is_dir() and (os.access(home, os.W_OK) or (home / ".cache").is_dir()):
        return
    given = f"HOME={env['HOME']} is no folder to write to" if env.get("HOME") else "HOME is not set"
    folder = Path(tempfile.gettempdir()) / f"rlt-home-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        is_ours = folder.stat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError:
        is_ours = False
    if not is_ours:
        raise ConfigError(f"{given}, and {folder} cannot be used either: set HOME to a folder of yours.")
    logger.warning("%s: caches go to %s; set HOME to keep them elsewhere", given, folder)
    env["HOME"] = str(folder)
