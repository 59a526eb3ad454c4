"""Random damage to what comes from outside: configuration files, rows, answers of servers.

Whatever happens, it is an error of ours with one sentence and an exit code. A seed that fails stays failing.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_models import fake_model

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.schema import Config
from rlt.config.validate import validate
from rlt.data.load import load_problems
from rlt.data.traces import load_traces
from rlt.errors import RLTError
from rlt.formats.tags import TAG_STYLES
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool

NASTY = [
    *("", " ", "\t", "\n", "\0", "\ufeff", "\u2028", "é", "🙂", "\ud800", "<|begin_of_thought|>", "\\boxed{"),
    *(
        "{",
        "}",
        "[",
        "]",
        "'",
        '"',
        ":",
        ": ",
        ",",
        "#",
        "&a",
        "*a",
        "!!python/object:os.system",
        "${",
        "${seed}",
    ),
    *(
        "null",
        "true",
        "~",
        "-1",
        "0",
        "1e999",
        "nan",
        ".inf",
        "9" * 40,
        "0x10",
        "2024-01-01",
        "- ",
        "? ",
        "|",
        "%",
    ),
]
VALUES = [
    None,
    True,
    -1,
    0,
    2**70,
    1e308,
    math.nan,
    math.inf,
    "",
    "x",
    "🙂",
    [],
    [None],
    {},
    {"a": []},
    [[1]],
    "9",
]


def damaged_text(text: str, draw: random.Random) -> str:
    """Return a text with one to three places changed."""
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(text) + 1)
        until = min(len(text), at + draw.choice([0, 0, 1, 3, 20]))
        text = text[:at] + draw.choice(NASTY) + text[until:]
    return text


def damaged(value: Any, draw: random.Random) -> Any:
    """Return a tree of JSON with something in it replaced, dropped or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        return rest if draw.random() < 0.2 else {**rest, key: damaged(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        middle = draw.choice([[], [value[at]] * 2, [damaged(value[at], draw)]])
        return [*value[:at], *middle, *value[at + 1 :]]
    return draw.choice(VALUES)


@contextmanager
def one_sentence_at_most(what: object) -> Iterator[None]:
    """See that the block succeeds or ends in one sentence."""
    try:
        yield
    except RLTError as error:
        if "\n" in str(error) or not str(error) or not error.exit_code:
            raise AssertionError(f"{what!r} ended in {error!r}") from error
    except Exception as error:
        raise AssertionError(f"{what!r} ended in {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("seed", range(24))
def test_run_files(seed, tmp_path, monkeypatch):
    draw = random.Random(seed)
    fake_model(tmp_path / "model", '{"max_position_embeddings": 32768}')
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "solution": "2", "reasoning_trace": "two"}\n')
    monkeypatch.chdir(tmp_path)
    run_files = sorted((Path(__file__).parents[1] / "cfgs" / "run_cfg").glob("quickstart_t*.yaml"))
    text = damaged_text(draw.choice(run_files).read_text(encoding="utf-8"), draw)
    (tmp_path / "run_cfg").mkdir()
    (tmp_path / "run_cfg" / "mine.yaml").write_bytes(text.encode("utf-8", errors="surrogatepass"))
    words = ["model_name_or_path=model", "student_model=model", "dataset_id_or_path=rows.jsonl"]
    words.append("evaluation.path=null")
    with one_sentence_at_most(text):
        validate(resolve(compose(["run_cfg/mine.yaml", *words])))


ROW = {
    "question": "1+1?",
    "solution": "2",
    "explanation": "One and one are two.",
    "reasoning_trace": "two",
    "answer": "2",
    "system": "Think.",
    "messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}],
    "conversations": [{"from": "user", "value": "1+1?"}, {"from": "assistant", "value": "2"}],
    "score": -0.5,
    "selected": True,
    "sample_index": 0,
}


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_rows(suffix, tmp_path):
    draw = random.Random(suffix)
    path = tmp_path / f"rows.{suffix}"
    for _ in range(150):
        row = {key: ROW[key] for key in ROW if draw.random() < 0.7}
        rows = [ROW, damaged(row, draw)]
        if suffix == "csv":
            text = "question,solution,explanation\n1+1?,2,two\n3,4,5\n"
        else:
            lines = [json.dumps(row) for row in rows]
            text = f"[{','.join(lines)}]" if suffix == "json" else "".join(f"{line}\n" for line in lines)
        if draw.random() < 0.5 or suffix == "csv":
            text = damaged_text(text, draw)
        path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
        for bad_row in ("error", "skip"):
            settings = Config().data
            settings.on_bad_row = bad_row
            with one_sentence_at_most(text):
                load_problems(settings, str(path), TAG_STYLES["bespoke"], need_trace=draw.random() < 0.5)
            with one_sentence_at_most(text):
                load_traces(settings, str(path), TAG_STYLES["bespoke"])


COMPLETION = {
    "choices": [
        {
            "index": 0,
            "token_ids": [4, 5],
            "prompt_token_ids": [0],
            "logprobs": {"token_logprobs": [-1.0, -2.0]},
            "finish_reason": "stop",
        }
    ]
}
ANSWERS: dict[str, Any] = {
    "/v1/completions": COMPLETION,
    "/v1/models": {"data": [{"id": "model", "root": "model", "max_model_len": 512}]},
    "/server_info": {"vllm_config": {"model_config": {"logprobs_mode": "processed_logprobs"}}},
    "/version": {"version": "0.31.0"},
    "/get_world_size": {"world_size": 1},
    "/reset_prefix_cache": {"success": True},
    "/health": None,
}


class Answering(BaseHTTPRequestHandler):
    """Answers with `answers` of its server."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece, or each answer waits 40 ms

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.server.answers[path]  # pyright: ignore[reportAttributeAccessIssue]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_answers_of_servers():
    draw = random.Random(0)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    right = {
        path: (200, b"" if value is None else json.dumps(value).encode()) for path, value in ANSWERS.items()
    }
    pool = VLLMPool([f"http://127.0.0.1:{httpd.server_port}"], timeout=100)
    num_fine = 0
    try:
        for _ in range(120):
            path = draw.choice(list(ANSWERS))
            text = json.dumps(damaged(ANSWERS[path], draw))
            if draw.random() < 0.3:
                text = damaged_text(text, draw)
            status = draw.choice([200] * 9 + [500])
            body = text.encode("utf-8", errors="surrogatepass")
            httpd.answers = {**right, path: (status, body)}  # pyright: ignore[reportAttributeAccessIssue]
            with one_sentence_at_most((path, status, text)):
                pool.check("model", 100)
                pool.versions()
                pool.servers[0].world_size(5)
                pool.servers[0].reset_prefix_cache(0.1)
                (((one,),)) = (pool.generate([[0]], 1, Sampling(0.7, 8, ()), [0]),)
                assert all(type(token) is int for token in one[0].token_ids)
                assert all(math.isfinite(value) for value in one[0].logprobs)
                num_fine += 1
    finally:
        httpd.shutdown()
        httpd.server_close()
    assert 10 < num_fine < 110
