"""What scripts/setup.sh decides before it installs anything: the Python, CPU or CUDA; and its last look."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = "bash cat cksum cut dirname env grep head mkdir mv rm tail timeout"
Finished = subprocess.CompletedProcess[str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of what setup.sh reads; `bin` in it holds the tools that it needs, and no Python."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS.split():
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or pytest.skip(f"{tool} is not here"))
    return tmp_path


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def python(project: Path, name: str, version: tuple[int, int, int]) -> None:
    """Put a Python on the PATH that says it is of some version; it ends where it should make a venv."""
    told = f"import sys; sys.version_info = {(*version, 'final', 0)}; exec(sys.argv[1])"
    program(
        project / "bin" / name,
        f'case "$1" in -c) exec {sys.executable} -c "{told}" "$2";; '
        f"-V) echo Python {'.'.join(map(str, version))};; *) echo {name} was taken; exit 9;; esac",
    )


def setup(project: Path, *words: str, **env: str) -> Finished:
    """Return the finished script; only `bin` is on its PATH."""
    command = ["bash", str(project / "scripts" / "setup.sh"), *words]
    env = {"PATH": str(project / "bin"), "HOME": str(project), "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=1000, check=False)


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": (3, 10, 12), "python3.12": (3, 12, 3)}, "python3.12"),
        ({"python3": (3, 9, 2), "python3.10": (3, 10, 0), "python3.11": (3, 11, 2)}, "python3.11"),
        ({"python3": (3, 13, 5), "python3.12": (3, 12, 3)}, "python3"),
        ({"python3": (3, 15, 0), "python3.14": (3, 14, 0)}, "python3.14"),
    ],
)
def test_the_first_python_that_is_new_enough_is_taken(project, pythons, taken):
    for name, version in pythons.items():
        python(project, name, version)
    done = setup(project, "--cpu")
    assert f"{taken} was taken" in done.stdout, done.stderr
    assert f"with Python {'.'.join(map(str, pythons[taken]))}" in done.stdout
    assert done.returncode == 9


def test_without_a_fitting_python_there_is_one_sentence(project):
    python(project, "python3", (3, 10, 12))
    python(project, "python3.15", (3, 15, 0))
    done = setup(project, "--cpu")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        "setup: found no Python from 3.11 to 3.14 with its venv module (tried python3 "
    )
    assert done.stderr.count("\n") == 1
    assert not (project / ".venv").exists()


def test_a_python_that_is_asked_for_is_taken_or_refused(project):
    python(project, "python3", (3, 12, 0))
    python(project, "my python", (3, 11, 0))
    python(project, "old", (3, 10, 0))
    assert "my python was taken" in setup(project, "--cpu", PYTHON=str(project / "bin" / "my python")).stdout
    refused = setup(project, "--cpu", PYTHON="old")
    assert refused.returncode == 1
    assert "found no Python from 3.11 to 3.14 with its venv module (tried old)" in refused.stderr


no_gpu_here = pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")


@no_gpu_here
@pytest.mark.parametrize(
    ("smi", "told"),
    [
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "Driver/library version",
        ),
        ("exit 9", "nvidia-smi is here and fails (exit code 9): it says nothing"),
        ("echo 'No devices were found'; exit 6", ""),
        ("echo 'No devices found.'", ""),
        ("echo 'GPU 0: NVIDIA L40S (UUID: GPU-1)'", ""),
    ],
)
def test_an_nvidia_smi_that_fails_is_told_in_its_words(project, smi, told):
    python(project, "python3", (3, 12, 0))
    program(project / "bin" / "nvidia-smi", smi)
    done = setup(project)
    assert told in done.stdout
    assert ("nvidia-smi" in done.stdout) == bool(told)
    assert ("setting up for cpu; --cpu or --cuda says otherwise" in done.stdout) == bool(told)


@pytest.mark.slow
@no_gpu_here
def test_a_set_up_for_gpus_ends_with_a_look_at_them(project):
    program(project / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    lines = 'echo "cuda $PWD $(cat pyproject.toml scripts/setup.sh | cksum)" > .venv/.rlt-setup'
    subprocess.run(["bash", "-c", lines], cwd=project, check=True)
    smi = "case $1 in -L) echo 'GPU 0: NVIDIA L40S (UUID: GPU-1)';; *) echo '0, GPU-1';; esac"
    program(project / "bin" / "nvidia-smi", smi)
    asked = setup(project, "--cuda")
    assert asked.returncode == 1
    assert asked.stderr.startswith("setup: torch cannot use GPU 0: torch ")
    chosen = setup(project)  # the quickstart continues with the CPU
    assert chosen.returncode == 0
    assert "is ready (cuda)\nsetup: torch cannot use GPU 0: torch " in chosen.stdout
    (project / "bin" / "nvidia-smi").unlink()  # a node without GPUs, where one may set up all the same
    assert "torch can use 0 GPUs" in setup(project, "--cuda").stdout
    assert setup(project, "--cuda").stdout.endswith("is ready (cuda)\n")


SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed_before_anything_is_set_up(tmp_path, script):
    (tmp_path / "scripts").mkdir()
    if script != "setup.sh":
        program(tmp_path / "scripts" / "setup.sh", "echo 'this installs packages' >&2; exit 9")
    shutil.copy(ROOT / "scripts" / script, tmp_path / "scripts" / script)
    for word in ("-h", "--help"):
        done = subprocess.run(
            ["bash", f"scripts/{script}", word],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: scripts/{script}")


@pytest.mark.parametrize("words", [["many"], ["0"], ["2x", "results/claims", "models"]])
def test_claims_over_no_number_of_seeds_is_refused_before_anything_is_set_up(tmp_path, words):
    (tmp_path / "scripts").mkdir()
    program(tmp_path / "scripts" / "setup.sh", "echo 'this installs packages' >&2; exit 9")
    shutil.copy(ROOT / "scripts" / "claims.sh", tmp_path / "scripts" / "claims.sh")
    done = subprocess.run(
        ["bash", "scripts/claims.sh", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "the number of seeds must be a whole number from 1 on" in done.stderr


def test_skythoughts_package_gets_a_folder_of_its_own(project):
    """pip is a stand-in that makes the folder it is given."""
    pip = 'mkdir -p "$8"; echo "$@" >> asked'
    program(
        project / ".venv" / "bin" / "python",
        f'case "$2" in pip) {pip};; *) exec {sys.executable} "$@";; esac',
    )
    lines = 'echo "cpu $PWD $(cat pyproject.toml scripts/setup.sh | cksum)" > .venv/.rlt-setup'
    subprocess.run(["bash", "-c", lines], cwd=project, check=True)
    folder = project / ".venv" / "skythought"
    assert setup(project, "--cpu").returncode == 0
    assert not folder.exists()
    for _ in range(2):
        done = setup(project, "--cpu", "--skythought")
        assert done.stdout.endswith(f"SkyThought's package is ready: evaluate.original={folder}\n"), (
            done.stderr
        )
    (asked,) = (project / "asked").read_text().splitlines()
    assert "install --no-deps --ignore-requires-python --target" in asked
    assert "skythought==0.1.0 latex2sympy2==1.9.1 antlr4-python3-runtime==4.7.2" in asked
    (folder / ".pins").write_text("skythought==0.0.9\n")
    assert setup(project, "--cpu", "--skythought").returncode == 0
    assert len((project / "asked").read_text().splitlines()) == 2
    assert (folder / ".pins").read_text().startswith("skythought==0.1.0 ")
