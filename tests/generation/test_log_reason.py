"""The reason of a failure, found in logs of the shape that vLLM, torchrun and our own trainings write.

The messages are those that real servers of vLLM 0.31 gave to real faults, cut to what tells them apart; those
of GPUs are from its sources.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlt.config.stages import STAGES
from rlt.config.tree import rows
from rlt.generation.log_reason import find_reason, log_tail, quote_end, quote_log
from rlt.generation.log_remedies import REMEDIES, remedy_of

STAMP = "ERROR 11-29 21:40:16 [core.py:1433] "
FRAMES = [f'  File "/lib/vllm/part_{n}.py", line {n}, in call_{n}' for n in range(24)]
WAITING = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


def engine_log(*final: str) -> str:
    """Return a log in which the engine dies of an exception, and then everything that waits for it."""
    trace = ["Traceback (most recent call last):", *FRAMES, *final]
    lines = ["$ python -m vllm", "INFO 11-29 21:40:00 [api_server.py:1] vLLM API server version 0.31.0"]
    lines += [f"(EngineCore pid=7) {STAMP}{line}" for line in ["EngineCore failed to start.", *trace]]
    lines += ["Process EngineCore:", *trace]
    lines += ["(EngineCore pid=7) ERROR 11-29 21:40:24 [multiproc_executor.py:314] Worker died unexpectedly"]
    lines += [
        "Traceback (most recent call last):",
        *FRAMES,
        WAITING,
        "  warnings.warn('resource_tracker: 1')",
    ]
    return "\n".join(lines) + "\n"


def server_log(*final: str) -> str:
    """Return a log in which the API server dies before there is an engine."""
    return "\n".join(["$ vllm", "Traceback (most recent call last):", *FRAMES, *final]) + "\n"


def validation(sentence: str) -> list[str]:
    first = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"
    return [
        first,
        f"  Value error, {sentence} [type=value_error, input_value=ArgsKwargs(())]",
        "    For more",
    ]


FAULTS = {
    "context": (
        server_log(
            *validation("User-specified max_model_len (9000) is greater than the derived max_model_len")
        ),
        ("max_model_len (9000)", "lower max_completion_length or max_prompt_length"),
    ),
    "KV cache": (
        engine_log("ValueError: 8.58 GiB is larger than the available KV cache memory (1.0 GiB)."),
        ("available KV cache memory", "VLLM_CPU_KVCACHE_SPACE"),
    ),
    "host memory": (
        engine_log("ValueError: Available memory (18/23 GiB) is less than requested memory for kv (900 GiB)"),
        ("requested memory for kv", "lower the environment variable VLLM_CPU_KVCACHE_SPACE"),
    ),
    "GPU memory taken": (
        engine_log("ValueError: Free memory on device cuda:0 (9/79 GiB) on startup is less than desired GPU"),
        ("Free memory on device", "generation.gpu_memory_utilization"),
    ),
    "GPU memory": (
        engine_log("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
        ("CUDA out of memory", "generation.tensor_parallel"),
    ),
    "shared memory": (
        engine_log("OSError: [Errno 28] No space left on device: '/dev/shm/psm_1234'"),
        ("/dev/shm/psm_1234", "--shm-size"),
    ),
    "disk": (
        server_log("OSError: [Errno 28] No space left on device: '/root/.cache/vllm/x'"),
        (".cache/vllm", "make room"),
    ),
    "port": (
        server_log("OSError: [Errno 98] Address already in use"),
        ("Address already in use", "generation.base_port"),
    ),
    "open files": (
        engine_log("OSError: [Errno 24] Too many open files"),
        ("Too many open files", "ulimit -n"),
    ),
    "processes": (
        engine_log("RuntimeError: can't start new thread"),
        ("can't start new thread", "ulimit -u"),
    ),
    "architecture": (
        server_log(*validation("Model architectures ['NoSuchModel'] are not supported for now.")),
        ("NoSuchModel", "generation.backend=transformers"),
    ),
    "kind of model": (
        server_log(
            *validation("The checkpoint has model type `nosuch` but does not recognize this architecture")
        ),
        ("`nosuch`", "another model"),
    ),
    "head size": (
        engine_log("ValueError: Head size 16 is not supported by CPU attention."),
        ("Head size 16", "generation.backend=transformers"),
    ),
    "dtype": (
        engine_log("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0."),
        ("Bfloat16", "generation.dtype"),
    ),
    "flag": (
        "$ vllm\nusage: entry.py [-h]\n"
        + "  [--x]\n" * 280
        + "entry.py: error: unrecognized arguments: --no-such\n",
        ("unrecognized arguments: --no-such", "correct it in generation.server_args"),
    ),
    "value of a flag": (
        "$ vllm\nentry.py: error: argument --max-num-seqs: invalid int value: 'many'\n",
        ("'many'", "generation.server_args"),
    ),
    "quantization": (
        server_log(*validation("Unknown quantization method: nosuch.")),
        ("nosuch", "without quantization"),
    ),
    "weights cut": (
        engine_log(
            "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete"
        ),
        ("deserializing header", "download the model again"),
    ),
    "no weights": (
        engine_log("RuntimeError: Cannot find any model weights with `/models/noweights`"),
        ("/models/noweights", "holds no weights"),
    ),
    "tensor parallel": (
        server_log(
            "ValueError: Total number of attention heads (4) must be divisible by tensor parallel size (3)."
        ),
        ("(3)", "generation.tensor_parallel"),
    ),
    "no such model": (
        server_log("OSError: nobody/nothing is not a local folder and is not a valid model identifier"),
        ("nobody/nothing", "a Hub name"),
    ),
    "code of the model": (
        server_log(*validation("The repository contains custom code; pass `trust_remote_code=True`")),
        ("custom code", "model.trust_remote_code=true"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_cause_is_quoted_with_what_helps(name, tmp_path):
    log, (cause, remedy) = FAULTS[name]
    path = tmp_path / "vllm-8000.log"
    path.write_text(log)
    told = quote_log(path)
    assert cause in told
    assert remedy in told
    number = int(str(re.findall(r"\(line (\d+) of ", told)[0]))
    assert cause.split()[0] in " ".join(log.splitlines()[number - 1 : number + 1])
    assert "Engine core initialization failed" not in told
    assert "\n" not in told
    assert len(told) < 750


def test_the_last_lines_would_not_have_told_it(tmp_path):
    path = tmp_path / "vllm-8000.log"
    path.write_text(FAULTS["KV cache"][0])
    assert "available KV cache memory" not in log_tail(path, 20)


def test_of_a_chain_the_known_error_is_quoted():
    known, other = "OSError: [Errno 24] Too many open files", "RuntimeError: the loader failed"
    link = "The above exception was the direct cause of the following exception:"
    trace = "Traceback (most recent call last):"
    lines = [trace, *FRAMES, known, "", link, "", trace, *FRAMES, other]
    reason = find_reason("\n".join(lines))
    assert reason is not None
    assert (reason.text, reason.line) == (known, 1 + len(FRAMES) + 1)
    # neither is known: what was raised to be read is the last one
    lines[lines.index(known)] = "KeyError: 'rope'"
    reason = find_reason("\n".join(lines))
    assert reason is not None
    assert (reason.text, reason.remedy) == (other, None)


def test_an_engine_that_was_killed_is_said_to_be():
    log = "$ vllm\n" + "\n".join(
        ["Traceback (most recent call last):", *FRAMES, f"{WAITING[:-2]}{{'EngineCore': -9}}"]
    )
    reason = find_reason(log)
    assert reason is not None
    assert "host memory ran out" in str(reason.remedy)


def test_a_process_that_was_killed_cannot_say_so_itself(tmp_path):
    path = tmp_path / "train.log"
    path.write_text("$ train.py\n" + server_log("KeyError: 'of a recovered request'"))
    assert "host memory ran out" in quote_end(path, 137)
    assert "recovered" not in quote_end(path, 137)


def test_a_worker_that_the_system_ended_for_a_fault():
    dump = "ERROR 12-01 00:31:54 [core.py:1435] "
    trace = [f"(EngineCore pid=7) {dump}{line}" for line in ["Traceback (most recent call last):", *FRAMES]]
    log = [
        "$ python -m vllm",
        'INFO:     127.0.0.1:33652 - "GET /v1/models HTTP/1.1" 200 OK',
        "Fatal Python error: Illegal instruction",
        "",
        "Thread 0x00007f3425ed26c0 (most recent call first):",
        '  File "/lib/multiprocessing/connection.py", line 395 in _recv',
        f"(EngineCore pid=7) {dump}Worker proc VllmWorker-0 died unexpectedly (exit code: None), shutting",
        f"(EngineCore pid=7) {dump}EngineCore encountered a fatal error.",
        *trace,
        f"(EngineCore pid=7) {dump}RuntimeError: cancelled",
    ]
    reason = find_reason("\n".join(log))
    assert reason is not None
    assert (reason.text, reason.line) == ("Fatal Python error: Illegal instruction", 3)
    assert "give generation.dtype=float32" in str(reason.remedy)


def test_an_error_of_an_earlier_start_is_not_quoted(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(FAULTS["KV cache"][0] + "$ python -m vllm\nINFO 11-29 21:50:00 [x.py:1] loading\n")
    assert find_reason(path.read_text()) is None
    assert quote_log(path).startswith(f"\nlast lines of {path}:\n")


def test_what_is_ignored_at_exit_is_no_reason():
    trace = "Traceback (most recent call last):"
    log = [
        trace,
        *FRAMES,
        "OSError: [Errno 24] Too many open files",
        "Exception ignored in: <function X.__del__>",
    ]
    log += [trace, *FRAMES, "TypeError: 'NoneType' object is not callable"]
    reason = find_reason("\n".join(log))
    assert reason is not None
    assert reason.text.endswith("Too many open files")


BAR = "\r".join(f"training:  {n}%|##    | {n}/100 [00:0{n % 10}<01:00]" for n in range(1, 100))


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["error: data.max_length=8 holds no row: raise it"], "data.max_length=8 holds no row"),
        (["error (process 3 on node-2): the rows do not fill a step"], "the rows do not fill a step"),
        (
            [
                "[rank1]: Traceback (most recent call last):",
                *(f"[rank1]: {frame}" for frame in FRAMES),
                "[rank1]: ZeroDivisionError: division by zero",
                "E1129 21:40:00.000000 7 torch/distributed/elastic/api.py:882] failed (exitcode: 1)",
                "Traceback (most recent call last):",
                *FRAMES,
                "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
                "train.py FAILED",
            ],
            "division by zero",
        ),
    ],
    ids=["our own sentence", "of another process", "torchrun"],
)
def test_a_training_log_is_read_below_its_bars(lines, cause, tmp_path):
    path = tmp_path / "train.log"
    path.write_text("\n".join(["$ train.py", BAR, *lines, BAR, BAR]) + "\n")
    assert cause in quote_log(path)
    assert "training:" not in quote_log(path)


def test_a_bar_is_one_line_of_a_log_without_a_reason(tmp_path):
    path = tmp_path / "train.log"
    path.write_text("$ train.py\nstep 7: loss 1.5\n" + BAR + "\n")
    assert log_tail(path).splitlines() == ["$ train.py", "step 7: loss 1.5", BAR.rpartition("\r")[2]]
    assert (
        log_tail(tmp_path / "none.log")
        == f"({tmp_path / 'none.log'} cannot be read: No such file or directory)"
    )


@pytest.mark.parametrize("words", [words for words, _ in REMEDIES])
def test_every_remedy_names_settings_of_every_stage_with_servers(words):
    (remedy,) = (remedy for known, remedy in REMEDIES if known == words)
    named = re.findall(r"\b((?:generation|model)\.\w+|max_\w+_length)\b", remedy)
    assert all(name in rows() for name in named)
    with_servers = [stage for stage in STAGES.values() if stage.reads("generation.backend")]
    assert len(with_servers) == 5
    assert all(stage.reads(name) for stage in with_servers for name in named)


def test_an_ordinary_message_has_no_remedy():
    assert remedy_of("ZeroDivisionError: division by zero") is None


def test_a_folder_instead_of_a_log(tmp_path: Path):
    assert "cannot be read" in log_tail(tmp_path)
