"""How a training run gets completions from its policy: from vLLM servers, or from the policy itself.

An engine works on the rows of all processes: every process calls it at the same time, each with its own
rows. It knows nothing of rewards. TRL's own engine knows one server and opens an NCCL group to it in its
constructor, so it is not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl.models.utils import unwrap_model_for_generation

from rlt.errors import ServerLost
from rlt.generation.collective import consume_on_main_process, on_every_process, on_main_process
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.weight_sync import WeightSync
from rlt.generation.weights import model_weights
from rlt.records import Completion

logger = logging.getLogger(__name__)
Rows = Sequence[Sequence[int]]
Answers = Callable[[Rows, Sequence[int], Sampling], list[Completion]]
"""Prompts, a seed for each, and a sampling -> a completion of each prompt."""


def policy_for_generation(trainer: Trainer) -> AbstractContextManager[Any]:
    """Return a context with the plain policy of a trainer, its weights gathered under ZeRO-3.

    Gradient checkpointing is off in it, and afterwards on again as it was.
    """
    wrapped: Any = trainer.model_wrapped
    return unwrap_model_for_generation(
        wrapped,
        trainer.accelerator,
        gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,  # pyright: ignore[reportArgumentType]
    )


class Engine(Protocol):
    """A source of completions for the current policy."""

    def sync_weights(self) -> None:
        """Make the engine generate with the policy's current weights."""
        ...

    def sample(
        self, prompts: Rows, seeds: Sequence[int], group: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Return one completion per row of this process; `sampling` stands for the engine's own.

        `group` consecutive rows over all processes share a prompt; a row's seed decides its sample, with
        servers the seed of the group's first row decides all of them.
        """
        ...

    def sample_each(self, prompts: Rows, sampling: Sampling, seed: int) -> list[tuple[str, list[Completion]]]:
        """Return every part of the engine, in words, with its own completion of each prompt.

        Every process calls it with the same prompts, and gets the same parts.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds outside this process."""
        ...


class ServerEngine:
    """Completions from a pool of servers, asked by the main process for everyone."""

    def __init__(
        self,
        model: nn.Module,
        accelerator: Accelerator,
        *,
        generator: VLLMPool,
        sync: WeightSync,
        sampling: Sampling,
        wait_for_servers: Callable[[], None],
        max_restarts: int,
    ) -> None:
        """`wait_for_servers` returns once lost servers are back, which may happen `max_restarts` times."""
        self._wait_for_servers = wait_for_servers
        self._restarts_left = max_restarts
        self._accelerator = accelerator
        self._generator = generator
        self._sync = sync
        self._sampling = sampling
        self._model = model

    def sync_weights(self) -> None:
        """Push the policy's weights to every server; gathering them is collective under ZeRO-3."""
        while not self._survives(self._push):
            pass

    def sample(
        self, prompts: Rows, seeds: Sequence[int], group: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Return one completion per row of this process; raises GenerationError on every process."""
        rows_per_process = gather_object([len(prompts)])
        all_prompts = gather_object([list(p) for p in prompts])
        all_seeds = gather_object(list(seeds))
        groups: list[list[Completion]] = []

        def ask() -> None:
            groups[:] = on_main_process(
                self._accelerator,
                lambda: self._generator.generate(
                    all_prompts[::group], group, sampling or self._sampling, all_seeds[::group]
                ),
            )

        self._until_done(ask)
        completions = [completion for members in groups for completion in members]
        start = sum(rows_per_process[: self._accelerator.process_index])
        return completions[start : start + len(prompts)]

    def sample_each(self, prompts: Rows, sampling: Sampling, seed: int) -> list[tuple[str, list[Completion]]]:
        """Return every server with its own completion of each prompt; the same on every process."""
        answers: list[tuple[str, list[Completion]]] = []

        def ask() -> None:
            answers[:] = on_main_process(
                self._accelerator, lambda: self._generator.generate_on_each(prompts, sampling, seed)
            )

        self._until_done(ask)
        return answers

    def _until_done(self, ask: Callable[[], None]) -> None:
        while not self._survives(ask):
            self.sync_weights()  # those that have come back hold the model's first weights

    def _push(self) -> None:
        consume_on_main_process(self._accelerator, model_weights(self._model), self._sync.push)

    def _survives(self, call: Callable[[], None]) -> bool:
        """Return whether a collective call was done; False after a lost server has come back.

        Every process sees the same error, so all of them wait, and repeat, together.
        """
        try:
            call()
            return True
        except ServerLost as error:
            if not self._restarts_left:
                raise
            self._restarts_left -= 1
            if self._accelerator.is_main_process:
                logger.warning("%s\nwaiting for it to come back, to repeat what was lost", error)
            on_main_process(self._accelerator, self._wait_for_servers)
            self._sync.reconnect()
            return False

    def close(self) -> None:
        """Delete the files of the last weight sync and close the connections."""
        if self._accelerator.is_main_process:
            self._sync.close()


class LocalEngine:
    """Completions from the policy itself, each process for its own rows."""

    def __init__(
        self,
        model_context: Callable[[], AbstractContextManager[PreTrainedModel]],
        accelerator: Accelerator,
        *,
        sampling: Sampling,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
    ) -> None:
        """`model_context` opens the policy for generation; `batch_size` counts rows of one forward pass."""
        plugin = accelerator.state.deepspeed_plugin
        self._is_collective = plugin is not None and plugin.zero_stage == 3
        self._accelerator = accelerator
        self._sampling = sampling
        assert isinstance(tokenizer.pad_token_id, int), "load_tokenizer has seen to a pad token"
        self._pad_token_id = tokenizer.pad_token_id
        self._generator = TransformersGenerator(
            model_context,
            tokenizer.pad_token_id,
            batch_size,
            decode=lambda ids: str(tokenizer.decode(ids)),
            synced_gpus=self._is_collective,
        )

    def sync_weights(self) -> None:
        """Nothing to do: the policy generates."""

    def sample(
        self,
        prompts: Rows,
        seeds: Sequence[int],
        group: int,  # noqa: ARG002
        sampling: Sampling | None = None,
    ) -> list[Completion]:
        """Return one completion per row; rows are independent, so groups don't matter."""
        missing = 0
        if self._is_collective:  # every process runs as many forward passes as the busiest
            missing = max(gather_object([len(prompts)])) - len(prompts)
        padded = [*prompts, *([[self._pad_token_id]] * missing)]
        samples = on_every_process(
            self._accelerator,
            lambda: self._generator.generate(
                padded, 1, sampling or self._sampling, [*seeds, *([0] * missing)]
            ),
        )
        return [row[0] for row in samples[: len(prompts)]]

    def sample_each(self, prompts: Rows, sampling: Sampling, seed: int) -> list[tuple[str, list[Completion]]]:
        """Return this process's completions: every process samples with a policy of its own."""
        return [("its own generation", self.sample(prompts, [seed] * len(prompts), 1, sampling))]

    def close(self) -> None:
        """Nothing to release."""


def answers_of(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> Answers:
    """Return a function by which a trainer's policy answers prompts; every process calls it with its own."""

    def answer(prompts: Rows, seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        engine = LocalEngine(
            lambda: policy_for_generation(trainer),
            trainer.accelerator,
            sampling=sampling,
            tokenizer=tokenizer,
            batch_size=batch_size,
        )
        return engine.sample(prompts, seeds, 1)

    return answer
