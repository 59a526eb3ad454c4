"""Launchers that run beside a test, and everything below them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

from rlt.launch.descendants import MARK, living

PROJECT = Path(__file__).parents[2]
NO_GPUS = {"CUDA_VISIBLE_DEVICES": ""}
PATIENCE = 1000.0
"""Seconds for anything that is waited for: only a hang takes so long."""
SECRETS = {"HF_TOKEN": "hf_secretOfThisTest0123", "WANDB_API_KEY": "wandb-secret-of-this-test"}


class Launcher:
    """A launcher and the processes below it; `words` begin with its name."""

    def __init__(self, run: Path, *words: str, **env: str) -> None:
        self.run = run
        self.mark = uuid.uuid4().hex
        run.parent.mkdir(parents=True, exist_ok=True)
        self.output = (run.parent / f"console-{self.mark}").open("w+")
        script, *rest = words
        self.popen = subprocess.Popen(
            [str(PROJECT / script), *rest, f"output_dir={run}"],
            cwd=PROJECT,
            env={**os.environ, **NO_GPUS, **SECRETS, MARK: self.mark, "HF_HUB_OFFLINE": "1", **env},
            stdout=self.output,
            stderr=self.output,
        )

    def descendants(self) -> list[psutil.Process]:
        """Return what runs below the launcher."""
        return [process for process in living(self.mark) if process.pid != self.popen.pid]

    def called(self, name: str) -> list[psutil.Process]:
        """Return the processes below the launcher whose command line holds a word."""
        found = []
        for process in self.descendants():
            try:
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                pass  # just ended
        return found

    def has_stepped(self, steps: int = 1) -> bool:
        """Whether metrics.jsonl holds as many rows."""
        metrics = self.run / "metrics.jsonl"
        return metrics.is_file() and metrics.read_bytes().count(b"\n") >= steps

    def phase(self) -> str:
        """Return what the run is doing now."""
        try:
            return json.loads((self.run / "now.json").read_text())["phase"]
        except (OSError, ValueError):
            return ""

    def console(self) -> str:
        """Return what it has printed."""
        self.output.seek(0)
        return self.output.read()

    def held(self) -> list[psutil.Process]:
        """Return the processes below the launcher that are stopped."""
        return [process for process in self.descendants() if status(process) == psutil.STATUS_STOPPED]

    def wait_until_held(self) -> psutil.Process:
        """Return the process that has stopped itself at its `Moment` (tests/helpers/moments.py)."""
        self.wait_for("the moment", lambda: bool(self.held()))
        (process,) = self.held()
        return process

    def wait_for(self, what: str, is_true: Callable[[], bool], every: float = 0.1) -> None:
        """Return once something is so; fail if the launcher ends before, or nothing comes of it."""
        deadline = time.monotonic() + PATIENCE
        while not is_true():
            assert self.popen.poll() is None, f"the launcher ended before {what}:\n{self.console()}"
            assert time.monotonic() < deadline, (
                f"{what} did not come within {PATIENCE:g} s:\n{self.console()}"
            )
            time.sleep(every)

    def wait(self) -> int:
        """Return its exit code, and see that nothing is left of it."""
        try:
            code = self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done within {PATIENCE:g} s:\n{self.console()}") from None
        assert self.descendants() == [], self.console()
        return code

    def wait_for_nothing(self) -> None:
        """Return once the launcher, which has been killed, and everything below it is gone."""
        self.popen.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while found := self.descendants():
            assert time.monotonic() < deadline, f"{found} are left:\n{self.console()}"
            time.sleep(0.2)

    def end(self) -> None:
        """End it, by force if it must be."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
            self.popen.wait(PATIENCE)
        for process in self.descendants():
            process.kill()
        self.output.close()


def status(process: psutil.Process) -> str:
    """Return what the kernel says of a process; of one that has ended, that it is dead."""
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD
