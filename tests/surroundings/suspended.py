"""Watchers with small limits, each to be run in a process that is suspended meanwhile: `NAME ADDRESS FOLDER`.

Each prints "watching", does what takes `WORK` seconds, twelve of them suspended, under a shorter limit,
and prints how it went. Of the limit, about two seconds are used: the others are for a busy machine.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

from rlt.errors import GenerationError, TrainingStuck
from rlt.generation.parallel import run_all
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import VLLMServer
from rlt.io import write_json
from rlt.launch.health import MotionWatch
from rlt.surroundings.clock import running, since_boot
from rlt.surroundings.waiting import wait_until
from rlt.tasks.grading_child import GradingChild

NAME, ADDRESS, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
LIMIT, WORK = 10.0, 13


def clock() -> str:
    start, begun = running(), since_boot()
    while running() - start < 2:
        time.sleep(0.05)
    return "well" if since_boot() - begun > 4.5 else "the suspension was counted"


def silence() -> str:
    pool = VLLMPool([ADDRESS], timeout=LIMIT)
    pool.generate([[1]], 1, Sampling(0.7, 8, ()), [0])
    return "well"


def request() -> str:
    VLLMServer(ADDRESS).get("/once-slow", timeout=LIMIT)
    return "well"


def threads() -> str:
    run_all([("a task", lambda: time.sleep(WORK))], timeout=LIMIT)
    return "well"


def motion() -> str:
    watch, end = MotionWatch(FOLDER, FOLDER / "train.log", LIMIT), time.monotonic() + WORK
    write_json(
        FOLDER / "now.json", {"phase": "p", "since": 0, "step": 1, "written": time.time(), "spent": {}}
    )
    while time.monotonic() < end:
        watch.check()
        time.sleep(0.1)
    return "well"


def grading() -> str:
    child = GradingChild(1.0)
    child._process = subprocess.Popen(["sh", "-c", f"sleep {WORK}; echo true"], stdout=subprocess.PIPE)
    return "well" if child._read_line(LIMIT) == b"true" else "the grader was given up"


def grace() -> str:
    event = threading.Event()
    threading.Timer(WORK, event.set).start()
    wait_until(event.is_set, LIMIT)
    return "well" if event.is_set() else "a process in its grace would have been killed"


sys.stdout.write("watching\n")
sys.stdout.flush()
try:
    said = {f.__name__: f for f in (clock, silence, request, threads, motion, grading, grace)}[NAME]()
except (GenerationError, TrainingStuck) as error:
    said = str(error)
sys.stdout.write(said + "\n")
