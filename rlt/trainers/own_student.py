"""The trained policy, or the reference of its KL term, as the student that pays: a `LogprobModel`.

The original calls the reference so with `student_model: null`. With adapters the policy is the model with
them and the reference the one without. Under ZeRO-3 every process takes part in each pass, as it does when
the policy is read for r_KL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from rlt.models.logprobs import Request, token_logprobs
from rlt.trainers.narrow import evaluation_mode
from rlt.trainers.reading import ReadOnce


class OwnStudent:
    """`which` is policy or reference."""

    def __init__(self, trainer: ReadOnce, which: str) -> None:
        self._trainer = trainer
        self._which = which

    @property
    def version(self) -> int:
        """The number of updates: both models move with them alone."""
        return self._trainer.state.global_step

    def logprobs(
        self,
        requests: list[Request],
        *,
        temperature: float,
        tokens_per_batch: int,
        runs: Sequence[int] | None = None,
        agree: Callable[[int], int] = lambda count: count,
    ) -> list[Tensor]:
        """Return the log-probabilities of each request's positions (see `token_logprobs`); collective."""
        accelerator = self._trainer.accelerator
        with self._model() as model, accelerator.autocast():
            return token_logprobs(
                model,
                requests,
                temperature=temperature,
                tokens_per_batch=tokens_per_batch,
                device=accelerator.device,
                runs=runs,
                agree=agree,
            )

    @contextmanager
    def _model(self) -> Iterator[Any]:
        if self._which == "reference":
            with self._trainer.reference_model() as model:
                yield model
            return
        assert self._trainer.model is not None, "the constructor has made it"
        with evaluation_mode(self._trainer.model):
            yield self._trainer.model
