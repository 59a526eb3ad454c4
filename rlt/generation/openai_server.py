"""One server of any make that speaks OpenAI's completions API, over a network that others share.

Whatever may be better in a moment is waited out, for the one request that met it: too many requests, a
server that is broken or restarts, a connection that ends, an answer that is cut or is no JSON, an error
inside of HTTP 200. What the server will refuse however often it is asked is one sentence with its own words.

urllib3's Retry (under requests) and the client of the package openai repeat status codes and connections
alone; the faults inside of answers would need this loop around theirs, with a second limit. So there is one.
"""

from __future__ import annotations

import email.utils
import logging
import random
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from requests.utils import get_environ_proxies
from typing_extensions import override

from rlt.config.server_key import beyond_this_machine, find_key
from rlt.errors import GenerationError, ServerLost
from rlt.generation.vllm_server import CERTIFICATES, CONNECT_TIMEOUT, VLLMServer, reason_of

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a request is repeated: doubled each time, unless the server says how long."""
MOST_SPOILT = 5
"""Answers to one request that cannot be read, or do not come: a server that always does so is of no use."""
LIST_TIMEOUT = 60.0
"""Seconds that a list of models may take."""
_BUSY = (408, 409, 425, 429)
"""HTTP codes below 500 that may be another one in a moment."""
_NEVER = (501, 505)
"""HTTP codes from 500 on that will not."""
OPTIONAL = ("seed",)
"""Parameters without which an answer is still one of the same distribution."""
_STOPPED = ("stop", "eos_token", "eos", "stop_sequence", "end_turn")
_CUT = ("length", "max_tokens")
_BROKEN_OFF = (None, "error", "abort")
"""finish_reason of servers that did not come to an end, or do not say."""
CONTENT_FILTER, EMPTY = "content_filter", "empty"
"""What a server may send in place of an answer."""


class Refused(GenerationError):
    """The server will not answer a request, however often it is asked."""


class _Passing(Exception):
    """A fault that may be gone in a moment."""

    def __init__(self, what: str, pause: float | None = None, *, is_spoilt: bool = False) -> None:
        super().__init__(what)
        self.pause = pause
        """Seconds to wait, where the server says so."""
        self.is_spoilt = is_spoilt
        """Whether there was an answer, which could not be read."""


@dataclass(frozen=True)
class Answer:
    """What a server has written for one prompt."""

    text: str
    finish_reason: str
    """`stop`, `length`, or in place of an answer CONTENT_FILTER or EMPTY."""
    prompt_tokens: int | None
    """Tokens that the server has read, where it says so."""


class OpenAIServer(VLLMServer):
    """Requests to one address, which may end in `/v1`. Safe to call from several threads.

    `retry_seconds` is how long one request may wait before it is repeated, all its pauses together.
    """

    kind = "server"

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        log_path: Path | None = None,
        retry_seconds: float = 600.0,
    ) -> None:
        plain = re.sub(r"(/v1(/(chat/)?completions|/models)?)?/*$", "", address.strip())
        key = key or find_key(None, own=False)
        super().__init__(plain, key=key, log_path=log_path)
        if beyond_this_machine(self.address):  # a company's proxy may be the only way out
            self._session.proxies.update(get_environ_proxies(self.address))
        self.dropped: set[str] = set()
        """Of OPTIONAL, what the server does not take."""
        self._retry_seconds = retry_seconds
        self._random = random.Random()
        self._lock = threading.Lock()

    def models(self) -> list[dict[str, Any]] | None:
        """Return the server's list of models, None where it has none."""
        answer = self._patiently("GET", "/v1/models", None, "GET /v1/models", may_lack=True)
        if answer is None:
            return None
        with self.reading("GET /v1/models"):
            return [{**card, "id": str(card["id"])} for card in answer["data"]]

    def complete(self, body: dict[str, Any], what: str, timeout: float) -> Answer:
        """Return the answer to one prompt; `what` says in words what is asked for.

        Raises Refused for what the server will not do, GenerationError when it is busy for too long.
        """
        while True:
            sent = {name: value for name, value in body.items() if name not in self.dropped}
            try:
                return self._patiently("POST", "/v1/completions", sent, what, timeout=timeout)
            except Refused as error:
                named = [name for name in OPTIONAL if name in sent and re.search(rf"\b{name}\b", str(error))]
                if not named:
                    raise
                self._leave_out(named, error)

    def _leave_out(self, names: list[str], error: Refused) -> None:
        with self._lock:
            if not self.dropped.issuperset(names):
                self.dropped.update(names)
                logger.warning(
                    "%s: asked without %s from here on, so that its answers cannot be drawn again (%s)",
                    self.address,
                    " and ".join(names),
                    str(error)[:300],
                )

    def _patiently(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        what: str,
        *,
        timeout: float = LIST_TIMEOUT,
        may_lack: bool = False,
    ) -> Any:
        """Return what the server answers, decoded; what may pass is waited out."""
        waited, spoilt, tries = 0.0, 0, 0
        while True:
            tries += 1
            try:
                return self._once(method, path, body, what, timeout, may_lack=may_lack)
            except _Passing as fault:
                spoilt += fault.is_spoilt
                pause = self._pause(tries) if fault.pause is None else fault.pause
                if spoilt > MOST_SPOILT or waited + pause > self._retry_seconds:
                    often = f"in {tries} tries" if tries > 1 else f"(it asks to wait {pause:.0f} s)"
                    raise self.failure(
                        f"did not answer {what} {often}: {fault}; what was answered is kept, so start again "
                        "later, or raise generation.retry_seconds",
                        kind=ServerLost,
                    ) from fault
                time.sleep(pause)
                waited += pause

    def _pause(self, tries: int) -> float:
        """Return the seconds before the next try: longer each time, and not the same for all requests."""
        longest = min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE)
        with self._lock:
            return longest * self._random.uniform(0.5, 1)

    def _once(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        what: str,
        timeout: float,
        *,
        may_lack: bool,
    ) -> Any:
        try:
            response = self._session.request(
                method, self.address + path, json=body, timeout=(CONNECT_TIMEOUT, timeout)
            )
        except requests.exceptions.SSLError as error:
            if "certificate" not in str(error).lower():  # a connection that ended while it was encrypted
                raise _Passing(f"the connection ended, {reason_of(error)}") from None
            raise Refused(
                f"the server at {self.address} is not trusted: {reason_of(error)}; where its certificate was "
                f"signed by an authority of your own, give that one's file in {CERTIFICATES[0]} or "
                f"{CERTIFICATES[-1]}"
            ) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise Refused(f"{self.address} is no address of a server: {error}") from None
        except requests.exceptions.ReadTimeout:
            raise _Passing(f"there was no answer within {timeout:g} s", is_spoilt=True) from None
        except requests.exceptions.RequestException as error:
            if method == "GET" and not isinstance(error, requests.exceptions.Timeout):
                raise self.failure(f"cannot be reached: {reason_of(error)}", kind=ServerLost) from None
            raise _Passing(f"the connection ended, {reason_of(error)}") from None
        if may_lack and response.status_code in (404, 405):
            return None
        self._require_success(response, what)
        if "text/event-stream" in response.headers.get("Content-Type", ""):
            raise Refused(
                f"the server at {self.address} answered {what} with a stream of events, which was not "
                "asked for"
            )
        try:
            answer = response.json()
        except requests.exceptions.JSONDecodeError:
            raise _Passing(f"its answer is not JSON: {response.text[:200]!r}", is_spoilt=True) from None
        if isinstance(answer, dict) and answer.get("error"):
            self._raise_inner(answer["error"], what)
        return answer if body is None else self._read(answer)

    def _require_success(self, response: requests.Response, what: str) -> None:
        """Raise what another answer than HTTP 200 means."""
        code = response.status_code
        if code == 200:
            return
        words = f"HTTP {code}: {response.text.strip()[:1000]}"
        if code in _BUSY or (code >= 500 and code not in _NEVER):
            raise _Passing(words, _asked_pause(response))
        if code in (401, 403):
            raise Refused(f"the server at {self.address} refused {what}: {self._about_the_key()} ({words})")
        if code in (404, 405) and response.request.path_url.endswith("/v1/completions"):
            raise Refused(
                f"the server at {self.address} has no /v1/completions ({words}): one that only chats puts "
                "its own template around a question, so it cannot be asked with this student's prompt; take "
                "a server that has it (vLLM, SGLang, llama.cpp, TGI), or see whether it has the model"
            )
        raise Refused(f"the server at {self.address} refused {what}: {words}")

    def _raise_inner(self, error: Any, what: str) -> None:
        """Raise what an error inside of an answer means."""
        words = str(error.get("message", error) if isinstance(error, dict) else error)[:1000]
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 500 and code not in _BUSY:
            raise Refused(f"the server at {self.address} refused {what}: {code}, {words}")
        raise _Passing(f"an error in place of an answer: {words}")

    def _read(self, answer: Any) -> Answer:
        """Return the answer of a completion; _Passing where there is none, or only a part of one."""
        try:
            choice = answer["choices"][0]
            text, reason = choice["text"], choice.get("finish_reason")
            read = (answer.get("usage") or {}).get("prompt_tokens")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            shown = f"{type(error).__name__}: {error} in {str(answer)[:200]}"
            raise _Passing(f"its answer is no completion ({shown})", is_spoilt=True) from None
        if reason == CONTENT_FILTER:
            return Answer("", CONTENT_FILTER, None)
        if not isinstance(text, str | None):
            raise _Passing(f"its text is {type(text).__name__} {str(text)[:100]!r}", is_spoilt=True)
        if reason in _BROKEN_OFF:
            raise _Passing(f"it broke off a completion (finish_reason {reason!r})", is_spoilt=True)
        if reason not in (*_STOPPED, *_CUT):
            raise Refused(
                f"the server at {self.address} ended a completion with finish_reason {reason!r}, which is "
                "not known here"
            )
        if text is None or not text.strip():
            return Answer("", EMPTY, None)
        # Half a character is legal JSON, and no tokenizer takes it.
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ended = "stop" if reason in _STOPPED else "length"
        return Answer(whole, ended, read if isinstance(read, int) else None)

    @override
    def _about_the_key(self) -> str:
        return super()._about_the_key().replace("that it was started with", "that its owner has given you")


def _asked_pause(response: requests.Response) -> float | None:
    """Return the seconds after which the server wants to be asked again, None where it does not say.

    A date is measured from the server's own, so that our clock does not matter.
    """
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        until = email.utils.parsedate_to_datetime(value)
        now = email.utils.parsedate_to_datetime(response.headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None
