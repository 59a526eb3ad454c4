"""What a run alone needed is removed, whether its launcher ends by itself, by a signal, or is killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlt.generation.checkpoint_sync import CheckpointSync
from rlt.generation.sync_folder import sync_folder

LAUNCHER = """
import signal, sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from rlt.config.compose import compose
from rlt.launch.run import clear_syncs_after
from rlt.launch.signals import Stopped, stop_on_signals

stop_on_signals()
config = compose(["run_cfg=teacher_rl", f"output_dir={sys.argv[1]}", *sys.argv[2:]])
try:
    with ExitStack() as stack:
        clear_syncs_after(SimpleNamespace(config=config), stack)
        print("ready", flush=True)
        signal.pause()
except Stopped as stopped:
    sys.exit(128 + stopped.number)
"""


def write_versions(folder: Path) -> None:
    """Write what a sync has in its folder: a version that servers have read, and one half written."""
    for name in ("weights-000003-0123abcd", "weights-000004-4567cdef.partial"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model-00001-of-00001.safetensors").write_bytes(b"0" * 1000)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("shared", [False, True], ids=["in the run", "in a shared folder"])
def test_a_launcher_that_is_ended_leaves_no_weights(tmp_path, number, shared):
    run, place = tmp_path / "run", tmp_path / "syncs"
    folder = sync_folder(str(run), str(place) if shared else None)
    write_versions(folder)
    write_versions(place / "another-run-0123abcd")
    words = [f"generation.sync_dir={place}"] if shared else []
    command = [sys.executable, "-c", LAUNCHER, str(run), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        launcher.send_signal(number)
    deadline = time.monotonic() + 1000
    while folder.exists() and time.monotonic() < deadline:  # the guard of a killed one takes a moment
        time.sleep(0.1)
    assert not folder.exists()
    assert len(list(place.glob("another-run-0123abcd/weights-*"))) == 2


def test_what_somebody_else_put_there_is_kept(tmp_path):
    write_versions(tmp_path)
    (tmp_path / "weights-of-mine").mkdir()
    CheckpointSync(None, tmp_path, timeout=1.0).close()  # pyright: ignore[reportArgumentType]
    assert [path.name for path in tmp_path.iterdir()] == ["weights-of-mine"]
