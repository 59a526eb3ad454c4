"""A server as the launcher starts it, on a CPU: what vLLM's defaults get wrong there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import generation_routes
import pytest
import requests
import torch
from generation_routes import PATH, TellRoutes
from helpers.generation_tiny import save_tiny, tiny_model

from rlt.config.compose import compose
from rlt.config.server_key import VARIABLE
from rlt.errors import GenerationError
from rlt.generation.checkpoint_sync import CheckpointSync
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.weights import model_weights
from rlt.launch.descendants import living
from rlt.launch.server import running_servers

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
KEY = "a-key-of-this-test"
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
        f"generation.server_args=[--middleware,generation_routes.{TellRoutes.__name__}]",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        patch.setenv("PYTHONPATH", str(Path(generation_routes.__file__).parent), prepend=os.pathsep)
        with running_servers(compose(words)) as (server,):
            assert server.poll() is None
            assert server.address.startswith("http://127.0.0.1:")
            assert len(living(server.child.mark)) >= 2  # the API process and its engine
            yield VLLMPool([server.plan.address], timeout=1000, log_paths=[server.plan.log_path])
        assert server.poll() is not None
        assert living(server.child.mark) == []
        assert (directory / "run" / "logs" / f"vllm-{server.address.rpartition(':')[2]}.log").is_file()


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def test_no_path_but_health_answers_without_the_key(pool: VLLMPool):
    address = pool.servers[0].address
    pool.check()
    routes = {path for path, _ in pool.servers[0].get(PATH, timeout=100)}
    assert {"/health", "/v1/completions", "/collective_rpc", "/server_info", "/openapi.json"} <= routes
    assert len(routes) > 30
    answers = {}
    with requests.Session() as session:
        session.trust_env = False
        for path in [*routes, "/", "/no-such-path", "/health/", "//health", "/%68ealth/../version"]:
            for method in METHODS:
                for headers in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"}):
                    answer = session.request(
                        method, address + path, headers=headers, timeout=100, allow_redirects=False
                    )
                    answers.setdefault(answer.status_code == 401, set()).add((path, method))
    assert {path for path, _ in answers.pop(False)} == {"/health"}
    assert requests.get(f"{address}/health", timeout=100).status_code == 200
    assert pool.servers[0].demands_key(10)
    log = pool.servers[0].log_path
    assert log is not None
    assert KEY not in log.read_text()


def test_a_client_with_a_wrong_key_is_told_what_to_give(pool: VLLMPool):
    stranger = VLLMPool([pool.servers[0].address], timeout=100, key=f"{KEY}-of-another-run")
    with pytest.raises(GenerationError, match=r"demands a key, and another one was sent; give the one that"):
        stranger.check()


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
    CheckpointSync(pool, tmp_path, timeout=1000).push(model_weights(model))
    assert largest_drift(pool, model) < 1e-4
    assert largest_drift(pool, tiny_model(0, tied=True)) > 0.1


def test_many_long_seeded_prompts_at_once(pool: VLLMPool):
    """With chunked prefill, a seeded prompt that is prefilled in two parts kills the CPU engine."""
    prompts = [[(7 * i + j) % 250 for j in range(380)] for i in range(60)]
    answers = pool.generate(prompts, 2, SAMPLING, list(range(60)))
    assert [len(a) for a in answers] == [2] * 60
    assert pool.generate(prompts[:3], 2, SAMPLING, [0, 1, 2]) == answers[:3]
