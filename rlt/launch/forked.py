"""A stage in a copy of this process, which has loaded the libraries: for tiny models, whose start costs most.

A launcher and its training load the same libraries again for every stage, ten seconds and more on a CPU. A
pipeline with pipeline.fork loads them once, and forks for each step that is one process on a CPU without
servers. Everything else is as with the launcher: checks, command line and run directory.
What needs more (GPUs, several processes, servers) becomes the launcher.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

from rlt.errors import RLTError
from rlt.launch.command import PROJECT
from rlt.launch.descendants import GRACE
from rlt.launch.guard import KILL_TIMEOUT, the_guard
from rlt.launch.main import parse, prepare
from rlt.launch.preflight import prepare_directory
from rlt.launch.run import Launch
from rlt.launch.training import DRAIN_TIMEOUT, copy_output
from rlt.rundir.run_record import COMMAND_VARIABLE
from rlt.rundir.stop_file import LAUNCHED_VARIABLE
from rlt.surroundings.clock import since_boot
from rlt.surroundings.waiting import wait_until

_LIBRARIES = (
    *("rlt.stages.teacher_sft", "rlt.stages.teacher_rl", "rlt.stages.student_sft", "rlt.stages.student_rl"),
    *("rlt.stages.collect_traces", "rlt.stages.score_traces", "rlt.stages.evaluate"),
    *("trl.trainer.sft_trainer", "trl.trainer.grpo_trainer"),
)


def load_libraries() -> None:
    """Import what the stages import, before the first fork; one thread, since threads are not copied."""
    for name in _LIBRARIES:
        import_module(name)


class ForkedStage:
    """A running stage with the interface of `TrainingProcess`; a thread copies what it writes."""

    def __init__(self, words: Sequence[str], log_path: Path) -> None:
        """Start a stage: `words` are the launcher's name, then what it gets."""
        guard = the_guard()
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("ab", buffering=0)
        source, sink = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            # Never returns: an exception that left here would run the pipeline's clean-up a second time.
            code = 1
            try:
                guard.leave()
                _become_child(sink)
                code = run_stage(words)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        os.close(sink)
        guard.watch(self.pid)
        self._code: int | None = None
        copy = partial(copy_output, source, log, sys.stdout.fileno())
        self._copying = threading.Thread(target=copy, daemon=True)
        self._copying.start()

    def poll(self) -> int | None:
        """Return the exit code as a shell would show it, None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._code = 128 - code if code < 0 else code
        return self._code

    def stop(self, grace: float = GRACE) -> None:
        """End the stage: SIGTERM to its group, and SIGKILL after `grace` seconds; copy its last words."""
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_TIMEOUT)):
            if self.poll() is None:
                os.killpg(self.pid, number)
                wait_until(lambda: self.poll() is not None, seconds)
        self.drain()

    def drain(self) -> None:
        """Wait until what is left of the output is copied."""
        self._copying.join(DRAIN_TIMEOUT)


def _become_child(output: int) -> None:
    """Lead a session of our own, write to `output`, and take signals and logging as a new process does."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for of, to in ((null, 0), (output, 1), (output, 2)):
        os.dup2(of, to)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)


def run_stage(words: Sequence[str]) -> int:
    """Return the exit code of a launcher's command line, run in this process where that can be."""
    try:
        launch = prepare(words[0], parse(words[0], list(words[1:])))
        if launch.servers or launch.plan.strategy != "single" or launch.plan.training_gpus:
            os.execv(str(PROJECT / words[0]), list(words))
        prepare_directory(launch.config.output_dir, launch.log_path)
    except RLTError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return _train(launch)


def _train(launch: Launch) -> int:
    os.environ |= launch.env
    os.environ |= {COMMAND_VARIABLE: launch.typed, LAUNCHED_VARIABLE: str(since_boot())}
    train = str(PROJECT / "train.py")
    words = launch.command[launch.command.index(train) + 1 :]
    sys.argv = [train, *words]
    return _module(train).main(words)


def _module(path: str) -> ModuleType:
    """Return train.py as a module; it is a script beside the package, and no part of it."""
    spec = importlib.util.spec_from_file_location("train", path)
    assert spec is not None, f"{path} is a Python file"
    assert spec.loader is not None, f"{path} is a Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
