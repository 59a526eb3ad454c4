"""A vLLM server's memory: by hand, and vLLM's own defaults."""

import pytest
from helpers.forecast_runs import configured

from rlt.forecast.hardware import GIB
from rlt.forecast.model_size import PUBLISHED
from rlt.forecast.server_memory import ServerMemory, server_memory, vllm_limits
from rlt.surroundings.gpus import GPU, GPUS

QWEN_7B = PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]


def test_sequences_are_whole_ones():
    # 57,344 bytes a token x 32,768 tokens = 1.75 GiB a sequence of Qwen2.5-7B: three in 7 GiB less a byte
    server = ServerMemory(0, 0, 7 * GIB - 1, 57_344 * 32_768, 32_768, max_sequences=256)
    assert server.sequences == 3
    assert ServerMemory(0, 0, -1, 57_344 * 32_768, 32_768, max_sequences=256).sequences == 0


def test_the_pool_is_what_weights_and_work_leave():
    server = server_memory(configured("teacher_rl"), GPUS["h100-80g"], QWEN_7B)
    assert server.weights == 2 * 7_615_616_512
    assert server.kv_bytes == 57_344 * server.sequence
    assert server.weights + server.working + server.pool == pytest.approx(0.9 * 81_559 * 2**20)


def test_tensor_parallel_halves_weights_and_keys():
    config = configured("teacher_rl", "generation.tensor_parallel=2")
    server = server_memory(config, GPUS["h100-80g"], QWEN_7B)
    assert (server.weights, server.kv_bytes) == (7_615_616_512, 28_672 * server.sequence)
    config.generation.tensor_parallel = 8  # of its four key heads each GPU holds at least one
    assert server_memory(config, GPUS["h100-80g"], QWEN_7B).kv_bytes == 57_344 / 4 * server.sequence


@pytest.mark.slow  # vLLM takes its time to be imported
@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("h100-80g", "NVIDIA H100 80GB HBM3"),
        ("a100-80g", "NVIDIA A100-SXM4-80GB"),
        ("b200-180g", "NVIDIA B200"),
    ],
)
def test_defaults_are_vllms(gpu, name, monkeypatch):
    pytest.importorskip("vllm")
    from vllm.engine import arg_utils
    from vllm.usage.usage_lib import UsageContext

    kind: GPU = GPUS[gpu]

    class Platform:
        """The GPU as vLLM would see it."""

        get_device_total_memory = staticmethod(lambda: int(kind.memory))
        get_device_name = staticmethod(lambda: name)
        is_tpu = is_cpu = staticmethod(lambda: False)

    monkeypatch.setattr("vllm.platforms.current_platform", Platform)
    monkeypatch.setattr(arg_utils, "current_platform", Platform)
    tokens, sequences = arg_utils.EngineArgs.get_batch_defaults(1)
    server = UsageContext.OPENAI_API_SERVER
    assert vllm_limits(kind) == (tokens[server], sequences[server])
