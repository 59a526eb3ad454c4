"""The limit on silence: a server that continues may take any time, one that stands still may not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rlt.errors import GenerationError
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool

LIMIT = 2.0
SAMPLING = Sampling(0.7, 8, ())


@contextmanager
def slow_server(seconds: float, *, counts: bool, stops_after: float = 1e9) -> Iterator[str]:
    """Yield a server's address that answers after some time.

    Its metrics count a token each time they are asked for, unless it `counts` none or has stopped.
    """
    began = time.monotonic()
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        tokens = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            released.wait(seconds)
            choice = {"index": 0, "token_ids": [4], "finish_reason": "stop"}
            choice["logprobs"] = {"token_logprobs": [-1.0]}
            self._answer(json.dumps({"choices": [choice]}))

        def do_GET(self) -> None:
            assert self.path == "/metrics"
            if time.monotonic() - began < stops_after:
                Handler.tokens += 1
            lines = [f'vllm:generation_tokens_total{{engine="0",model_name="a b"}} {Handler.tokens}.0']
            lines += ['vllm:prompt_tokens_total{engine="0"} 7.0', f"python_gc_total {time.monotonic()}"]
            self._answer("\n".join(lines if counts else lines[-1:]))

        def _answer(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        released.set()
        httpd.shutdown()
        httpd.server_close()


def ask(pool: VLLMPool, way: str) -> list[Any]:
    if way == "stream":
        return [completion for _, completion in pool.stream([[1]], SAMPLING, [0])]
    return pool.generate([[1]], 1, SAMPLING, [0])[0]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["generate", "stream"])
def test_a_server_that_goes_on_may_take_longer_than_the_limit(way: str) -> None:
    with slow_server(3 * LIMIT, counts=True) as address:
        (completion,) = ask(VLLMPool([address], timeout=LIMIT), way)
    assert completion.token_ids == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["generate", "stream"])
def test_a_server_that_stands_still_is_an_error(way: str) -> None:
    start = time.monotonic()
    with slow_server(600, counts=True, stops_after=LIMIT) as address:
        with pytest.raises(GenerationError) as raised:
            ask(VLLMPool([address], timeout=LIMIT), way)
        assert time.monotonic() - start > LIMIT
    assert str(raised.value) == (
        f"the vLLM server at {address} did not answer for 2 s (generation.request_timeout) with 1 requests "
        "in flight, and it has written no token in that time"
    )


def test_without_metrics_only_answers_count() -> None:
    with (
        slow_server(600, counts=False) as address,
        pytest.raises(GenerationError, match="its /metrics count no tokens, so answers alone show"),
    ):
        ask(VLLMPool([address], timeout=0.5), "generate")


@pytest.mark.slow
def test_one_server_that_stands_still_is_noticed_while_another_answers() -> None:
    with slow_server(0.05, counts=True) as quick, slow_server(600, counts=True, stops_after=0) as stuck:
        pool = VLLMPool([quick, stuck], timeout=LIMIT, requests_per_server=1)
        with pytest.raises(GenerationError, match=stuck):
            list(pool.stream([[1]] * 2000, SAMPLING, range(2000)))
