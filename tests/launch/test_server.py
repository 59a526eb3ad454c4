"""vLLM servers: what they are started with, and real ones starting, answering, failing and ending."""

from pathlib import Path

import pytest
from helpers.launch_models import write_model

from rlt.config.server_key import VARIABLE
from rlt.errors import ConfigError, GenerationError
from rlt.generation.vllm_guard import GUARD
from rlt.launch.server import (
    ENTRY_POINT,
    plan_servers,
    run_key,
    running_servers,
    server_command,
    server_env,
)


def options(command: list[str]) -> dict[str, str]:
    """Return `--flag value` pairs; a flag without a value maps to the next flag or nothing."""
    pairs = zip(command, [*command[1:], ""], strict=True)
    return {flag: value for flag, value in pairs if flag.startswith("--")}


def test_a_cpu_server_is_started_with_every_flag_that_the_method_needs(vllm_config):
    config = vllm_config(server_args=["--max-num-seqs", "8"])
    given = options(server_command(config, 23456, on_cpu=True))
    assert given["--model"] == config.model_name_or_path
    assert given["--host"] == "127.0.0.1"
    assert given["--port"] == "23456"
    assert given["--dtype"] == "float32"
    assert given["--max-model-len"] == "128"  # 64 + 64
    assert given["--logprobs-mode"] == "processed_logprobs"
    assert given["--max-logprobs"] == "-1"
    assert given["--generation-config"] == "vllm"
    assert given["--seed"] == "42"
    assert given["--max-num-seqs"] == "8"
    assert "--enforce-eager" in given
    assert "--weight-transfer-config" not in given


def test_the_entry_point_exists_and_is_not_deprecated():
    root = Path(pytest.importorskip("vllm").__file__).parents[1]
    file = root.joinpath(*ENTRY_POINT.split(".")).with_suffix(".py")
    assert 'if __name__ == "__main__":' in file.read_text()
    assert "deprecated" not in file.read_text()


def test_a_gpu_server_gets_its_gpus_and_the_nccl_engine(vllm_config):
    config = vllm_config(tensor_parallel=2)
    given = options(server_command(config, 23456, on_cpu=False))
    assert given["--weight-transfer-config"] == '{"backend": "nccl"}'
    assert given["--tensor-parallel-size"] == "2"
    assert given["--gpu-memory-utilization"] == "0.9"
    assert "--enforce-eager" not in given
    env = server_env(config, ("4", "5"), 1)
    assert env["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert env["VLLM_SERVER_DEV_MODE"] == "1"
    assert "VLLM_CPU_KVCACHE_SPACE" not in env


def test_a_cpu_server_leaves_a_core_and_a_set_thread_count_wins(vllm_config, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(9)), raising=False)
    # nine cores: one for the engine's own processes, the other eight for two servers
    assert server_env(vllm_config(), (), 2)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert server_env(vllm_config(), (), 2)["OMP_NUM_THREADS"] == "3"


def test_servers_off_loopback_need_a_key_unless_told(vllm_config, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=r"generation.host=0.0.0.0 can be reached from other machines"):
        plan_servers(vllm_config(host="0.0.0.0"), [()], tmp_path)
    allowed = vllm_config(host="0.0.0.0", allow_open_servers=True, base_port=23456)
    first, second = plan_servers(allowed, [(), ()], tmp_path)
    assert (first.address, second.address) == ("http://127.0.0.1:23456", "http://127.0.0.1:23457")
    assert options(list(first.command))["--host"] == "0.0.0.0"
    assert "--middleware" not in first.command
    given = ["--middleware", "a.module.Outer"]
    keyed = vllm_config(host="0.0.0.0", base_port=23456, server_args=given)
    (guarded,) = plan_servers(keyed, [()], tmp_path, key="the-key-of-a-run")
    assert guarded.command[-2:] == ("--middleware", GUARD)  # starlette's outermost is the last one
    assert guarded.key == "the-key-of-a-run"
    assert "the-key-of-a-run" not in f"{guarded}{guarded!r}{guarded.env}"


def test_every_run_has_a_key_of_its_own_unless_told(vllm_config, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert len(str(run_key(vllm_config()))) == 64
    assert run_key(vllm_config()) != run_key(vllm_config())
    assert run_key(vllm_config(allow_open_servers=True)) is None
    monkeypatch.setenv(VARIABLE, "a-key-that-is-given")
    assert run_key(vllm_config(allow_open_servers=True)) == "a-key-that-is-given"


@pytest.mark.slow
@pytest.mark.vllm
def test_a_server_that_cannot_load_its_model_says_why(vllm_config, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "qwen2", "architectures": ["NoSuchModel"]}')
    config = vllm_config(broken)
    with pytest.raises(GenerationError, match="ended with exit code") as error, running_servers(config):
        pass
    (line,) = str(error.value).splitlines()
    assert str(tmp_path / "run" / "logs") in line
    assert "NoSuchModel" in line or "tokenizer" in line.lower()
    assert "Engine core initialization failed" not in line


@pytest.mark.slow
@pytest.mark.vllm
def test_a_server_that_is_healthy_but_cannot_generate_is_not_ready(vllm_config, tmp_path):
    # With heads of 16 the engine starts, /health says 200, and the first request kills it.
    model = write_model(tmp_path / "small_heads", head_size=16)
    sentence = "head_dim=16.*take generation.backend=transformers"
    with pytest.raises(GenerationError, match=sentence), running_servers(vllm_config(model)):
        pass


@pytest.mark.slow
@pytest.mark.vllm
def test_a_server_that_is_too_slow_is_given_up_at_its_timeout(vllm_config, tiny_model):
    with (
        pytest.raises(GenerationError, match=r"was not healthy within \d+ s \(generation.startup_timeout\)"),
        running_servers(vllm_config(tiny_model, startup_timeout=2.0)),
    ):
        pass
