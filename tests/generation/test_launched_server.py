"""A server as the launcher starts it, on a CPU: what vLLM's defaults get wrong there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import torch
from generation_tiny import save_tiny, tiny_model

from rlt.config.compose import compose
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import API_KEY_VARIABLE
from rlt.generation.weight_sync import CheckpointSync
from rlt.generation.weights import model_weights
from rlt.launch.server import running_servers

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
SAMPLING = Sampling(temperature=0.7, max_tokens=12, stop_token_ids=())


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMPool]:
    """A pool of one launched server with tied embeddings, seed 0, that demands a key."""
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("launched")
    words = [
        "run_cfg=teacher_rl",
        f"model_name_or_path={save_tiny(directory / 'model', seed=0, tied=True)}",
        "student_model=none",
        f"output_dir={directory / 'run'}",
        "max_prompt_length=400",
        "max_completion_length=100",
        "generation.dtype=float32",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(API_KEY_VARIABLE, "a key")
        with running_servers(compose(words)) as servers:
            yield VLLMPool([servers[0].plan.address], timeout=120, log_paths=[servers[0].plan.log_path])


def test_the_key_of_the_environment_is_demanded_and_sent(pool: VLLMPool):
    address = pool.servers[0].address
    assert requests.get(f"{address}/v1/models", timeout=10).status_code == 401
    pool.check()


def largest_drift(pool: VLLMPool, model: torch.nn.Module) -> float:
    """Return the largest |model - sampled| log-probability over a few samples, in float64."""
    prompts = [list(range(5, 25)), list(range(40, 50))]
    largest = 0.0
    reference = model.double()
    for prompt, completions in zip(prompts, pool.generate(prompts, 4, SAMPLING, [1, 2]), strict=True):
        for completion in completions:
            ids = torch.tensor([[*prompt, *completion.token_ids]])
            with torch.no_grad():
                logprobs = torch.log_softmax(reference(ids).logits[0] / 0.7, -1)
            at = range(len(prompt) - 1, ids.shape[1] - 1)
            ours = torch.stack([logprobs[i, ids[0, i + 1]] for i in at])
            largest = max(largest, (ours - torch.tensor(completion.logprobs)).abs().max().item())
    return largest


def test_a_push_renews_a_tied_head(pool: VLLMPool, tmp_path: Path):
    """vLLM's own reload leaves the packed LM head of a tied model on the weights it started with."""
    model = tiny_model(1, tied=True)
    CheckpointSync(pool, tmp_path, timeout=60).push(model_weights(model))
    assert largest_drift(pool, model) < 1e-4
    assert largest_drift(pool, tiny_model(0, tied=True)) > 0.1


def test_many_long_seeded_prompts_at_once(pool: VLLMPool):
    """With chunked prefill, a seeded prompt that is prefilled in two parts kills the CPU engine."""
    prompts = [[(7 * i + j) % 250 for j in range(380)] for i in range(60)]
    answers = pool.generate(prompts, 2, SAMPLING, list(range(60)))
    assert [len(a) for a in answers] == [2] * 60
    assert pool.generate(prompts[:3], 2, SAMPLING, [0, 1, 2]) == answers[:3]
