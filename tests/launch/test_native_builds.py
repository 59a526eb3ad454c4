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


def test_only_old_locks_without_a_builder_are_removed(tmp_path):
    dead = make_lock(tmp_path, "dead", age=3600)
    young = make_lock(tmp_path, "young", age=1)
    built = make_lock(tmp_path, "built", age=3600)
    builder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=built.parent)
    try:
        assert remove_stale_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path)}) == [dead]
    finally:
        builder.kill()
        builder.wait()
    assert (dead.exists(), young.exists(), built.exists()) == (False, True, True)


def test_without_a_cache_there_is_nothing_to_do(tmp_path):
    assert remove_stale_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path / "none")}) == []
