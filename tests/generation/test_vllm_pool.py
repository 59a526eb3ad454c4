"""The pool against real vLLM servers; a stand-in only where a real server cannot be brought to fail so."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import torch
from helpers.generation_server import Server
from helpers.generation_tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM

from rlt.errors import GenerationError, ServerLost
from rlt.generation.checkpoint_sync import CheckpointSync
from rlt.generation.log_reason import log_tail
from rlt.generation.silence import tokens_written
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import VLLMServer
from rlt.generation.weights import model_weights
from rlt.records import Completion

PROMPTS = [[5, 6, 7], [9] * 12, [200, 3], [17, 18, 19, 20, 21], [1], [30, 31] * 8]
SEEDS = [1, 2, 3, 4, 5, 6]


@pytest.fixture
def model(tiny_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_dir, dtype=torch.float32)


@pytest.fixture
def pool(server: Server, model: Any, tmp_path: Path) -> Iterator[VLLMPool]:
    """A pool of the one real server, which holds the weights of `model` again."""
    pool = VLLMPool([server.address], timeout=1000, log_paths=[server.log_path])
    CheckpointSync(pool, tmp_path / "sync", timeout=1000).push(model_weights(model))
    yield pool
    pool.close()


def exact_logprobs(model: Any, prompt: list[int], completion: Completion, temperature: float) -> torch.Tensor:
    ids = torch.tensor([prompt + list(completion.token_ids)])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1].double() / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]


@pytest.mark.vllm
@pytest.mark.slow
def test_ids_and_logprobs_are_those_of_the_model(pool: VLLMPool, model: Any) -> None:
    pool.check(str(pool_model(pool)), min_context=512)
    groups = pool.generate(PROMPTS, 3, Sampling(0.7, 20, ()), SEEDS)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        assert len(group) == 3
        assert len({completion.token_ids for completion in group}) == 3
        for completion in group:
            exact = exact_logprobs(model, prompt, completion, 0.7)
            assert torch.allclose(torch.tensor(completion.logprobs).double(), exact, atol=1e-4)
            assert completion.finish_reason == "length"


def pool_model(pool: VLLMPool) -> str:
    return pool.servers[0].get("/v1/models", timeout=100)["data"][0]["id"]


@pytest.mark.vllm
@pytest.mark.slow
def test_greedy_ids_equal_the_transformers_back_end(pool: VLLMPool, model: Any) -> None:
    sampling = Sampling(0.0, 20, (), repetition_penalty=1.3)
    ours = TransformersGenerator(lambda: nullcontext(model), 0, 4).generate(PROMPTS, 2, sampling, SEEDS)
    theirs = pool.generate(PROMPTS, 2, sampling, SEEDS)
    assert [[c.token_ids for c in g] for g in theirs] == [[c.token_ids for c in g] for g in ours]
    for a, b in zip(chain(*ours), chain(*theirs), strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.vllm
@pytest.mark.slow
def test_seeds_reproduce_whatever_runs_beside(pool: VLLMPool) -> None:
    sampling = Sampling(0.7, 20, ())
    together = pool.generate(PROMPTS * 8, 4, sampling, SEEDS * 8)
    assert together[: len(PROMPTS)] * 8 == together
    alone = [pool.generate([p], 4, sampling, [s])[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
    assert alone == together[: len(PROMPTS)]
    # Neighbouring seeds share no sample, although vLLM counts them up within a request.
    neighbours = pool.generate([PROMPTS[0]] * 2, 4, sampling, [1, 2])
    assert not {c.token_ids for c in neighbours[0]} & {c.token_ids for c in neighbours[1]}


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.7, 0.0])
def test_groups_that_come_row_by_row_are_the_same(pool: VLLMPool, temperature: float) -> None:
    sampling = Sampling(temperature, 20, ())
    rows = list(chain(*pool.generate(PROMPTS, 3, sampling, SEEDS)))
    streamed = dict(pool.stream_groups(PROMPTS, 3, sampling, SEEDS))
    assert [streamed[row] for row in range(18)] == rows
    known = {0, 4, 5, 9, 10, 11}
    rest = dict(pool.stream_groups(PROMPTS, 3, sampling, SEEDS, known=known))
    assert rest == {row: completion for row, completion in streamed.items() if row not in known}


@pytest.mark.vllm
@pytest.mark.slow
def test_a_stream_gives_the_same_samples_without_log_probabilities(pool: VLLMPool) -> None:
    sampling = Sampling(0.7, 20, ())
    groups = pool.generate(PROMPTS, 1, sampling, SEEDS)
    streamed = dict(pool.stream(PROMPTS, sampling, SEEDS))
    assert streamed.keys() == set(range(len(PROMPTS)))
    for i, (completion,) in enumerate(groups):
        assert streamed[i] == Completion(completion.token_ids, (), completion.finish_reason)


@pytest.mark.vllm
@pytest.mark.slow
def test_stop_ids_and_strings(pool: VLLMPool) -> None:
    tokenizer = tiny_tokenizer()
    (free,) = pool.generate([PROMPTS[0]], 2, Sampling(1.0, 80, ()), [3])
    stop = free[0].token_ids[30]
    end = free[0].token_ids.index(stop) + 1
    (stopped,) = pool.generate([PROMPTS[0]], 2, Sampling(1.0, 80, (stop,)), [3])
    assert (stopped[0].token_ids, stopped[0].finish_reason) == (free[0].token_ids[:end], "stop")
    text = tokenizer.decode(free[0].token_ids[30:31])
    assert text != "\ufffd"
    (stopped,) = pool.generate([PROMPTS[0]], 2, Sampling(1.0, 80, (), stop_strings=(text,)), [3])
    assert stopped[0].finish_reason == "stop"
    assert text in tokenizer.decode(stopped[0].token_ids)
    assert text not in tokenizer.decode(stopped[0].token_ids[:-1])
    # The end-of-sequence id in the model's folder does not stop: only the listed ids do.
    (sampled,) = pool.generate([PROMPTS[1]], 16, Sampling(2.0, 200, ()), [3])
    assert any(tokenizer.eos_token_id in c.token_ids[:-1] for c in sampled)
    assert {len(c.token_ids) for c in sampled} == {200}


@pytest.mark.vllm
@pytest.mark.slow
def test_refusals_are_the_servers_words(pool: VLLMPool, server: Server, tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match=rf"{server.address} .*HTTP 400.*max_model_len=512"):
        pool.generate([[1, 2]], 1, Sampling(1.0, 9999, ()), [0])
    with pytest.raises(GenerationError, match=r"serves .* instead of '/other/model'"):
        pool.check("/other/model")
    with pytest.raises(GenerationError, match=r"holds 512 tokens where .* 1000"):
        pool.check(min_context=1000)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_real_server_counts_its_tokens_and_is_missed_when_its_engine_stops(server: Server) -> None:
    client = VLLMServer(server.address)
    before = tokens_written(client, 60)
    pool = VLLMPool([server.address], timeout=1000, log_paths=[server.log_path])
    pool.generate([[5, 6, 7]], 4, Sampling(0.7, 20, ()), [0])
    after = tokens_written(client, 60)
    assert before is not None
    assert after is not None
    assert after - before >= 4 * 20 + 3
    # The engine stands still, and the web server in front of it answers all the same.
    (engine,) = [p for p in psutil.Process(server.process.pid).children() if "EngineCore" in p.name()]
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        client.get("/health", timeout=1000)
        pool = VLLMPool([server.address], timeout=3, log_paths=[server.log_path])
        with pytest.raises(GenerationError, match="did not answer for 3 s"):
            pool.generate([[5, 6, 7]], 4, Sampling(0.7, 20, ()), [0])
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    VLLMPool([server.address], timeout=1000).check(logprobs=False)


@pytest.mark.long
@pytest.mark.vllm
@pytest.mark.slow
def test_two_servers_share_the_prompts_and_one_is_killed(
    server: Server, second_server: Server, model: Any, tmp_path: Path
) -> None:
    servers = [server, second_server]
    pool = VLLMPool([s.address for s in servers], timeout=1000, log_paths=[s.log_path for s in servers])
    pool.check()
    CheckpointSync(pool, tmp_path / "sync", timeout=1000).push(model_weights(model))
    before = [num_requests(s) for s in servers]
    sampling = Sampling(0.7, 20, ())
    groups = pool.generate(PROMPTS * 4, 2, sampling, SEEDS * 4)
    assert groups[: len(PROMPTS)] * 4 == groups
    served = [num_requests(s) - b for s, b in zip(servers, before, strict=True)]
    assert sum(served) == 24
    assert min(served) > 0  # how many each takes depends on how busy the machine is

    def kill_in_flight() -> None:
        while num_running(second_server) == 0:
            time.sleep(0.01)
        os.killpg(second_server.process.pid, signal.SIGKILL)

    threading.Thread(target=kill_in_flight, daemon=True).start()
    with pytest.raises(GenerationError) as raised:
        pool.generate(PROMPTS * 4, 4, Sampling(0.7, 400, ()), SEEDS * 4)
    assert second_server.address in str(raised.value)
    assert log_tail(second_server.log_path).splitlines()[-1] in str(raised.value)
    # Dead already at the start of a request: refused, not waited for.
    with pytest.raises(GenerationError, match=r"Connection refused"):
        VLLMPool([second_server.address], timeout=1000).generate([[1]], 1, sampling, [0])


def num_requests(server: Server) -> int:
    return server.log_path.read_text().count("POST /v1/completions")


def num_running(server: Server) -> int:
    told = requests.get(f"{server.address}/metrics", timeout=1000).text
    (count,) = re.findall(r"^vllm:num_requests_running\S* ([0-9.]+)$", told, re.MULTILINE)
    return int(float(count))


@contextmanager
def stand_in(answer: dict[str, Any] | None, status: int = 200) -> Iterator[str]:
    """Yield the address of a server that gives one answer to everything, or none for a long time."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if answer is None:
                released.wait()
                return
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *args: Any) -> None:
            pass

    released = threading.Event()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        released.set()
        httpd.shutdown()
        httpd.server_close()


def test_silence_ends_with_the_timeout_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(
        '\x1b[36m(EngineCore)\x1b[0m ERROR out of memory\n\nINFO: "POST /v1/completions HTTP/1.1" 200 OK\n'
    )
    with stand_in(None) as address:
        pool = VLLMPool([address], timeout=0.5, log_paths=[log])
        with pytest.raises(GenerationError) as raised:
            pool.generate([[1, 2, 3]], 4, Sampling(0.7, 8, ()), [0])
    message = str(raised.value)
    assert f"{address} did not answer for 0.5 s (generation.request_timeout) with 1 requests" in message
    assert message.endswith("vllm.log:\n(EngineCore) ERROR out of memory")


def answer_with(logprobs: list[float | None], finish_reason: str = "stop") -> dict[str, Any]:
    choice = {
        "index": 0,
        "token_ids": [4, 5],
        "prompt_token_ids": [1],
        "logprobs": {"token_logprobs": logprobs},
        "finish_reason": finish_reason,
    }
    return {"choices": [choice]}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answer_with([-1.0, float("nan")]), r"log-probability nan at token 1 of 2"),
        (answer_with([None, -1.0]), r"log-probability None at token 0 of 2"),
        (answer_with([-1.0]), r"returned 1 log-probabilities for 2 tokens"),
        (answer_with([-1.0, -1.0], "abort"), r"finish_reason 'abort'"),
        ({"choices": []}, r"returned 0 completions for n 1"),
    ],
)
def test_unusable_answers_are_refused(answer: dict[str, Any], words: str) -> None:
    with stand_in(answer) as address, pytest.raises(GenerationError, match=words):
        VLLMPool([address], timeout=100).generate([[1]], 1, Sampling(0.7, 8, ()), [0])


def test_other_prompt_ids_are_refused() -> None:
    with stand_in(answer_with([-1.0, -1.0])) as address:
        pool = VLLMPool([address], timeout=100)
        assert pool.generate([[1]], 1, Sampling(0.7, 8, ()), [0]) == [
            [Completion((4, 5), (-1.0, -1.0), "stop")]
        ]
        with pytest.raises(GenerationError, match="other prompt ids"):
            pool.generate([[2]], 1, Sampling(0.7, 8, ()), [0])


def test_addresses_are_checked() -> None:
    with pytest.raises(GenerationError, match=r"generation\.servers is empty"):
        VLLMPool([], timeout=100)
    with pytest.raises(GenerationError, match="has no scheme"):
        VLLMPool(["127.0.0.1:8000"], timeout=100)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(GenerationError, match=rf"{address} broke off GET /health .* Connection refused"):
            VLLMPool([address], timeout=100).check()


EARLY, LATE = "http://127.0.0.1:9", "http://127.0.0.1:19"
"""Where nothing listens: these tests ask no server, they look at whom the pool chooses."""


def test_each_server_is_asked_from_the_moment_it_is_ready() -> None:
    pool = VLLMPool([EARLY, LATE], timeout=600, requests_per_server=2)
    is_late_ready, may_end = threading.Event(), threading.Event()
    asked: list[str] = []

    def check(server: VLLMServer) -> None:
        if server.address == LATE and not is_late_ready.is_set():
            raise ServerLost("it still loads")

    def call(server: VLLMServer) -> str:
        asked.append(server.address)
        may_end.wait(600)
        return server.address

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 600
        while len(asked) < count and time.monotonic() < deadline:
            time.sleep(0.01)

    pool.join_when_ready(check, timeout=600)
    found: list[str] = []
    tasks = [(f"task {i}", lambda: pool.on_idlest(call)) for i in range(5)]
    thread = threading.Thread(target=lambda: found.extend(pool.run_watched(tasks)))
    thread.start()
    wait_for(2)
    time.sleep(0.5)
    assert asked == [EARLY] * 2  # the share of the late one is left for it
    is_late_ready.set()
    wait_for(4)
    assert sorted(asked) == sorted([EARLY, LATE] * 2)
    may_end.set()
    thread.join(600)
    assert len(found) == 5


def test_a_server_that_will_not_do_ends_the_wait_or_the_work() -> None:
    def check(server: VLLMServer) -> None:
        if server.address == LATE:
            raise GenerationError("serves another model")

    def lost(server: VLLMServer) -> None:
        raise ServerLost("it never came")

    with pytest.raises(ServerLost, match="never came"):
        VLLMPool([EARLY], timeout=600).join_when_ready(lost, timeout=0)
    pool = VLLMPool([EARLY, LATE], timeout=2)
    may_end = threading.Event()

    def work() -> None:
        pool.join_when_ready(check, timeout=600)
        pool.run_watched([("a task", lambda: pool.on_idlest(lambda _: may_end.wait(600)))])

    with pytest.raises(GenerationError, match="serves another model"):  # at once, or while work waits
        work()
    may_end.set()
