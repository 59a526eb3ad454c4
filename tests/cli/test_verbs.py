"""`python -m rlt`: its list, every command behind it, and how commands end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from rlt.__main__ import main
from rlt.cli import env
from rlt.cli.verbs import VERBS
from rlt.surroundings.leaving import run_command

ROOT = Path(__file__).parents[2]


def test_the_list_has_every_command_with_an_example_and_fits_a_terminal(capsys):
    assert main([]) == 0
    page = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert f"\n{name} " in page
        assert f"    python -m rlt {name} {verb.example}".rstrip() in re.sub(r"\n {8}", " ", page)
    assert max(map(len, page.splitlines())) <= 80


def test_every_module_with_a_command_line_of_its_own_is_listed():
    listed = {verb.module for verb in VERBS.values()} | {"rlt.launch.main", "rlt.__main__"}
    listed -= {"rlt.quickstart.main"}  # of the package itself
    inner = {"launch.guard", "launch.accelerated", "tasks.grading_process", "tasks.skythought_process"}
    inner |= {"quickstart.__main__", "models.counting", "config.reference", "real_model.convert"}
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "rlt").rglob("*.py")
        if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
    }
    assert found - {f"rlt.{name}" for name in inner} == listed


@pytest.mark.parametrize("name", VERBS)
def test_every_command_explains_itself(name, capsys):
    try:
        code = import_module(VERBS[name].module).main(["--help"])
    except SystemExit as left:  # argparse's way
        code = left.code
    assert code == 0
    assert "usage: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", sorted(VERBS.keys() - {"serve", "recipe-diff", "claims"})
)  # two take settings
def test_an_option_that_a_command_does_not_have_is_one_sentence(name, capsys):
    # before: quickstart, claim, devices and student-server printed argparse's usage, and four commands named
    # themselves as modules, `python -m rlt.lineage`
    assert run_command(main, [name, "--nonsense"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ")
    assert said.endswith(f": `python -m rlt {name} --help` lists what can be typed.\n")


def test_numbers_of_commands_have_bounds(capsys):
    for words, rule in [
        (["claim", "--seeds", "0"], "--seeds must be at least 1 (the number of seeds, from 0 on), got 0."),
        (["student-server", "x", "--temperature", "warm"], "must be a number above 0, got warm: "),
        (["student-server", "x", "--temperature", "0"], "must be a number above 0, got 0: "),
    ]:
        assert run_command(main, words) == 2
        assert rule in capsys.readouterr().err


def test_a_wrong_command_names_the_nearest(capsys):
    assert run_command(main, ["stats"]) == 2
    said = "error: `stats` is not a command of rlt, did you mean `status`? `python -m rlt` lists all.\n"
    assert capsys.readouterr().err == said
    assert run_command(main, ["zzz"]) == 2
    assert capsys.readouterr().err == "error: `zzz` is not a command of rlt: `python -m rlt` lists all.\n"


def test_a_full_disk_behind_the_output_is_one_sentence():
    # before: "Exception ignored in … OSError", exit code 120
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rlt", "differences"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the output cannot be written: No space left on device\n",
    )


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_behind_a_file_names_the_file(tmp_path):
    # before: "the output cannot be written", as if it were the screen's
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        (disk / "seed_0").mkdir()
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as file:
            file.write(bytes(2**20))
        command = [sys.executable, "-m", "rlt", "claims", "--output", str(disk), "--seeds", "--parts"]
        done = subprocess.run([*command, "rivals"], capture_output=True, text=True, cwd=ROOT)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert done.returncode == 1
    start = f"error: {disk}/claims.md cannot be written (No space left on device): make room there"
    assert done.stderr.splitlines()[-1].startswith(start)
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m rlt differences | true; exit ${{PIPESTATUS[0]}}"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) in [(141, ""), (0, "")]  # 0: all was written before `true` ended


def test_the_environment_report_masks_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwx")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    facts = env.facts()
    assert facts["HF_TOKEN"] == "***"
    assert facts["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "transformers", "trl", "GPUs", "memory"} <= facts.keys()
