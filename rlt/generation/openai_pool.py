"""Servers of any make that speak OpenAI's completions API: text goes out, and text comes back.

Only what that API knows is sent, so samples are shaped by temperature, top_p, max_tokens, stop strings and a
seed alone. What a server's tokenizer makes of the text is the same as our ids where it is the student's own;
what comes back is counted in ours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

from typing_extensions import override

from rlt.errors import GenerationError
from rlt.generation.openai_server import CONTENT_FILTER, EMPTY, OpenAIServer
from rlt.generation.parallel import run_each
from rlt.generation.seeds import spread_seed
from rlt.generation.silence import InFlight
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import VLLMServer
from rlt.records import Completion

logger = logging.getLogger(__name__)
MOST_STOPS = 4
"""Stop strings that the API takes."""
ASK_AGAIN = 2
"""Times that a prompt is asked again where there was no answer: filtered, or without text."""
WITHHELD = (CONTENT_FILTER, EMPTY)
"""finish_reason of a completion for a prompt that no attempt got answered."""
GIVE_UP_AFTER = 8
"""Requests that fail one after the other, none answered in between, before no more are sent."""


@dataclass(frozen=True)
class Texts:
    """The student's tokenizer, as far as text goes."""

    encode: Callable[[str], list[int]]
    """Without tokens of its own at either end."""
    read: Callable[[str], list[int]]
    """As a server reads a prompt: with a BOS where the tokenizer adds one."""
    decode: Callable[[Sequence[int]], str]

    def prompt(self, ids: Sequence[int]) -> str:
        """Return the text that a server reads as these ids.

        Most servers put a BOS before a text, whether it begins with one or not; so ours is left to them.
        """
        text = self.decode(ids)
        if self.read(text) == [*ids]:
            return text
        without = self.decode(ids[1:])
        return without if self.read(without) == [*ids] else text


@dataclass(frozen=True)
class _Failed:
    """A prompt that was not answered, while others continue."""

    error: GenerationError


class OpenAIPool(VLLMPool):
    """A source of completions without token ids or log-probabilities: for `stream` alone.

    `model` is what the servers call it, None for the only one that they have. `timeout` is how long an answer
    may take before it is asked for again: a connection that was lost on the way looks like a long answer.
    `retry_seconds` is how long one request may wait for a server that is busy or broken.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        timeout: float,
        texts: Texts,
        key: str | None,
        requests_per_server: int,
        model: str | None = None,
        retry_seconds: float = 600.0,
    ) -> None:
        self._retry_seconds = retry_seconds
        self._answer_within = timeout
        # A request that waits for a busy server is not one that hangs.
        patience = timeout + retry_seconds
        super().__init__(
            addresses,
            timeout=patience,
            key=key,
            requests_per_server=requests_per_server,
            requests_setting="evaluate.requests_per_server",  # no other stage asks such servers
        )
        self._in_flight = InFlight(patience, "generation.request_timeout + generation.retry_seconds")
        self._texts = texts
        self._asked_for = model
        self._models: dict[str, str] = {}
        self._has_counted = False
        self._counting = threading.Lock()

    @override
    def make_server(self, address: str, **options: Any) -> OpenAIServer:
        return OpenAIServer(address, retry_seconds=self._retry_seconds, **options)

    @override
    def check(
        self, expected_model: str | None = None, min_context: int | None = None, *, logprobs: bool = True
    ) -> None:
        """Raise unless every server has the model that is asked for, room enough, and answers a word.

        What the model is called there, and whether it is `expected_model`, is the server's affair.
        """
        for server in self.servers:
            assert isinstance(server, OpenAIServer)
            self._models[server.address] = self._choose(server, min_context)
            body = {"prompt": "1", "max_tokens": 1, "temperature": 0.0, "seed": 0}
            what = "a prompt of one word"
            server.complete({"model": self._models[server.address], **body}, what, self.timeout)
            logger.info("server %s: OpenAI's API, model %s", server.address, self._models[server.address])

    @override
    def show_health(self) -> None:
        """Nothing: the API knows no health; `check` returns what is served."""

    @override
    def check_doors(self, timeout: float = 0.0) -> None:
        """Not checked: access control of third-party servers is out of scope."""

    @override
    def versions(self) -> list[str]:
        """Return what the servers call their models, and what could not be asked of them."""
        found = set()
        for server in self.servers:
            assert isinstance(server, OpenAIServer)
            without = f", without {', '.join(sorted(server.dropped))}" if server.dropped else ""
            found.add(f"OpenAI API, model {self._models.get(server.address)}{without}")
        return sorted(found)

    @property
    def models(self) -> list[str]:
        """The models that are asked, each once."""
        return sorted(set(self._models.values()))

    @override
    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling | Sequence[Sampling],
        seeds: Sequence[int],
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index of a prompt, its one completion) as each is done.

        A prompt that is not answered stops no other one: GenerationError names all of them at the end, and
        at once where nothing at all is answered.
        """
        each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
        assert len(prompts) == len(each) == len(seeds), "one sampling and one seed per prompt"

        def ask(prompt: Sequence[int], sampling: Sampling, seed: int) -> Completion | _Failed:
            try:
                return self.on_idlest(lambda server: self.draw(server, [*prompt], sampling, seed))
            except GenerationError as error:
                return _Failed(error)

        tasks = [
            (f"prompt {i}", partial(ask, prompt, one, seed))
            for i, (prompt, one, seed) in enumerate(zip(prompts, each, seeds, strict=True))
        ]
        failed: list[GenerationError] = []
        in_a_row = 0
        for index, result in run_each(tasks, max_threads=self.max_requests, watch=self._in_flight):
            if isinstance(result, Completion):
                in_a_row = 0
                yield index, result
                continue
            failed.append(result.error)
            in_a_row += 1
            if in_a_row >= min(GIVE_UP_AFTER, len(prompts)):
                break
        if failed:
            raise GenerationError(
                f"{len(failed)} of {len(prompts)} prompts were not answered, the answers to others are kept: "
                f"{failed[-1]}"
            )

    @override
    def draw(self, server: VLLMServer, prompt: list[int], sampling: Sampling, seed: int) -> Completion:
        """Return one completion; its token ids are those of the text under the student's tokenizer.

        Where the server sends nothing the prompt is asked again, each time with another seed; then the
        completion is empty, and its finish_reason one of WITHHELD.
        """
        assert isinstance(server, OpenAIServer)
        ends = sampling.stop_token_ids[:MOST_STOPS]
        stops = [self._texts.decode([end]) for end in ends]
        body = {
            "model": self._models[server.address],
            "prompt": self._texts.prompt(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            **({"top_p": sampling.top_p} if sampling.top_p != 1 else {}),
            **({"stop": stops} if stops else {}),
        }
        what = f"prompt of {len(prompt)} tokens, max_tokens {sampling.max_tokens}"
        answer = None
        for again in range(1 + ASK_AGAIN):
            own_seed = spread_seed(seed, again) if again else spread_seed(seed)
            answer = server.complete({**body, "seed": own_seed % 2**31}, what, self._answer_within)
            if answer.finish_reason not in WITHHELD:
                break
        assert answer is not None
        if answer.finish_reason in WITHHELD:
            return Completion((), (), answer.finish_reason)
        self._compare_prompts(server, len(prompt), answer.prompt_tokens)
        ended = ends[:1] if answer.finish_reason == "stop" else ()
        return Completion((*self._texts.encode(answer.text), *ended), (), answer.finish_reason)

    def _choose(self, server: OpenAIServer, min_context: int | None) -> str:
        """Return the name of the model to ask there."""
        cards = server.models()
        if cards is None:
            if self._asked_for is None:
                raise server.failure("has no list of models: name the one to ask in generation.api_model")
            logger.warning("%s: no list of models, so %s is not looked up", server.address, self._asked_for)
            return self._asked_for
        names = [card["id"] for card in cards]
        listed = ", ".join(names[:12]) or "none"
        name = self._asked_for or (names[0] if len(names) == 1 else None)
        if name is None:
            raise server.failure(f"has the models {listed}: name one of them in generation.api_model")
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {listed}"
            raise server.failure(f"has no model {name} (generation.api_model); {hint}")
        room = cards[names.index(name)].get("max_model_len")
        if isinstance(room, int) and min_context is not None and room < min_context:
            raise server.failure(
                f"serves {name} with a context of {room} tokens, but prompt and answer may need "
                f"{min_context} here: lower max_prompt_length or max_completion_length, or take a server "
                "with more room"
            )
        return name

    def _compare_prompts(self, server: VLLMServer, ours: int, theirs: int | None) -> None:
        """Warn once where a server reads another number of tokens than a prompt has."""
        if theirs is None or theirs == ours:
            return
        with self._counting:
            if not self._has_counted:
                self._has_counted = True
                logger.warning(
                    "%s read %d tokens where the prompt has %d: its tokenizer is another one, or it adds "
                    "tokens of its own",
                    server.address,
                    theirs,
                    ours,
                )
