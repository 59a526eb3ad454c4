"""The launchers as a user types them."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.fake_models import fake_model

import rlt.launch.main as main_module
import rlt.launch.run as run_module
from rlt.data.model_layout import ModelLayout, write_layout
from rlt.errors import ConfigError, GenerationError
from rlt.io import write_json
from rlt.launch.command_line import parse
from rlt.launch.main import Launch, describe, main, prepare
from rlt.launch.ports import is_free
from rlt.launch.signals import Stopped

PROJECT = Path(__file__).parents[2]
EIGHT_GPUS = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
NO_GPUS = {"CUDA_VISIBLE_DEVICES": ""}
SFT = "cfgs/run_cfg/teacher_sft.yaml"
RL = "cfgs/run_cfg/teacher_rl.yaml"
STUDENT_RL = "cfgs/run_cfg/student_rl.yaml"
COLLECT = "cfgs/run_cfg/collect_traces.yaml"
HUB_MODEL = "model_name_or_path=Qwen/Qwen2.5-7B-Instruct"

FLASH = "model.attn_implementation=flash_attention_2"
KERNELS = "model.attn_implementation=kernels-community/flash-attn2"

Finished = subprocess.CompletedProcess[str]


def launch(script: str, *words: str, env: dict[str, str], cwd: Path = PROJECT) -> Finished:
    """Return the finished launcher."""
    command = [str(PROJECT / script), *words]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=1000, check=False
    )


def commands(result: Finished | str) -> tuple[list[str], str]:
    """Return the server commands and the training command of a dry run."""
    if not isinstance(result, str):
        assert result.returncode == 0, result.stderr
        result = result.stdout
    lines = result.splitlines()
    servers = [line for line in lines if "api_server" in line]
    return servers, next(line for line in lines if "train.py" in line)


@pytest.fixture
def planned(monkeypatch) -> Callable[..., str]:
    """Return a function that gives a dry run's page, made in this process: a start takes two seconds."""

    def plan(script: str, *words: str, env: dict[str, str]) -> str:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return describe(prepare(script, parse(script, words)))

    return plan


def test_sft_dry_run_on_eight_gpus():
    servers, training = commands(launch("launch.sh", SFT, "--dry-run", env=EIGHT_GPUS))
    assert servers == []
    assert "cfgs/accelerate/zero3.yaml" in training
    assert "--num_processes 8" in training
    assert "--mixed_precision bf16" in training
    assert " CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 " in training
    assert training.endswith(f"train.py {SFT}")


def test_rl_dry_run_halves_eight_gpus(planned):
    words = ["8", RL, "offload", HUB_MODEL, "--dry-run"]
    servers, training = commands(planned("launch.sh", *words, env=EIGHT_GPUS))
    assert all(f"CUDA_VISIBLE_DEVICES={gpu} " in line for gpu, line in zip("0123", servers, strict=True))
    assert "CUDA_VISIBLE_DEVICES=4,5,6,7 RLT_NUM_GPUS=8 " in training
    assert "cfgs/accelerate/offload.yaml" in training
    assert "--num_processes 4" in training
    ports = [line.split("--port ")[1].split()[0] for line in servers]
    assert len(set(ports)) == 4
    assert f"generation.servers=[{','.join(f'http://127.0.0.1:{port}' for port in ports)}]" in training


def test_the_split_by_hand_and_the_words_of_the_original(planned):
    words = ["4", "4", "run_cfg@_global_=teacher_rlt", "zero1", HUB_MODEL, "results_dir=/tmp/x", "--dry-run"]
    servers, training = commands(planned("launch_with_server.sh", *words, env=EIGHT_GPUS))
    assert len(servers) == 4
    assert "cfgs/accelerate/zero1.yaml" in training
    assert "/tmp/x/teacher_rl/logs/vllm-" in servers[0]


def test_student_rl_is_launched_like_teacher_rl(planned):
    words = ["2", "4", STUDENT_RL, HUB_MODEL, "dataset_id_or_path=openai/gsm8k", "--dry-run"]
    result = planned("launch_with_server.sh", *words, env=EIGHT_GPUS)
    assert "student_model: null" in result  # which a grader pays
    servers, training = commands(result)
    assert all(f"CUDA_VISIBLE_DEVICES={gpu} " in line for gpu, line in zip("01", servers, strict=True))
    assert "CUDA_VISIBLE_DEVICES=2,3,4,5 RLT_NUM_GPUS=6 " in training
    assert "--num_processes 4" in training


def test_without_gpus_two_processes_train_under_zero3_beside_one_server(planned):
    words = ["1", "2", RL, HUB_MODEL, "--dry-run", "model.dtype=float32"]
    servers, training = commands(planned("launch_with_server.sh", *words, env=NO_GPUS))
    assert len(servers) == 1
    assert "--enforce-eager" in servers[0]
    assert "VLLM_CPU_KVCACHE_SPACE=1" in servers[0]
    assert "DS_ACCELERATOR=cpu" in training
    assert "ACCELERATE_USE_CPU" not in training  # it would switch DeepSpeed off
    assert "cfgs/accelerate/zero3.yaml --num_processes 2" in training
    assert "--mixed_precision no" in training


def test_running_servers_are_only_trained_against(planned):
    words = [RL, HUB_MODEL, "generation.servers=[http://127.0.0.1:8000]", "--dry-run"]
    servers, training = commands(planned("launch.sh", *words, env=EIGHT_GPUS))
    assert servers == []
    assert "--num_processes 8" in training


def test_collecting_generates_on_all_gpus_and_asks_from_the_cpu(planned):
    servers, asking = commands(planned("launch.sh", COLLECT, HUB_MODEL, "--dry-run", env=EIGHT_GPUS))
    assert all(f"CUDA_VISIBLE_DEVICES={gpu} " in line for gpu, line in zip("01234567", servers, strict=True))
    assert "CUDA_VISIBLE_DEVICES='' RLT_NUM_GPUS=8 " in asking
    assert f" {sys.executable} {PROJECT}/train.py {COLLECT}" in asking
    assert asking.count("http://127.0.0.1:") == 8


def test_collecting_from_running_servers_takes_no_gpu(planned):
    words = [COLLECT, HUB_MODEL, "generation.servers=[http://127.0.0.1:8000]", "--dry-run"]
    servers, asking = commands(planned("launch.sh", *words, env=EIGHT_GPUS))
    assert servers == []
    assert "CUDA_VISIBLE_DEVICES='' RLT_NUM_GPUS=0 " in asking
    assert "accelerate" not in asking.replace("ACCELERATE_USE_CPU=true", "")


@pytest.mark.slow
def test_a_dry_run_of_a_collection_says_whose_prompt_is_taken_or_refused(tmp_path):
    """Before servers start; what is typed must be the teacher's own."""
    fake_model(tmp_path / "teacher")
    write_layout(tmp_path / "teacher", ModelLayout("teacher", "bespoke", "Explain mine.", None))
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "solution": "2"}\n')
    words = [COLLECT, "model_name_or_path=teacher", "dataset_id_or_path=rows.jsonl", "--dry-run"]
    done = launch("launch.sh", *words, env=NO_GPUS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "teacher_prompt: text:Explain mine." in done.stdout
    assert (
        "layout.teacher_prompt is model_name_or_path=teacher's own, from its rlt_layout.json" in done.stderr
    )
    refused = launch("launch.sh", *words, "layout.teacher_prompt=Else.", env=NO_GPUS, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: `layout.teacher_prompt` on the command line is not the teacher's"
    )
    assert refused.stderr.count("\n") == 1


def test_the_transformers_back_end_needs_no_server_and_any_folder_will_do(tmp_path):
    words = [RL, HUB_MODEL, "generation.backend=transformers", "--dry-run"]
    servers, training = commands(launch("launch.sh", *words, env=NO_GPUS, cwd=tmp_path))
    assert servers == []
    assert "accelerate" not in training.replace("ACCELERATE_USE_CPU=true", "")
    assert f"{sys.executable} {PROJECT}/train.py" in training


@pytest.mark.parametrize(
    ("script", "words", "sentence"),
    [
        ("launch_with_server.sh", ["4", RL], "takes two numbers, GENERATION and TRAINING,"),
        ("launch.sh", ["4", "4", SFT], "takes at most one number"),
        ("launch.sh", ["0", SFT], "counts GPUs or processes from 1 on"),
        ("launch.sh", [SFT, "zero1", "offload"], "zero1 and offload contradict each other"),
        ("launch.sh", ["16", SFT], "16 GPUs are asked for training, but 8 are visible"),
        ("launch_with_server.sh", ["6", "4", RL, HUB_MODEL], "are 10, but 8 are visible"),
        ("launch_with_server.sh", ["1", "1", SFT], "stage teacher_sft generates nothing"),
        ("launch_with_server.sh", ["1", "1", COLLECT], "but collect_traces trains nothing: use launch.sh"),
        ("launch.sh", [COLLECT, "zero3"], "`zero3` is a way to train, and collect_traces trains nothing"),
        ("launch.sh", ["cfgs/run_cfg/infer.yaml", HUB_MODEL, "infer.question=1+1"], "needs no launcher"),
        ("launch.sh", [SFT, "learning_rat=1"], "did you mean `learning_rate`"),
        ("launch.sh", ["cfgs/run_cfg/teacher_sftt.yaml"], "teacher_sftt"),
        (
            "launch.sh",
            [RL, HUB_MODEL, "generation.servers=[http://node-2:8000]"],
            "and there is no key, so any client",
        ),
        ("launch.sh", [RL, "model_name_or_path=no/such/folder"], "no/such/folder"),
        (
            "launch.sh",
            [RL, HUB_MODEL, FLASH],
            "needs the package flash-attn (>=2.3.3), which is not installed",
        ),
        ("launch.sh", [RL, HUB_MODEL, FLASH, "--dry-run"], "needs the package flash-attn"),
        ("launch.sh", [SFT, HUB_MODEL, KERNELS], "needs the package kernels (>=0.16,<0.17), which is not"),
    ],
)
def test_what_is_wrong_is_one_sentence(script, words, sentence, monkeypatch, capsys, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", EIGHT_GPUS["CUDA_VISIBLE_DEVICES"])
    monkeypatch.chdir(PROJECT)
    assert main([script, *words]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ")
    assert said.out == ""
    assert [record.getMessage() for record in caplog.records] == []


def test_a_launcher_that_refuses_says_one_sentence_and_ends_with_its_code():
    result = launch("launch_with_server.sh", "4", RL, env=EIGHT_GPUS)
    assert result.returncode == 2
    assert result.stderr.startswith("error: launch_with_server.sh takes two numbers")
    assert (result.stderr.count("\n"), result.stdout) == (1, "")


@pytest.mark.slow
def test_an_installed_kernel_is_planned_for_and_not_run_on_a_cpu(tmp_path):
    (tmp_path / "flash_attn.py").write_text("")
    facts = tmp_path / "flash_attn-2.8.3.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
    installed = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    words = [SFT, HUB_MODEL, "hardware.gpu=h100-80g", FLASH, "--dry-run"]
    planned = launch("launch.sh", *words, env={**EIGHT_GPUS, **installed})
    assert planned.returncode == 0, planned.stderr
    assert "(zero3, 8 process(es), flash_attention_2 attention), GiB:" in planned.stdout
    assert launch("launch.sh", *words, env={**NO_GPUS, **installed}).returncode == 0  # of a login node
    refused = launch("launch.sh", *words[:-1], f"output_dir={tmp_path / 'run'}", env={**NO_GPUS, **installed})
    assert refused.returncode == 2
    assert "flash_attention_2` needs a GPU, and this run uses the CPU" in refused.stderr


def test_words_may_stand_anywhere_after_the_numbers():
    line = parse("launch.sh", ["8", "seed=1", SFT, "zero2", "--dry-run"])
    assert (line.counts, line.word, line.overrides, line.dry_run) == ((8,), "zero2", ("seed=1", SFT), True)
    assert line.typed == f"./launch.sh 8 seed=1 {SFT} zero2 --dry-run"


@pytest.fixture
def sft_words(tmp_path) -> list[str]:
    """Return the words of a warm-up that passes every check; its model has no weights."""
    fake_model(tmp_path / "model")
    rows = [{"question": "1+1?", "solution": "2", "reasoning_trace": "1+1=2"}] * 2
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model_name_or_path": tmp_path / "model",
        "dataset_id_or_path": tmp_path / "problems.jsonl",
        "output_dir": tmp_path / "run",
        "model.dtype": "float32",
        "report_to": "null",
    }
    return [SFT, *(f"{key}={value}" for key, value in settings.items())]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        (
            GenerationError("vLLM server 0 ended with exit code 1\nits log"),
            5,
            ("failed", "GenerationError: vLLM server 0 ended with exit code 1"),
        ),
        (Stopped(signal.SIGHUP), 129, ("interrupted", "ended by SIGHUP to the launcher")),
    ],
)
def test_why_the_launcher_ended_a_training_is_in_run_json(tmp_path, sft_words, monkeypatch, end, code, told):
    record = {"status": "running", "ended": None, "error": None}
    gone = {"host": socket.gethostname(), "pid": 2**22 + 1}  # above Linux's largest pid
    earlier, run_json = tmp_path / "earlier.json", tmp_path / "run" / "run.json"
    write_json(run_json, {**record, "process": gone})

    def run_that_is_ended(launch: Launch) -> int:
        run_json.rename(earlier)
        write_json(run_json, {**record, "process": gone})
        raise end

    monkeypatch.setattr(run_module, "run", run_that_is_ended)
    assert main(["launch.sh", *sft_words]) == code
    closed = json.loads(run_json.read_text())
    assert (closed["status"], closed["error"]) == told
    assert closed["ended"]
    # A run that had been killed before, launcher and all, did not end for this reason.
    assert json.loads(earlier.read_text())["error"] == "the process ended without a word (killed?)"


@pytest.mark.parametrize("setting", ["dataset_id_or_path", "evaluation.path"])
def test_a_missing_column_is_told_before_anything_starts(tmp_path, sft_words, capsys, setting):
    (tmp_path / "bad.jsonl").write_text('{"question": "1+1?", "reasoning_trace": "1+1=2"}\n')
    assert main(["launch.sh", *sft_words, f"{setting}={tmp_path / 'bad.jsonl'}", "--dry-run"]) == 3
    error = capsys.readouterr().err
    assert "bad.jsonl" in error
    assert "question and solution, conversations, or messages are needed" in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("num_problems", "code"), [(8, 0), (7, 3)])
def test_a_dry_run_reads_what_the_training_would_with_the_servers_it_would_have(
    tmp_path, tiny_teacher, tiny_student, capfd, monkeypatch, num_problems, code
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    rows = [{"question": f"{n}+1?", "solution": str(n + 1)} for n in range(num_problems)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [f"model_name_or_path={tiny_teacher}", f"student_model={tiny_student}"]
    files += [f"dataset_id_or_path={tmp_path / 'rows.jsonl'}", f"output_dir={tmp_path / 'run'}"]
    sizes = ["max_prompt_length=300", "max_completion_length=50", "train_batch_size=32", "num_generations=4"]
    words = [RL, *files, *sizes, "layout.student_prompt=default", "--dry-run"]
    assert main(["launch_with_server.sh", "1", "2", *words]) == code
    told = capfd.readouterr()
    assert f"prompt tokens of {num_problems} rows, limit 300" in told.err
    assert ("tokenizers, templates and rows are as teacher_rl needs them" in told.err) == (code == 0)
    assert not (tmp_path / "run").exists()


def test_the_training_meets_at_a_port_of_no_server(monkeypatch):
    base = free_block(5)
    monkeypatch.setattr("rlt.launch.ports._LOW", base)
    monkeypatch.setattr("rlt.launch.ports._HIGH", base + 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", EIGHT_GPUS["CUDA_VISIBLE_DEVICES"])
    planned = prepare(
        "launch.sh",
        parse("launch.sh", [RL, HUB_MODEL, f"generation.base_port={base}", "--dry-run"]),
    )
    assert [server.port for server in planned.servers] == [base, base + 1, base + 2, base + 3]
    assert planned.command[planned.command.index("--main_process_port") + 1] == str(base + 4)


def test_a_dry_run_needs_no_vllm(tmp_path, monkeypatch, capsys):
    """It may be for another machine, as on a Mac, where vLLM cannot be installed."""
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    words = ["launch.sh", RL, HUB_MODEL, f"output_dir={tmp_path / 'run'}", "hardware.gpu=h100-80g"]
    assert main([*words, "--dry-run"]) == 0
    said = "generation.backend=vllm needs vLLM, which is not installed: run scripts/setup.sh, or generate in"
    assert f"# servers: {said}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=said):
        prepare("launch.sh", parse("launch.sh", words[1:]))


def free_block(size: int) -> int:
    """Return the first of some free ports in a row."""
    for base in range(20000, 32000, size):
        if all(is_free(port, "127.0.0.1") for port in range(base, base + size)):
            return base
    raise AssertionError("no free ports")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        pytest.param(
            "/proc/x", "/proc/x", marks=pytest.mark.skipif(sys.platform == "darwin", reason="Linux")
        ),
        ("a_file", "a_file"),
        ("logs_is_a_file", "logs_is_a_file/logs"),
        ("logs_is_full", "train.log: Is a directory"),
    ],
)
def test_an_output_dir_that_cannot_be_written_is_one_sentence(tmp_path, sft_words, capsys, place, reason):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "logs_is_a_file").mkdir()
    (tmp_path / "logs_is_a_file" / "logs").write_text("")
    (tmp_path / "logs_is_full" / "logs" / "train.log").mkdir(parents=True)
    assert main(["launch.sh", *sft_words, f"output_dir={tmp_path / place}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: `output_dir={tmp_path / place}` cannot ")
    assert reason in error
    assert error.count("\n") == 1


def test_ctrl_c_before_anything_was_started(sft_words, monkeypatch, capsys):
    def interrupted(script: str, line: object) -> Launch:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "prepare", interrupted)
    assert main(["launch.sh", *sft_words]) == 130
    assert capsys.readouterr().err == "interrupted\n"
