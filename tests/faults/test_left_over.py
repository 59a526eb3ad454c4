"""Variables of torchrun, MPI and Slurm that an earlier program has left in the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from helpers.stage_runs import ROOT, count_differences, run_command

pytestmark = pytest.mark.slow
TORCHRUN = {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "2"}
GONE = {**TORCHRUN, **PLACE, "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("left", "count"),
    [
        pytest.param(
            *(left, count),
            marks=pytest.mark.fault(
                f"{what} left its variables to launch.sh, {count} process{'es' * (count > 1)}",
                "named, not handed on; metrics and weights are those of an undisturbed run",
            ),
        )
        for what, left, count in (("torchrun", TORCHRUN | PLACE, 1), ("mpirun", MPI, 2))
    ],
)
def test_launchers_decide_which_processes_there_are(left, count, sft_words, start_launcher, tmp_path, lost):
    command = ["launch.sh", str(count), *sft_words, "ddp"]
    launcher = start_launcher(*command, **left)
    assert launcher.wait() == 0, launcher.console()
    assert "not handed on, as launch.sh decides which processes there are" in launcher.console()
    calm = start_launcher(*command, under=tmp_path / "calm")
    assert calm.wait() == 0, calm.console()
    assert "not handed on" not in calm.console()
    lost(count_differences(launcher.run, calm.run))


def refused(what: str, left: dict[str, str], says: str, *marks: pytest.MarkDecorator):
    """Return a scenario with its name."""
    return pytest.param(*(left, says), id=what, marks=[*marks, pytest.mark.fault(what, f"refused: “{says}”")])


@pytest.mark.parametrize(
    ("left", "says"),
    [
        refused("a part of torchrun's variables reaches train.py", TORCHRUN, "without MASTER_ADDR"),
        refused("a part of mpirun's variables reaches train.py", MPI, "MASTER_ADDR", pytest.mark.long),
        refused(
            "variables of a torchrun that has ended reach train.py",
            GONE,
            "left over in this environment",
            pytest.mark.long,
        ),
    ],
)
def test_a_process_that_is_one_of_several_nowhere(left, says, sft_words, tmp_path: Path):
    output = tmp_path / "run"
    words = [sys.executable, str(ROOT / "train.py"), "run_cfg=teacher_sft", *sft_words[1:]]
    done = run_command([*words, f"output_dir={output}"], timeout=1000, **left)
    assert done.returncode == 2, done.stdout
    (sentence,) = [line for line in done.stdout.splitlines() if line.startswith("error")]
    assert says in sentence
    assert "Traceback" not in done.stdout
    assert not output.exists()
    assert "RANK" not in os.environ
