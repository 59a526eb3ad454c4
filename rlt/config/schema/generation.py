"""The engine that samples, and its servers."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.setting import setting

PLAIN_SAMPLING = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Settings of `generation` under which only the temperature shapes the samples."""


@dataclass
class GenerationSettings:
    """The engine that writes completions. Temperature and lengths are root keys."""

    backend: str = setting("vllm", "engine", choices=("vllm", "transformers"))
    top_p: float = setting(1.0, "nucleus sampling; 1 is off", gt=0, le=1)
    top_k: int = setting(0, "sample among the k likeliest tokens; 0 is off", ge=0)
    min_p: float = setting(0.0, "drop tokens below this share of the likeliest one; 0 is off", ge=0, lt=1)
    repetition_penalty: float = setting(1.0, "1 is off", gt=0)
    stop_at_tag: bool = setting(False, "end a completion at the closing explanation tag")
    servers: list[str] = setting(
        [], "base addresses of running vLLM servers, e.g. [http://127.0.0.1:8000]; launch.sh fills this in"
    )
    api: str = setting(
        "vllm",
        "evaluate: what generation.servers speak; openai sends and reads text, and asks any server of "
        "OpenAI's completions API",
        choices=("vllm", "openai"),
    )
    api_model: str | None = setting(
        None,
        "openai: the model to ask, by its name in the server's list; null: the only one in it",
    )
    retry_seconds: float = setting(
        600.0,
        "openai: seconds that one request may wait, in all, for a server that is busy or broken",
        gt=0,
    )
    overlap: bool = setting(
        True,
        "RL with vLLM: let student, teacher and reference read completions while others are being written; "
        "off, they wait for the last one; the numbers are the same",
    )
    max_staleness: int = setting(
        0,
        "RL with vLLM: 1 lets servers write the completions of the next step during the update, with weights "
        "that are one update older than those that learn from them; 0: every step waits for its own",
        ge=0,
        le=1,
    )
    weight_sync: str = setting(
        "auto",
        "how weights reach the servers: nccl broadcast, or a safetensors checkpoint they reload; "
        "auto is nccl on GPUs and checkpoint elsewhere",
        choices=("auto", "nccl", "checkpoint"),
    )
    sync_dir: str | None = setting(
        None, "folder for the checkpoint sync, visible to trainer and servers; null: under output_dir"
    )
    request_timeout: float = setting(
        1800.0,
        "seconds that a server may be silent with requests in flight: no answer, and no further token; no "
        "limit on a generation that makes progress. openai:  seconds for one answer, asked again then",
        gt=0,
    )
    sync_timeout: float = setting(600.0, "seconds that one weight sync may take, with all its requests", gt=0)
    max_restarts: int = setting(
        1,
        "RL: times that servers which have ended are started again by the launcher; the trainer waits for "
        "them, pushes its weights and repeats what was lost",
        ge=0,
    )
    startup_timeout: float = setting(900.0, "seconds a server may take to answer its first token", gt=0)
    silence_timeout: float = setting(
        300.0, "seconds without an answer of a server's /health after which launch.sh ends it; 0: never", ge=0
    )
    drift_limit: float | None = setting(
        None,
        "warn when the mean |policy - sampled| log-probability of a step passes this, and stop when it does "
        "before the first step and a plain load of the weights shows a side wrong; null: 0.001 where "
        "everything is float32, else 0.05 (in bfloat16 engine and trainer never agree)",
        gt=0,
    )
    tensor_parallel: int = setting(1, "GPUs per vLLM server", gt=0)
    gpu_memory_utilization: float = setting(0.9, "share of a GPU that a server may take", gt=0, le=1)
    dtype: str = setting("bfloat16", "dtype of the server's weights", choices=("bfloat16", "float32"))
    host: str = setting("127.0.0.1", "address that servers started by launch.sh listen on")
    api_key_file: str | None = setting(
        None,
        "file (mode 600) with the key that servers demand, those we start and those we ask; null: the "
        "environment variable VLLM_API_KEY, and for servers that launch.sh starts a new key for each run",
    )
    allow_open_servers: bool = setting(
        False, "servers without a key, beyond this machine too: anyone who reaches one can run code there"
    )
    base_port: int = setting(0, "first port of the servers; 0 picks free ones", ge=0, le=65535)
    server_args: list[str] = setting([], "further arguments for the vLLM command line")
