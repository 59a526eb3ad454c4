"""Log-probabilities of given tokens from vLLM servers: the frozen student on GPUs of its own.

An engine ignores the temperature of a request where it scores a prompt. Such a server therefore holds a copy
of the student whose LM head is divided by the temperature (rlt/launch/student_server.py writes and serves
it), and the name that the copy is served under contains the temperature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rlt.generation.drift import Drift, engine_drift, rounding_limit
from rlt.generation.server_checks import CONTROL_TIMEOUT
from rlt.generation.vllm_pool import UNLIMITED, VLLMPool
from rlt.generation.vllm_server import VLLMServer, finite_logprobs, server_log_path
from rlt.models.logprobs import Request
from rlt.models.passes import split_runs

Scored = tuple[Tensor, Tensor, Tensor]
"""Log-probabilities of the requested positions (N,), and of their K likeliest tokens (N, K), with the ids."""
BATCHES_PER_SERVER = 2
"""Batches in flight per server and process: one is computed while the next one waits."""
_AT = "@temperature="
_MINUS_INFINITY = -9999.0
"""What vLLM writes for it, which JSON lacks."""


def served_name(model: str, temperature: float) -> str:
    """Return the name under which a copy of a model is served whose LM head is divided by the temperature."""
    return f"{model}{_AT}{temperature!r}"


def served_temperature(name: str) -> float:
    """Return the temperature in a served model's name; 1 for a model under any other name."""
    _, marked, temperature = name.rpartition(_AT)
    try:
        return float(temperature) if marked else 1.0
    except ValueError:
        return 1.0


class ServerLogprobs:
    """A `LogprobModel` behind one or several servers.

    Sends batches of at most `tokens_per_batch` padded tokens, two per server at a time; each process of a run
    asks for its own rows. `timeout` is the number of seconds that a server may be silent with batches in
    flight, `key` what the servers demand, by default that of the environment.
    """

    version = 0
    """It never changes."""

    def __init__(self, addresses: Sequence[str], *, timeout: float, key: str | None = None) -> None:
        self._pool = VLLMPool(addresses, timeout=timeout, key=key, requests_per_server=BATCHES_PER_SERVER)
        self._temperature: float | None = None

    def check(self, temperature: float) -> int | None:
        """Return how many tokens a sequence may have, None where the servers don't say.

        Raises GenerationError unless every server answers and holds its model at this temperature.
        """
        contexts = self._pool.on_all("check", lambda server: check_server(server, temperature))
        self._temperature = temperature
        return min((context for context in contexts if context is not None), default=None)

    def show_health(self) -> None:
        """Log a line for each server."""
        self._pool.show_health()

    def check_doors(self) -> None:
        """Raise GenerationError if a server that other machines reach answers without a key."""
        self._pool.check_doors()

    def logprobs(
        self,
        requests: list[Request],
        *,
        temperature: float,
        tokens_per_batch: int,
        runs: Sequence[int] | None = None,
        agree: Callable[[int], int] = lambda count: count,  # noqa: ARG002 - no pass here is collective
    ) -> list[Tensor]:
        """Return the log-probabilities of each request's positions, float32 on the CPU, in order."""
        found = self.top(requests, 0, temperature=temperature, tokens_per_batch=tokens_per_batch, runs=runs)
        return [values[0] for values in found]

    def top(
        self,
        requests: list[Request],
        count: int,
        *,
        temperature: float,
        tokens_per_batch: int,
        runs: Sequence[int] | None = None,
    ) -> list[Scored]:
        """Return the same with the `count` likeliest tokens of each position, the likeliest first."""
        if temperature != self._temperature:
            self.check(temperature)
        lengths = [_length(request) for request in requests]
        num_batches = BATCHES_PER_SERVER * len(self._pool.servers)
        share = math.ceil(sum(lengths) / num_batches)
        runs = [len(requests)] if runs is None else runs
        batches = split_runs(lengths, runs, min(tokens_per_batch, max(share, 1)))

        def task(batch: list[int]) -> Callable[[], list[Scored]]:
            members = [requests[i] for i in batch]
            return lambda: self._pool.on_idlest(lambda server: _ask(server, members, UNLIMITED, count))

        tasks = [(f"batch {i}", task(batch)) for i, batch in enumerate(batches)]
        empty = torch.empty(0)
        results: list[Scored] = [(empty, empty, empty)] * len(requests)
        for batch, values in zip(batches, self._pool.run_watched(tasks), strict=True):
            for i, value in zip(batch, values, strict=True):
                results[i] = value
        return results

    def compare(
        self, requests: list[Request], expected: list[Tensor], model: str, dtype: str, temperature: float
    ) -> None:
        """Raise GenerationError unless every server gives the expected log-probabilities.

        In float32 the largest difference may be 1e-3; in bfloat16, where no two programs agree, the mean one
        0.05. These are short texts; `compare_end` sees far positions. `model` is the name in the message.
        """
        exact = torch.cat(expected)

        def compare_one(server: VLLMServer) -> None:
            scored = _ask(server, requests, self._pool.timeout)
            difference = (torch.cat([values[0] for values in scored]) - exact).abs()
            measured, limit, what = difference.mean().item(), 0.05, "on average"
            if dtype == "float32":
                measured, limit, what = difference.max().item(), 1e-3, "at most"
            if measured > limit:
                raise server.failure(
                    f"gives log-probabilities that differ from those of {model!r} computed here by "
                    f"{measured:.3g} {what}, where {dtype} allows {limit:g}; restart it with `python -m "
                    f"rlt.launch.student_server {model} --temperature {temperature:g} --dtype {dtype}`",
                    with_log=False,
                )

        self._pool.on_all("comparison", compare_one)

    def compare_end(self, request: Request, expected_N: Tensor, model: str, dtype: str) -> Drift:
        """Return the largest drift of a server in one long text; GenerationError where it is a fault."""
        limit = rounding_limit(dtype)

        def compare_one(server: VLLMServer) -> Drift:
            ((ours_N, _, _),) = _ask(server, [request], self._pool.timeout)
            drift = engine_drift(ours_N, expected_N, torch.ones_like(ours_N))
            if not drift.mean <= limit:
                raise server.failure(
                    f"agrees with {model!r} on short texts, and differs from a plain load of it by "
                    f"{drift.mean:.3g} on average in the log-probabilities of {drift.num_tokens} tokens "
                    f"after {request.positions[0]} (limit {limit:g}), as with rotary frequencies of another "
                    "rope_theta or rope scaling; restart it from this model's own config.json, without "
                    "--hf-overrides",
                    with_log=False,
                )
            return drift

        return max(self._pool.on_all("comparison", compare_one), key=lambda drift: drift.mean)

    def close(self) -> None:
        """Close the connections; the servers run on."""
        self._pool.close()


def check_server(server: VLLMServer, temperature: float) -> int | None:
    """Return a server's context, or raise if it holds no model at this temperature.

    Finds the server's log where student_server.py has put it, if that is this machine.
    """
    answer = server.get("/v1/models", timeout=CONTROL_TIMEOUT)
    with server.reading("GET /v1/models"):
        card = answer["data"][0]
        served, root, context = served_temperature(card["id"]), card.get("root"), card.get("max_model_len")
    if served != temperature:
        raise server.failure(
            f"serves {card['id']!r}, so at temperature {served:g} where {temperature:g} is asked for; start "
            f"it with `python -m rlt.launch.student_server MODEL --temperature {temperature:g}`",
            with_log=False,
        )
    log_path = server_log_path(Path(root or "").parent, urlsplit(server.address).port or 0)
    if server.log_path is None and log_path.is_file():
        server.log_path = log_path
    return context


def _length(request: Request) -> int:
    """Return how many ids are needed: nothing after the last requested token."""
    return max(request.positions, default=0) + 1


def _ask(server: VLLMServer, requests: Sequence[Request], timeout: float, count: int = 0) -> list[Scored]:
    """Return the log-probabilities of a batch from one server."""
    prompts = [[int(t) for t in request.ids[: _length(request)]] for request in requests]
    # The engine refuses to generate nothing. With 0 alternatives it returns the given tokens alone.
    body = {"prompt": prompts, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": count}
    what = f"{len(prompts)} texts of up to {max(map(len, prompts))} tokens to score"
    answer = server.post("/v1/completions", body, timeout=timeout, what=what, retry=True)
    with server.reading(what):
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        if len(choices) != len(requests):
            raise server.failure(f"returned {len(choices)} answers for {what}")
        return [
            _wanted(server, request, choice.get("prompt_logprobs"), len(prompt), count)
            for request, choice, prompt in zip(requests, choices, prompts, strict=True)
        ]


def _wanted(
    server: VLLMServer,
    request: Request,
    scored: list[dict[str, Any] | None] | None,
    length: int,
    count: int,
) -> Scored:
    """Return the values of the requested positions; each entry of `scored` maps token ids to their values."""
    if scored is None or len(scored) != length:
        found = "no" if scored is None else str(len(scored))
        raise server.failure(f"returned {found} scores for a text of {length} tokens")
    values: list[float | None] = []
    top: list[tuple[list[int], list[float]]] = []
    for position in request.positions:
        entry = (scored[position] or {}).get(str(request.ids[position]))
        if entry is None:
            raise server.failure(f"scored another token than the given one at position {position}")
        value = entry["logprob"]
        values.append(-math.inf if value == _MINUS_INFINITY else value)
        top.append(_likeliest(scored[position] or {}, count))
    given_N = torch.tensor(finite_logprobs(server, values, len(values)), dtype=torch.float32)
    if any(len(ids) != count for ids, _ in top):
        raise server.failure(
            f"gave fewer than {count} likeliest tokens of a position; start it with --max-logprobs -1"
        )
    logprobs_NK = torch.tensor([values for _, values in top], dtype=torch.float32)
    return given_N, logprobs_NK, torch.tensor([ids for ids, _ in top], dtype=torch.long)


def _likeliest(entry: dict[str, Any], count: int) -> tuple[list[int], list[float]]:
    """Return the ids and values of a position's likeliest tokens, of which the given one may be none."""
    ranked = sorted(entry, key=lambda token: -entry[token]["logprob"])[:count]
    return [int(token) for token in ranked], [entry[token]["logprob"] for token in ranked]
