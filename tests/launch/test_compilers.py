"""Compilers that Triton and DeepSpeed look for while a run is under way, on a PATH with and without them."""

import os
from pathlib import Path

import pytest
from helpers.forecast_runs import configured

from rlt.device_plan import Plan
from rlt.errors import ConfigError
from rlt.launch.compilers import check_compilers
from rlt.launch.look import look_at_compilers

ON_GPUS = Plan((), ("0", "1"), 2, "zero3")
WITH_SERVER = Plan((("0",),), ("1",), 1, "zero3")
OFFLOAD = Plan((), ("0", "1"), 2, "offload")
ZERO3_ON_CPU = Plan((), (), 2, "zero3")
ON_CPU = Plan(((),), (), 1, "single")


def path_with(folder: Path, *programs: str) -> dict[str, str]:
    """Return an environment whose PATH holds some programs and nothing else."""
    folder.mkdir(exist_ok=True)
    for name in programs:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


@pytest.mark.parametrize(
    ("run", "plan", "sentence"),
    [
        (
            "teacher_sft",
            ON_GPUS,
            "training on GPUs (Triton) needs a C compiler, and there is no gcc or clang",
        ),
        ("teacher_rl", WITH_SERVER, "a vLLM server on GPUs (Triton) needs a C compiler"),
        ("collect_traces", Plan((("0",),), (), 1, "single"), "a vLLM server on GPUs (Triton) needs"),
        ("student_sft", ZERO3_ON_CPU, "`zero3` on a CPU (DeepSpeed's collectives) needs a C++ compiler"),
    ],
)
def test_a_missing_compiler_is_one_sentence(tmp_path, run, plan, sentence):
    words = ["model_name_or_path=m"] if run == "collect_traces" else []
    config = configured(run, *words)
    with pytest.raises(ConfigError) as caught:
        check_compilers(config, plan, path_with(tmp_path / "bin"))
    assert str(caught.value).startswith(sentence)
    check_compilers(config, plan, path_with(tmp_path / "bin", "gcc", "g++", "c++"))  # the remedy


def test_offload_needs_c_plus_plus_beside_c(tmp_path):
    config = configured("student_sft")
    with pytest.raises(ConfigError, match=r"host memory\) needs a C\+\+ compiler, and there is no c\+\+"):
        check_compilers(config, OFFLOAD, path_with(tmp_path / "bin", "clang"))
    check_compilers(config, ON_GPUS, path_with(tmp_path / "bin"))
    check_compilers(config, OFFLOAD, path_with(tmp_path / "bin", "c++"))


def test_a_compiler_that_is_named_is_the_only_one_tried(tmp_path):
    config, env = configured("student_sft"), path_with(tmp_path / "bin", "gcc", "c++", "mycc", "ccache")
    check_compilers(config, OFFLOAD, {**env, "CC": "mycc", "CXX": "ccache g++"})
    for variable, language in (("CC", "C"), ("CXX", "C\\+\\+")):
        with pytest.raises(
            ConfigError, match=f"a {language} compiler, and {variable}='gone' names no program"
        ):
            check_compilers(config, OFFLOAD, {**env, variable: "gone"})


def test_where_nothing_is_built_nothing_is_asked(tmp_path):
    env = path_with(tmp_path / "bin")
    check_compilers(configured("teacher_rl"), ON_CPU, env)
    check_compilers(configured("teacher_sft"), Plan((), (), 2, "ddp"), env)
    check_compilers(configured("collect_traces", "model_name_or_path=m"), ON_CPU, env)


def test_a_dry_run_only_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", path_with(tmp_path / "bin"))
    line = look_at_compilers(configured("teacher_sft"), ON_GPUS, refuse=False)
    assert line is not None
    assert line.startswith("compilers: training on GPUs (Triton) needs a C compiler")
    with pytest.raises(ConfigError):
        look_at_compilers(configured("teacher_sft"), ON_GPUS, refuse=True)
