"""The first process of a machine says its last words before the others end."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from rlt.surroundings.last_words import let_first_end
from rlt.surroundings.world import ALONE, World

FIRST = "import sys; sys.stdin.read()"  # ends when its input is closed
SECOND = """
import sys
from rlt.surroundings.last_words import let_first_end
from rlt.surroundings.world import World
print("waits", flush=True)
let_first_end(World(1, 2, 1, "127.0.0.1", 1, "torchrun", True), float(sys.argv[1]))
"""


def start(code: str, rank: int, *words: str) -> subprocess.Popen[str]:
    env = {**os.environ, "LOCAL_RANK": str(rank)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *words], env=env, **pipes)  # pyright: ignore


def test_another_process_ends_after_the_first():
    with start(FIRST, 0) as first, start(SECOND, 1, "600") as second:
        assert second.stdout is not None
        assert second.stdout.readline() == "waits\n"
        time.sleep(1)
        assert second.poll() is None
        first.communicate()
        assert second.wait() == 0


def test_it_does_not_wait_for_ever():
    with start(FIRST, 0) as first, start(SECOND, 1, "0.5") as second:
        assert second.wait() == 0
        assert first.poll() is None
        first.communicate()


def test_one_process_waits_for_nobody():
    let_first_end(ALONE, 600)
    let_first_end(World(0, 2, 0, "127.0.0.1", 1, "torchrun", True), 600)
