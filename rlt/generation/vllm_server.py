"""One running vLLM server, reached over HTTP. Every failure quotes the reason from the server's log."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from rlt.config.server_key import find_key
from rlt.errors import GenerationError, ServerLost, first_line
from rlt.generation.log_reason import quote_running
from rlt.surroundings.clock import running
from rlt.surroundings.waiting import Wait

LOADING_VARIABLE = "RLT_SERVERS_LOADING"
"""Set in the environment of a training whose servers the launcher has only just started."""
CONNECT_TIMEOUT = 10.0
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Environment variables that name the file of trusted authorities, as for other programs."""
_KEPT_CONNECTIONS = 8192
"""Connections that stay open for further requests; more than are ever in flight."""
_MOST = 0.8
"""The share of a time limit that passes while we run; less of it, and we were suspended meanwhile."""


class VLLMServer:
    """Requests to one address. Safe to call from several threads.

    `key` is what the server demands, by default that of the environment.
    """

    kind = "vLLM server"
    """What messages call it."""

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        log_path: Path | None = None,
    ) -> None:
        self.address = address.rstrip("/")
        if not self.address.startswith(("http://", "https://")):
            raise GenerationError(
                f"the {self.kind}'s address {address!r} has no scheme; write it like http://127.0.0.1:8000"
            )
        self.log_path = log_path
        self._key = key or find_key(None)
        self._session = _new_session(self._key)

    def get(self, path: str, *, timeout: float, missing_ok: bool = False, **params: str) -> Any:
        """Return the decoded answer of a GET request, None for an empty body or an allowed 404."""
        request = f"GET {path}"
        response = self._request(
            "GET", path, request, timeout, retry=True, missing_ok=missing_ok, params=params
        )
        return None if response is None else self._decoded(response, request)

    def text(self, path: str, *, timeout: float) -> str:
        """Return the answer of a GET request as it is, empty for a 404."""
        response = self._request("GET", path, f"GET {path}", timeout, retry=True, missing_ok=True)
        return "" if response is None else response.text

    def post(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        timeout: float,
        what: str = "",
        retry: bool = False,
    ) -> Any:
        """Return the decoded answer of a POST request, None for an empty body.

        `what` says in words what was asked for. `retry` is for requests that may run twice.
        """
        request = f"POST {path}" + (f" ({what})" if what else "")
        response = self._request("POST", path, request, timeout, retry=retry, json=body)
        return None if response is None else self._decoded(response, request)

    def failure(
        self, sentence: str, *, with_log: bool = True, kind: type[GenerationError] = GenerationError
    ) -> GenerationError:
        """Return an error that names this server, with why its engine ended, or the last lines of its log."""
        message = f"the {self.kind} at {self.address} {sentence}"
        if with_log and self.log_path is not None:
            message += quote_running(self.log_path)
        return kind(message)

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Turn what goes wrong in the block, which reads an answer, into an error that names the request.

        An answer of another shape comes from another program at this address, or from another version.
        """
        try:
            yield
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"[:200]
            raise self.failure(
                f"answered {what} in a shape that cannot be read ({reason}); see that a vLLM server of a "
                "tested version runs there"
            ) from error

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def _request(
        self,
        method: str,
        path: str,
        request: str,
        timeout: float,
        *,
        retry: bool,
        missing_ok: bool = False,
        **kwargs: Any,
    ) -> requests.Response | None:
        """Return the answer of a request that the server has fulfilled, None for an allowed 404."""
        start = running()
        # A request that must not run twice gets a new connection: an idle one may just have been closed.
        session = self._session if retry else _new_session(self._key)
        try:
            response = session.request(
                method, self.address + path, timeout=(min(CONNECT_TIMEOUT, timeout), timeout), **kwargs
            )
        except requests.exceptions.ReadTimeout:
            if retry and running() - start < _MOST * timeout:
                # The socket counts the time in which we were suspended, and the server may have been too.
                return self._request(
                    method, path, request, timeout, retry=True, missing_ok=missing_ok, **kwargs
                )
            raise self.failure(f"did not answer {request} within {timeout:g} s") from None
        except requests.exceptions.ConnectTimeout:
            waited = running() - start
            raise self.failure(
                f"accepted no connection within {waited:.0f} s for {request}", kind=ServerLost
            ) from None
        except requests.exceptions.RequestException as error:
            if retry and isinstance(error, requests.exceptions.ConnectionError):
                # The server closes idle connections, now and then just as one is used again.
                return self._request(
                    method, path, request, timeout, retry=False, missing_ok=missing_ok, **kwargs
                )
            waited = running() - start
            raise self.failure(
                f"broke off {request} after {waited:.1f} s: {reason_of(error)}", kind=ServerLost
            ) from None
        if response.status_code == 404 and missing_ok:
            return None
        if response.status_code != 200:
            waited = running() - start
            if response.status_code == 401:
                raise self.failure(f"refused {request}: {self._about_the_key()}", with_log=False)
            sentence = f"answered {request} with HTTP {response.status_code} after {waited:.1f} s: "
            # A refusal explains itself; for an internal error the reason is in the log.
            is_broken = response.status_code >= 500
            kind = ServerLost if is_broken else GenerationError
            raise self.failure(sentence + response.text.strip()[:2000], with_log=is_broken, kind=kind)
        return response

    def _decoded(self, response: requests.Response, request: str) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except requests.exceptions.JSONDecodeError:
            raise self.failure(
                f"answered {request} with something that is not JSON: {response.text[:200]!r}"
            ) from None

    def demands_key(self, timeout: float) -> bool:
        """Return whether a request without a key is refused, at a path that vLLM's own key leaves open."""
        with _new_session(None) as session:
            try:
                return session.get(f"{self.address}/version", timeout=timeout).status_code == 401
            except requests.exceptions.RequestException as error:
                raise self.failure(f"broke off GET /version: {reason_of(error)}") from None

    def _about_the_key(self) -> str:
        sent = "none was sent" if self._key is None else "another one was sent"
        return (
            f"it demands a key, and {sent}; give the one that it was started with as "
            "generation.api_key_file=FILE or in the environment variable VLLM_API_KEY"
        )

    def world_size(self, timeout: float) -> int:
        """Return the number of the server's workers (GPUs)."""
        answer = self.get("/get_world_size", timeout=timeout)
        with self.reading("GET /get_world_size"):
            return int(answer["world_size"])

    def reset_prefix_cache(self, timeout: float) -> None:
        """Make the server forget cached keys and values, which belong to the weights before a sync."""
        wait = Wait(timeout, every=0.2)
        while True:
            answer = self.post("/reset_prefix_cache", timeout=timeout, retry=True)
            # Servers before 0.26 answer with an empty body. A refusal means that a request still runs.
            with self.reading("POST /reset_prefix_cache"):
                if answer is None or answer.get("success", True):
                    return
            if wait.is_over:
                raise self.failure(f"did not reset its prefix cache within {timeout:g} s: requests still run")
            wait.pause()


def _new_session(key: str | None) -> requests.Session:
    session = requests.Session()
    # The servers are neighbours: a proxy from the environment would only get in between.
    session.trust_env = False
    # With trust_env off, requests would not look at these; and it never looks at SSL_CERT_FILE.
    named = (os.environ.get(name, "") for name in CERTIFICATES)
    session.verify = next((path for path in named if os.path.exists(path)), True)
    adapter = HTTPAdapter(pool_maxsize=_KEPT_CONNECTIONS)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    if key:
        session.headers["Authorization"] = f"Bearer {key}"
    return session


def finite_logprobs(server: VLLMServer, values: list[float | None] | None, count: int) -> tuple[float, ...]:
    """Return the log-probabilities, or raise if one is missing or not a number."""
    if values is None or len(values) != count:
        found = "none" if values is None else str(len(values))
        raise server.failure(f"returned {found} log-probabilities for {count} tokens")
    for position, value in enumerate(values):
        if value is None or not math.isfinite(value):
            raise server.failure(
                f"returned log-probability {value} at token {position} of {count}; "
                "its weights or activations have overflowed, or a weight sync went wrong"
            )
    return tuple(float(v) for v in values if v is not None)


def reason_of(error: requests.exceptions.RequestException) -> str:
    """Return the innermost cause in a few words: `Connection refused` and the like."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return getattr(cause, "strerror", None) or str(cause)


def server_log_path(run_directory: Path, port: int) -> Path:
    """Return a server's log file in a run directory: the launcher writes it, the trainer quotes it."""
    return run_directory / "logs" / f"vllm-{port}.log"
