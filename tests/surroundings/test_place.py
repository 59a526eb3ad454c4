"""Doors in odd places: closed streams, no home, links, foreign modules, two checkouts on one environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
WRONG = "learning_rat=1"
SAID = "`learning_rat` on the command line is not a setting"
Finished = subprocess.CompletedProcess[str]


def run(command: str, cwd: Path, **env: str) -> Finished:
    """Return a finished line of a shell."""
    whole = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")
    }
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env=whole | env,
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose modules end whatever imports them."""
    folder = tmp_path_factory.mktemp("traps")
    for name in ("random", "queue", "yaml", "select", "logging", "psutil", "torch", "socket"):
        (folder / f"{name}.py").write_text("raise SystemExit('a trap was imported')\n")
    for name in ("hydra", "omegaconf", "rlt"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('a trap was imported')\n")
    return folder


@pytest.mark.parametrize("path", [None, ":/nowhere", "/nowhere::/nowhere:"])
@pytest.mark.parametrize("door", ["launch.sh", "launch_with_server.sh 1 1"])
def test_launchers_import_nothing_of_the_current_folder(traps, door, path):
    env = {} if path is None else {"PYTHONPATH": path}
    done = run(f"{PROJECT}/{door} {WRONG}", traps, **env)
    assert (done.returncode, SAID in done.stderr) == (2, True), done.stderr


def test_nor_do_train_py_and_the_processes_below_it(traps):
    done = run(f"{sys.executable} {PROJECT}/train.py {WRONG}", traps)
    assert (done.returncode, SAID in done.stderr) == (2, True), done.stderr
    helper = "import os; from rlt.surroundings.place import settle; settle(os.environ); "
    helper += (
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-m', 'rlt.devices', '--x']))"
    )
    done = run(f'cd {traps} && PYTHONSAFEPATH=1 PYTHONPATH={PROJECT} {sys.executable} -c "{helper}"', traps)
    assert "a trap was imported" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", ["launch.sh", "launch_with_server.sh"])
def test_a_link_to_a_link_is_followed_from_anywhere(tmp_path, script):
    (tmp_path / "bin").mkdir()
    (tmp_path / "first").symlink_to(os.path.relpath(PROJECT / script, tmp_path.resolve()))
    (tmp_path / "bin" / "rlt").symlink_to("../first")
    counts = "1 1" if script == "launch_with_server.sh" else ""
    for command, env in (
        (f"bin/rlt {counts}", {"CDPATH": "/usr"}),
        (f"rlt {counts}", {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}),
    ):
        done = run(f"{command} {WRONG}", tmp_path, **env)
        assert (done.returncode, SAID in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_the_checkout_that_was_typed_runs_in_every_process(tmp_path, traps):
    clone = tmp_path / "clone"
    shutil.copytree(
        PROJECT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "tests", "__pycache__", "results")
    )
    (clone / ".venv").symlink_to((PROJECT / ".venv").resolve())
    child = (
        "import subprocess, sys; subprocess.call([sys.executable, '-c', 'import rlt; print(rlt.__file__)'])"
    )
    (clone / "rlt" / "surroundings" / "world.py").open("a").write(f"\n{child}\n")
    settle = "from rlt.surroundings.place import settle\n"
    (clone / "rlt" / "surroundings" / "roll_call.py").open("a").write(f"\n{settle}")
    mine = str(clone / "rlt" / "__init__.py")
    done = run(f"{clone}/launch.sh {WRONG}", traps, PYTHONPATH=str(PROJECT))
    assert done.stdout.split() == [mine], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("door", ["launch.sh", "train.py"])
def test_closed_streams(tmp_path, closed, door):
    program = f"{PROJECT}/launch.sh" if door == "launch.sh" else f"{sys.executable} {PROJECT}/train.py"
    done = run(f"{program} {WRONG} {closed}", tmp_path)
    assert done.returncode == 2
    assert (SAID in done.stderr) == ("2>&-" not in closed)
    assert "Traceback" not in done.stderr
    done = run(f"{program} --help {closed}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("home", "said"),
    [
        ("-u HOME", "HOME is not set: caches go to"),
        ("HOME=/no/where", "HOME=/no/where is no folder to write to"),
    ],
)
@pytest.mark.parametrize("door", ["launch.sh", "train.py"])
def test_a_user_without_home_or_name(tmp_path, home, said, door):
    if subprocess.run(["unshare", "-U", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    program = f"{PROJECT}/launch.sh" if door == "launch.sh" else f"{sys.executable} {PROJECT}/train.py"
    nobody = "unshare -U --map-user=12345 --map-group=12345 env -u USER -u LOGNAME"
    done = run(f"{nobody} {home} TMPDIR={tmp_path} {program} {WRONG}", tmp_path)
    assert (done.returncode, SAID in done.stderr, said in done.stderr) == (2, True, True), done.stderr
    assert (tmp_path / "rlt-home-12345").is_dir()
