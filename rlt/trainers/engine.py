"""How a training run gets completions from its policy: from vLLM servers, or from the policy itself.

An engine works on the rows of all processes: every process calls it at the same time, each with its own
rows. It knows nothing of rewards. TRL's own engine knows one server and opens an NCCL group to it in its
constructor, so it is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl.models.utils import unwrap_model_for_generation

from rlt.generation.collective import on_every_process
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Sampling
from rlt.records import Completion

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
        """Return one completion per row of this process; `sampling` replaces the engine's own.

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
