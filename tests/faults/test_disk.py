"""A disk that fills up while a run writes: what was whole stays, and the run continues from it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.moments import Moment
from helpers.stage_runs import count_differences

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return the place of a small disk, 64 MB at first; skip where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def leave(disk: Path, megabytes: float) -> Path:
    """Fill the disk up to so many megabytes; return the file that does."""
    usage = os.statvfs(disk)
    filler = disk / "filler"
    with filler.open("wb") as file:
        left = usage.f_bavail * usage.f_frsize - int(megabytes * 2**20)
        for _ in range(left // 2**16):
            file.write(bytes(2**16))
    return filler


@pytest.mark.parametrize(
    "megabytes",
    [
        pytest.param(
            size,
            marks=pytest.mark.fault(
                f"the disk is full, {size} MB into a checkpoint", "one sentence; resumed from the one before"
            ),
        )
        for size in (0.1, 1, 3)
    ],
)
def test_a_checkpoint_that_does_not_fit(megabytes, disk, local_words, start_launcher, tmp_path, lost):
    command = ["launch.sh", *local_words, "resume_from=auto"]
    after = Moment(str(disk / "run" / "metrics.jsonl"), lines=3)  # between two checkpoints
    full = start_launcher(*command, under=disk, **after.environment())
    training = full.wait_until_held()
    filler = leave(disk, megabytes)
    training.resume()
    assert full.wait() == 6, full.console()
    assert "Traceback" not in full.console()
    assert "make room there" in full.console()
    filler.unlink()
    resumed = start_launcher(*command, under=disk)
    assert resumed.wait() == 0, resumed.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    lost(count_differences(resumed.run, calm.run))
    assert json.loads((resumed.run / "run.json").read_text())["status"] == "finished"
