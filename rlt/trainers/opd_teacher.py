"""Who gives a student's tokens their distributions in on-policy distillation, wherever its weights are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor

from rlt.errors import GenerationError
from rlt.generation.server_logprobs import ServerLogprobs
from rlt.models.distributions import TopTokens
from rlt.models.frozen import FrozenModel
from rlt.models.logprobs import Extra, Request, own_head
from rlt.models.own_head import OwnHead
from rlt.trainers.narrow import NarrowPasses, evaluation_mode


class Teacher(Protocol):
    """A model that reads other sequences than the student's."""

    def read(
        self, requests: list[Request], extra: Extra | None, runs: Sequence[int]
    ) -> list[tuple[Tensor, ...]]:
        """Return what `extra` reads at each request's positions, log-probabilities first; collective.

        `runs`: numbers of consecutive requests of which none may depend on those of another run.
        """
        ...

    def head(self) -> OwnHead:
        """Return what makes logits of its hidden states; collective where it is sharded."""
        ...

    def in_place(self) -> AbstractContextManager[Any]:
        """Keep a model that rests in host memory on its device."""
        ...


class FrozenTeacher:
    """A model of its own, which the update does not change."""

    def __init__(
        self,
        model: FrozenModel,
        *,
        temperature: float,
        tokens_per_batch: int,
        agree: Callable[[int], int],
    ) -> None:
        """`agree` is the maximum of an integer over all processes."""
        self.model = model
        self._how: dict[str, Any] = {
            "temperature": temperature,
            "tokens_per_batch": tokens_per_batch,
            "agree": agree,
        }

    def read(
        self, requests: list[Request], extra: Extra | None, runs: Sequence[int]
    ) -> list[tuple[Tensor, ...]]:
        """Return what `extra` reads at each request's positions."""
        return self.model.values(requests, extra, runs=runs, **self._how)

    def head(self) -> OwnHead:
        """Return the model's head."""
        return self.model.head

    def in_place(self) -> AbstractContextManager[Any]:
        """Keep it on its device."""
        return self.model.in_place()


class ServerTeacher:
    """A model behind servers, which give probabilities and no hidden states."""

    def __init__(self, servers: ServerLogprobs, *, temperature: float, tokens_per_batch: int) -> None:
        self._servers = servers
        self._how: dict[str, Any] = {"temperature": temperature, "tokens_per_batch": tokens_per_batch}

    def read(
        self, requests: list[Request], extra: Extra | None, runs: Sequence[int]
    ) -> list[tuple[Tensor, ...]]:
        """Return the log-probabilities of each request's positions, and of their likeliest tokens."""
        assert extra is None or isinstance(extra, TopTokens), "validate() has refused the whole vocabulary"
        count = 0 if extra is None else min(extra.count, extra.vocabulary)
        found = self._servers.top(requests, count, runs=runs, **self._how)
        if extra is not None:
            _refuse_foreign(found, extra.vocabulary)
        return [values if count else values[:1] for values in found]

    def head(self) -> OwnHead:
        """Not there: it stays with the servers."""
        raise AssertionError("validate() has refused the whole vocabulary")

    def in_place(self) -> AbstractContextManager[None]:
        """Do nothing: it takes no room here."""
        return nullcontext()


def _refuse_foreign(found: Sequence[tuple[Tensor, ...]], vocabulary: int) -> None:
    """Raise for likeliest tokens that the student has no id for: the server's table is padded further."""
    highest = max((int(ids.max()) for _, _, ids in found if ids.numel()), default=-1)
    if highest >= vocabulary:
        raise GenerationError(
            f"the teacher's server gives token {highest} among its opd.top_k likeliest, and both models have "
            f"tokens below {vocabulary} alone: take a smaller opd.top_k, or opd.placement=replicated."
        )


class PolicyTeacher:
    """The student itself as it is at this step, with the solution.

    A step is one update of the policy that has sampled (arguments.py), so its head in the update is the one
    that goes with the hidden states that were read before.
    """

    def __init__(self, trainer: NarrowPasses) -> None:
        self._trainer = trainer

    def read(
        self, requests: list[Request], extra: Extra | None, runs: Sequence[int]
    ) -> list[tuple[Tensor, ...]]:
        """Return what `extra` reads at each request's positions."""
        model: Any = self._trainer.model
        with evaluation_mode(model):
            return self._trainer.values(model, requests, extra, runs)

    def head(self) -> OwnHead:
        """Return the policy's head."""
        return own_head(
            self._trainer.accelerator.unwrap_model(self._trainer.model),  # pyright: ignore[reportArgumentType]
            self._trainer.accelerator.device,
        )

    def in_place(self) -> AbstractContextManager[None]:
        """Do nothing: it is always there."""
        return nullcontext()
