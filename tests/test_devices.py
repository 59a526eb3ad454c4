"""GPUs that are here, that are named, that torch can use: each is what it is, and none is guessed."""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import train
from rlt import devices
from rlt.devices import (
    NvidiaSmiError,
    named_gpus,
    on_gpu,
    present_gpus,
    refuse_unusable,
    usable_in_rehearsal,
    visible_gpus,
)
from rlt.errors import ConfigError
from rlt.forecast.forecast import NoForecast
from rlt.forecast.hardware import gpu_kind
from rlt.launch.main import main
from rlt.quickstart.stages import choose_backend

ROOT = Path(__file__).parents[1]
ELSEWHERE = "97"
"""The index of a GPU that no machine has."""
DRIVER_GONE = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
    "NVIDIA driver is installed and running."
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
LOST = "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error"
FAILURES = {
    "exit 9": "nvidia-smi fails with exit code 9 and prints nothing",
    f'echo "{DRIVER_GONE}"; echo; exit 9': f"nvidia-smi fails with exit code 9 and prints “{DRIVER_GONE}”",
    f'echo "{MISMATCH}" >&2; exit 18': f"nvidia-smi fails with exit code 18 and prints “{MISMATCH}”",
    f'echo 0; echo "{LOST}"': f"nvidia-smi answers “{LOST}”",
    "exec sleep 600": "nvidia-smi did not answer within",
}
MIG_LIST = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1111)
  MIG 3g.40gb     Device  0: (UUID: MIG-1111-aaaa)
  MIG 3g.40gb     Device  1: (UUID: MIG-2222-aaaa)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2222)
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what puts a shell script on the PATH as nvidia-smi; no variable names GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    def install(script: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
        if "sleep" in script:
            monkeypatch.setattr(devices, "NVIDIA_SMI_TIMEOUT", 3)

    return install


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0,1,2", ("0", "1", "2")),
        ("3, 5", ("3", "5")),
        ("1,0,10", ("1", "0", "10")),
        ("", ()),
        ("-1", ()),
        ("1,-1,2", ("1",)),  # CUDA stops at the first invalid entry
        ("0,1,", ("0", "1")),
        ("NoDevFiles", ()),  # what Slurm sets for a job without GPUs
        ("GPU-8f,MIG-3a", ("GPU-8f", "MIG-3a")),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",)),
        ("MIG-GPU-8932f937-d72c/1/2", ("MIG-GPU-8932f937-d72c/1/2",)),
    ],
)
def test_visible_gpus_are_those_of_the_variable(listed, expected):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": listed}) == expected


@pytest.mark.parametrize(
    "listed", ["0,0", "0,1,00", "GPU-8f,GPU-9a,GPU-8f", "GPU-8f,GPU-8f12-34", "MIG-3a,MIG-3a"]
)
def test_a_gpu_named_twice_is_refused(listed):
    with pytest.raises(ConfigError, match=r"names GPU \S+ twice, and CUDA then shows none"):
        visible_gpus({"CUDA_VISIBLE_DEVICES": listed})


@pytest.mark.parametrize(
    ("listed", "word"),
    [("all", "all"), ("0,gpu1", "gpu1"), ("0-3", "0-3"), ("0 1", "0 1"), ("cuda:0", "cuda:0"), ("²", "²")],
)
def test_words_are_refused_by_name(listed, word):
    with pytest.raises(ConfigError, match=f"{listed}: `{word}` names no GPU"):
        visible_gpus({"CUDA_VISIBLE_DEVICES": listed})
    with pytest.raises(ConfigError, match=f"--gpus={listed}: "):
        named_gpus(listed, "--gpus")


@pytest.mark.parametrize(("script", "sentence"), FAILURES.items())
def test_an_nvidia_smi_that_fails_is_an_error_in_its_words(smi, script, sentence):
    smi(script)
    with pytest.raises(NvidiaSmiError) as caught:
        visible_gpus({})
    assert caught.value.what.startswith(sentence)
    assert "; name the GPUs with CUDA_VISIBLE_DEVICES=0,1,…, or set CUDA_VISIBLE_DEVICES= " in str(
        caught.value
    )
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}) == ("0", "1")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()


@pytest.mark.slow
@pytest.mark.parametrize(("script", "sentence"), FAILURES.items())
def test_nothing_trains_where_nvidia_smi_fails(smi, tmp_path, capsys, monkeypatch, script, sentence):
    smi(script)
    words = [
        "cfgs/run_cfg/teacher_sft.yaml",
        f"output_dir={tmp_path / 'run'}",
        "model_name_or_path=not/there",
    ]
    monkeypatch.chdir(ROOT)
    for start in (lambda: main(["launch.sh", *words]), lambda: train.main(words)):
        assert start() == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {sentence}")
        assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_one_that_cannot_be_run_and_one_that_is_missing_beside_a_gpu(smi, tmp_path, monkeypatch):
    smi("")
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/no/such/shell\n")
    with pytest.raises(NvidiaSmiError, match="nvidia-smi cannot be run: No such file"):
        visible_gpus({})
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(devices, "_DEVICE_FILES", tmp_path)
    assert visible_gpus({}) == ()
    (tmp_path / "nvidiactl").touch()  # of the driver, not of a GPU
    assert visible_gpus({}) == ()
    (tmp_path / "nvidia1").touch()
    with pytest.raises(NvidiaSmiError, match=r"has .*nvidia1, but no nvidia-smi on the PATH"):
        visible_gpus({})
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()


@pytest.mark.parametrize(
    "script", ["echo 'No devices were found'; exit 6", "exit 6", "echo 'No devices found.'"]
)
def test_no_devices_is_no_gpu(smi, script):
    smi(script)
    assert visible_gpus({}) == ()
    assert not on_gpu()


def test_a_hanging_nvidia_smi_leaves_nothing_behind(smi, tmp_path):
    smi(f"echo $$ > {tmp_path}/pid\nsleep 600")
    with pytest.raises(NvidiaSmiError, match=r"did not answer within 3 s"):
        visible_gpus({})
    group = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 1000
    while running_in(group):  # the kernel ends it in a moment
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running_in(group: int) -> list[psutil.Process]:
    """Return the processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_gpus_that_are_elsewhere_are_not_present(smi):
    rows = "echo '0, GPU-aaaa-1111'; echo '1, GPU-bbbb-2222'"
    smi(f"case $1 in -L) cat <<'LIST'\n{MIG_LIST}LIST\n;; *) {rows};; esac")
    assert present_gpus({}) == ("0", "1")
    assert present_gpus({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}) == ("0", "1")
    assert present_gpus({"CUDA_VISIBLE_DEVICES": "GPU-bbbb,GPU-cccc"}) == ("GPU-bbbb",)
    assert present_gpus({"CUDA_VISIBLE_DEVICES": "MIG-2222-aaaa,MIG-4444"}) == ("MIG-2222-aaaa",)
    assert present_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()


@pytest.mark.parametrize("script", [s.removeprefix("echo 0; ") for s in FAILURES])
def test_no_kind_of_gpu_is_assumed_where_nvidia_smi_fails(smi, script):
    from rlt.config.schema import HardwareSettings

    smi(script)
    with pytest.raises(NoForecast, match=r"hardware\.gpu=KIND plans for a kind of GPU"):
        gpu_kind(HardwareSettings())
    assert gpu_kind(HardwareSettings(gpu="l40s-48g")).name == "L40S 48 GB"


def test_torch_that_sees_fewer_gpus_than_are_named_is_refused(monkeypatch):
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ELSEWHERE)
    build = torch.__version__.split("+")[0]
    with pytest.raises(ConfigError, match=f"torch cannot use GPU {ELSEWHERE}: torch {build}"):
        on_gpu()
    with pytest.raises(ConfigError, match=f"torch cannot use any of the GPUs {ELSEWHERE},98: .*is built"):
        refuse_unusable([ELSEWHERE, "98"])  # in a process of its own
    refuse_unusable([])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not on_gpu()


def test_the_driver_is_named_where_nvidia_smi_shows_gpus_that_torch_cannot_use(smi, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use the GPUs of this machine")
    smi("case $1 in *driver*) echo 535.104.05;; *) echo '0, GPU-aaaa';; esac")
    with pytest.raises(ConfigError, match=r"the NVIDIA driver is 535\.104\.05"):
        on_gpu()
    present, reason = usable_in_rehearsal()
    assert present == ()
    assert "the NVIDIA driver is 535.104.05" in (reason or "")
    smi(f'echo "{MISMATCH}"; exit 18')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ConfigError, match=f"built .*; nvidia-smi fails with exit code 18 .*“{MISMATCH}”"):
        on_gpu()


def test_the_quickstart_goes_on_with_the_cpu_and_says_so(smi, caplog, monkeypatch):
    smi(f'echo "{MISMATCH}"; exit 18')
    assert choose_backend("transformers").name == "transformers"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ELSEWHERE)
    assert not choose_backend("auto").on_gpus
    told = [record.getMessage() for record in caplog.records]
    goes_on = "the quickstart continues with the CPU"
    assert told[0].startswith(f"{goes_on}: nvidia-smi fails with exit code 18 and prints “{MISMATCH}”")
    assert told[1].startswith(f"{goes_on}: torch cannot use GPU {ELSEWHERE}")


@pytest.mark.slow
def test_a_launch_for_gpus_that_are_elsewhere_is_planned_and_not_started(
    tmp_path, tiny_teacher, toy_problems, capfd, monkeypatch
):
    files = [f"model_name_or_path={tiny_teacher}", f"dataset_id_or_path={toy_problems}"]
    settings = [
        *files,
        f"output_dir={tmp_path / 'run'}",
        "trainer.max_steps=1",
        "data.max_length=512",
    ]
    words = ["1", "cfgs/run_cfg/teacher_sft.yaml", *settings]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ELSEWHERE)
    for start in (lambda: main(["launch.sh", *words]), lambda: train.main(words[1:])):
        assert start() == 2
        error = capfd.readouterr().err
        assert error.startswith(f"error: torch cannot use GPU {ELSEWHERE}: torch ")
        assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert main(["launch.sh", *words, "--dry-run"]) == 0
    assert f"training on GPU {ELSEWHERE}" in capfd.readouterr().out


def test_all_else_asks_here():
    """One place decides: torch.cuda's own answer takes a GPU that it cannot use for none."""
    answers = {"is_available", "device_count"}
    for path in sorted((ROOT / "rlt").rglob("*.py")):
        if path.name in ("devices.py", "run_record.py"):  # the latter writes down the names of GPUs in use
            continue
        found = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute))
        asked = {n.attr for n in found if ast.unparse(n.value).endswith("cuda")}
        assert not asked & answers, path


def test_the_look_of_setup(capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.main([]) == 0
    assert capsys.readouterr().out == "torch can use 0 GPUs\n"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ELSEWHERE)
    assert devices.main([]) == 2
    assert capsys.readouterr().err.startswith(f"error: torch cannot use GPU {ELSEWHERE}")
