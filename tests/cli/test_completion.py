"""The completion script in a real bash."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rlt.cli.completion import script


@pytest.fixture(scope="module")
def completes(tmp_path_factory):
    """Return what bash offers for the last of some words, split as bash splits them."""
    path = tmp_path_factory.mktemp("completion") / "rlt.bash"
    path.write_text(script())

    def offer(*words: str, shell: tuple[str, ...] = ("bash", "--norc")) -> list[str]:
        text = f'source {path}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rlt; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run([*shell, "-c", text, "-", *words], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return offer


def test_settings_of_the_stage_on_the_line(completes):
    assert completes("./launch.sh", "cfgs/run_cfg/teacher_rl.yaml", "reward.kl_es") == [
        "reward.kl_estimator="
    ]
    assert completes("./launch.sh", "cfgs/run_cfg/student_sft.yaml", "reward.kl_es") == []
    assert completes("./launch.sh", "reward.kl_es") == ["reward.kl_estimator="]
    assert completes("python", "train.py", "run_cfg", "=", "evaluate", "evaluate.num_sa") == [
        "evaluate.num_samples="
    ]


@pytest.mark.parametrize("words", [("layout.tags", "=", "be"), ("layout.tags=be",)])
def test_values_of_a_choice(completes, words):
    offered = completes("./launch.sh", "cfgs/run_cfg/teacher_rl.yaml", *words)
    assert [word.removeprefix("layout.tags=") for word in offered] == ["bespoke"]


def test_run_files_groups_and_flags(completes):
    assert "teacher_rl" in completes("python", "train.py", "run_cfg", "=", "tea")
    assert completes("python", "train.py", "recipe", "=") == ["released", "modern"]
    assert completes("./launch.sh", "--dr") == ["--dry-run"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_is_content(tmp_path):
    (tmp_path / "rlt.bash").write_text("#!/usr/bin/env bash\n" + script())
    done = subprocess.run(
        ["shellcheck", "-e", "SC2034", tmp_path / "rlt.bash"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
