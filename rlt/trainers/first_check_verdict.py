"""What the check before the first step compares, and which side it finds wrong."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from rlt.errors import GenerationError, ModelError, RLTError
from rlt.generation.drift import Drift, engine_drift
from rlt.models.logprobs import Request
from rlt.models.plain import NoPlainLoad, PlainModel, PlainScores, differing_buffers, score_plainly
from rlt.trainers.engine import LocalEngine

if TYPE_CHECKING:
    from rlt.trainers.rl import RLTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstCheck:
    """What the check needs to know of a run."""

    length: int
    """Tokens of the longest prompt and completion together."""
    temperature: float
    limit: float
    """Mean |difference| of log-probabilities that rounding explains."""
    plain: PlainModel | str
    """The weights that the policy starts with, or why there are none to load."""
    is_fresh: bool
    """Whether the reference holds the policy's weights; that of a resumed run has others."""
    note: Callable[[dict[str, Any]], None]
    """Takes what was measured; called on the main process."""


@dataclass(frozen=True)
class Scored:
    """What one part of the engine sampled after one prompt, and what one model of a process says of it."""

    engine: str
    model: str
    """`policy` or `reference`."""
    process: int
    prompt: int
    """Its index: 0 is the long one."""
    tokens: tuple[int, ...]
    sampled: tuple[float, ...]
    scored: tuple[float, ...]

    @property
    def drift(self) -> Drift:
        """How far the two are apart."""
        return difference(self.scored, self.sampled)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Drift:
    """Return the size of the difference of two rows of log-probabilities."""
    return engine_drift(torch.tensor(ours), torch.tensor(theirs), torch.ones(len(ours)))


def is_partitioned(trainer: RLTrainer[Any]) -> bool:
    """Return whether the policy's weights are spread over the processes."""
    return any(hasattr(parameter, "ds_id") for parameter in trainer.policy.parameters())


class Judge:
    """Says on the main process which side is wrong."""

    def __init__(
        self, trainer: RLTrainer[Any], check: FirstCheck, prompts: list[list[int]], scored: list[Scored]
    ) -> None:
        self._trainer = trainer
        self._check = check
        self._prompts = prompts
        self._scored = scored

    def compare_models(self) -> dict[str, Any]:
        """Return how far policy and reference are from a plain load; raise if it is more than rounding."""
        there = [s for s in self._scored if (s.process, s.prompt) == (0, 0)]
        plain = self._plain(there[:1])  # all of them hold the same tokens
        if isinstance(plain, str):
            logger.warning("the sharded policy is not compared with a plain load of its weights: %s", plain)
            return {"missing": plain}
        measured = {}
        for found in there:
            drift = difference(found.scored, plain.logprobs[0].tolist())
            measured[found.model] = {"mean": drift.mean, "max": drift.max}
            if not drift.mean <= self._check.limit:
                raise ModelError(
                    f"before the first step {_place(found.model)} differs by {drift.mean:.3g} on average "
                    f"from a plain load of {self._name} in the log-probabilities of {self._where(found)} "
                    f"(limit {self._check.limit:g}); {self._remedy_of_trainer(found.model, plain)}"
                    f"{self._way_out(drift)}"
                )
        return measured

    def settle(self) -> dict[str, Any]:
        """Return how far the sides that differ are from a plain load; raise if it is more than rounding.

        Two sides may each be a rounding away from it, and further from each other: that is no fault.
        """
        above = [found for found in self._scored if not found.drift.mean <= self._check.limit]
        above.sort(key=badness, reverse=True)
        logger.warning("%s", self._what(above[0]))  # now: a plain load of a large model takes minutes
        plain = self._plain(above)
        measured = {}
        for place, found in enumerate(above):
            if isinstance(plain, str):
                self._raise(found, GenerationError, self._without_plain(found, plain))
            expected = plain.logprobs[place].tolist()
            ours = difference(found.scored, expected).mean
            theirs = difference(found.sampled, expected).mean
            if not (ours <= self._check.limit and theirs <= self._check.limit):
                self._raise(found, *self._verdict(found, plain, ours, theirs))
            measured[f"{found.model} and {found.engine}"] = {found.model: ours, "engine": theirs}
        logger.warning(
            "each of them is within this limit of a plain load of %s: the run continues", self._name
        )
        return measured

    def _what(self, found: Scored) -> str:
        return (
            f"before the first step {_place(found.model)} and {found.engine} differ by "
            f"{found.drift.mean:.3g} on average in the log-probabilities of {self._where(found)} (limit "
            f"{self._check.limit:g}){self._elsewhere(found)}"
        )

    def _raise(self, found: Scored, kind: type[RLTError], why: str) -> NoReturn:
        raise kind(f"{self._what(found)}; {why}{self._way_out(found.drift)}")

    def _without_plain(self, found: Scored, missing: str) -> str:
        return (
            f"{self._suspect(found)}, and there is no plain load of the weights to compare with: "
            f"{missing}; {self._cause(found)}"
        )

    def _verdict(
        self, found: Scored, plain: PlainScores, ours: float, theirs: float
    ) -> tuple[type[RLTError], str]:
        limit = self._check.limit
        measured = (
            f"a plain load of {self._name} differs by {ours:.3g} from {_place(found.model)} and by "
            f"{theirs:.3g} from {found.engine}, so "
        )
        is_ours, is_theirs = not ours <= limit, not theirs <= limit
        trainer, engine = self._remedy_of_trainer(found.model, plain), self._remedy_of_engine(found)
        if is_ours and is_theirs:
            both = f"{_place(found.model)} and {found.engine} are both wrong"
            return ModelError, f"{measured}{both}; {self._cause(found)}; {trainer}; {engine}"
        if is_ours:
            return ModelError, f"{measured}{_place(found.model)} is wrong; {self._cause(found)}; {trainer}"
        return GenerationError, f"{measured}{found.engine} is wrong; {self._cause(found)}; {engine}"

    def _plain(self, found: Sequence[Scored]) -> PlainScores | str:
        """Return the scores of what was sampled by a plain load, or why there are none."""
        plain = self._check.plain
        if isinstance(plain, str):
            return plain
        requests = []
        for one in found:
            prompt = self._prompts[one.prompt]
            ids = [*prompt, *one.tokens]
            requests.append(Request(ids, range(len(prompt), len(ids))))
        try:
            return score_plainly(
                plain,
                requests,
                temperature=self._check.temperature,
                tokens_per_batch=max(len(request.ids) for request in requests),
                device=self._trainer.accelerator.device,
            )
        except NoPlainLoad as error:
            return str(error)

    @property
    def _name(self) -> str:
        assert isinstance(self._check.plain, PlainModel), "there is a plain load"
        return f"{self._check.plain.name} in {self._check.plain.dtype}"

    def _where(self, found: Scored) -> str:
        where = f"{len(found.tokens)} tokens sampled after {len(self._prompts[found.prompt])}"
        return f"{where} on process {found.process}" if found.process else where

    def _beside(self, found: Scored) -> Scored | None:
        """Return the same comparison after the short prompt, where this is the long one."""
        same = (found.engine, found.model, found.process, 1)
        short = (s for s in self._scored if (s.engine, s.model, s.process, s.prompt) == same)
        return next(short, None) if found.prompt == 0 else None

    def _suspect(self, found: Scored) -> str:
        """Return which side is wrong as far as the other comparisons show."""
        there = [s for s in self._scored if (s.process, s.prompt) == (found.process, found.prompt)]
        agree = [s for s in there if s.drift.mean <= self._check.limit]
        if any(s.model == found.model for s in agree):
            return f"{_place(found.model)} agrees with another part of the engine, so {found.engine} is wrong"
        if any(s.engine == found.engine for s in agree):
            return f"{found.engine} agrees with the other model, so {_place(found.model)} is wrong"
        return "which of them is wrong is not known"

    def _elsewhere(self, found: Scored) -> str:
        """Say what else was measured: near the start, and with the other parts of the engine."""
        parts = []
        if (short := self._beside(found)) is not None:
            parts.append(f"by {short.drift.mean:.3g} after {len(self._prompts[1])}")
        same = (found.model, found.process, found.prompt)
        others = [
            s for s in self._scored if (s.model, s.process, s.prompt) == same and s.engine != found.engine
        ]
        parts += [f"from {other.engine} by {other.drift.mean:.3g}" for other in others]
        return "".join(f", {words}" for words in parts)

    def _grows(self, found: Scored) -> bool:
        """Return whether the difference is much smaller after the short prompt."""
        short = self._beside(found)
        return short is not None and short.drift.mean <= max(self._check.limit, found.drift.mean / 3)

    def _cause(self, found: Scored) -> str:
        if self._grows(found):
            return (
                "it grows with the position, as with rotary frequencies that are rounded or of another "
                "rope_theta or rope scaling"
            )
        return (
            "it does not come from the position alone: weights that are stale or incomplete, another "
            "precision, or a wrong temperature"
        )

    def _remedy_of_trainer(self, model: str, plain: PlainScores) -> str:
        module: Any = self._trainer.policy if model == "policy" else self._trainer.ref_model
        found = differing_buffers(module, plain.buffers)
        remedy = "start with the strategy zero2, under which the model is loaded whole"
        if not is_partitioned(self._trainer):
            remedy = "set model.attn_implementation=sdpa or model.dtype=float32"
        if not found:
            return remedy
        more = f", and {len(found) - 1} more" if found[1:] else ""
        return f"in the trainer {found[0]}{more}: {remedy}"

    def _remedy_of_engine(self, found: Scored) -> str:
        if isinstance(self._trainer.engine, LocalEngine):
            return "set model.attn_implementation=sdpa, or generate with generation.backend=vllm"
        if self._grows(found):
            return (
                "start the servers with the model's own config.json, and leave --hf-overrides and what else "
                "changes positions out of generation.server_args"
            )
        return (
            "restart the servers with this model and generation.dtype, without quantization in "
            "generation.server_args, or push with another generation.weight_sync"
        )

    def _way_out(self, drift: Drift) -> str:
        if not math.isfinite(drift.mean):
            return ""
        return f" (generation.drift_limit={2 * drift.mean:.1g} would let the run continue as it is)"


def badness(found: Scored) -> tuple[bool, float]:
    """Return what the worst comparison has most of: a NaN is the worst."""
    return found.drift.mean != found.drift.mean, found.drift.mean


def _place(model: str) -> str:
    return f"the trainer's {model}"
