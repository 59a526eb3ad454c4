"""Locks of dead builds go, locks of living ones stay."""

import os
import subprocess
import sys
import time
from pathlib import Path

from rlt.launch.native_builds import remove_stale_locks


def make_lock(root: Path, name: str, age: float) -> Path:
    lock = root / "py311_cpu" / name / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (time.time() - age,) * 2)
    return lock


def test_only_locks_without_a_builder_are_removed(tmp_path):
    dead = make_lock(tmp_path, "dead", age=3600)
    ahead = make_lock(tmp_path, "ahead", age=-3600)  # made before the clock was set back
    held = make_lock(tmp_path, "held", age=1)
    built = make_lock(tmp_path, "built", age=3600)
    sleep = "import sys, time; held = open(sys.argv[1]); print(); time.sleep(600)"
    command = [sys.executable, "-uc", sleep]
    builders = [
        subprocess.Popen([*command, os.devnull], cwd=built.parent, stdout=subprocess.PIPE),
        subprocess.Popen([*command, str(held)], stdout=subprocess.PIPE),  # torch before its compiler starts
    ]
    try:
        for builder in builders:
            assert builder.stdout is not None
            builder.stdout.readline()
        assert remove_stale_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path)}) == [ahead, dead]
    finally:
        for builder in builders:
            builder.kill()
            builder.communicate()
    assert [lock.exists() for lock in (dead, ahead, held, built)] == [False, False, True, True]


def test_without_a_cache_there_is_nothing_to_do(tmp_path):
    assert remove_stale_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path / "none")}) == []
