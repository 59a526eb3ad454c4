"""Where a step's completions come from: the engine, in the step itself or during the update before it.

With generation.max_staleness=1 and servers a step goes like this: once its completions have all come, the
policy's weights reach the servers, which write the completions of the next step with them; meanwhile this
process reads what is left of this step's, and updates. So completions are one update older than the weights
that learn from them. The update weighs each token by p_policy / p_engine, where p_engine is the probability
with which those older weights have sampled it (TRL's importance-sampling correction).

TRL's experimental AsyncGRPOTrainer does not fit. It is another trainer than GRPOTrainer, its reward functions
run in a process without a GPU, where no student can score, staleness depends on timing there, and its
checkpoints hold no completions, so a resumed run is another one.

What holds, on one process and on several:
- weights are pushed only while no server writes (`_load_weights`);
- the problems of a step are known beforehand (order.py), and seeds are those of the step: only the weights
  that write a completion are others than without this;
- a checkpoint holds the completions of the step after it (writing.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlt.errors import GenerationError, NotFinite, first_line
from rlt.generation.seeds import spread_seed
from rlt.generation.types import Sampling
from rlt.records import Completion
from rlt.surroundings.timeline import PHASES, WAIT
from rlt.trainers.drift_log import DriftLog
from rlt.trainers.early import units_of
from rlt.trainers.engine import Engine
from rlt.trainers.first_check import check_before_first_step
from rlt.trainers.first_check_verdict import FirstCheck
from rlt.trainers.order import GroupSampler
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.reading import ReadOnce
from rlt.trainers.recompute import SelectiveRecompute
from rlt.trainers.rl_parts import RLData, RLSettings
from rlt.trainers.server_engine import ServerEngine
from rlt.trainers.writing import Kept, Writing, kept_in

logger = logging.getLogger(__name__)
_TRAIN_SEED = 0
FIRST_CHECK = "comparing engine and policy"
"""What the time before the first step is called."""
_PROBE = 16
"""Tokens by which engine and policy are compared in a step whose completions older weights have written, and
tokens of the prompt before them."""


class Generating(SelectiveRecompute, ReadOnce):
    """GRPO whose completions come from an engine; a subclass sets it after its constructor."""

    engine: Engine
    settings: RLSettings
    _data: RLData
    on_phase: Callable[[str], None]
    _first_check: FirstCheck | None
    _batch: list[PromptedProblem]
    """The problems of this process's rows."""
    _drift: DriftLog

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """The arguments are those of GRPOTrainer."""
        self._order: GroupSampler | None = None
        self._writings: dict[int, Writing] = {}
        """Of this step and maybe the next, by the updates before each."""
        self._kept: Kept | None = None
        self._are_servers_lost = False
        self._staleness: list[int] = []
        """By how many updates each of the step's completions is older than the policy: of all processes."""
        super().__init__(*args, **kwargs)
        self._last_loaded_step = -1

    # TRL's samples from its own vLLM client or from the model. Ours samples from our engine, any number of
    # servers or the policy, with a seed for each row, and reads rows while others are written (reading.py).
    # It breaks if TRL expects more than completion ids and the log-probabilities they were sampled with.
    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *_: Any, **__: Any
    ) -> tuple[list[list[int]], list[list[float]]]:
        read, units = partial(self.read, self._batch), units_of(len(prompt_ids), self.rows_together)
        engine, step = self.engine, self.state.global_step
        if isinstance(engine, ServerEngine) and (engine.overlaps or self.settings.max_staleness):
            with self._keeping_what_is_trained("train"):
                if step not in self._writings:
                    self._load_weights("train")
                with self._timed("generate", "train"), self.while_reading():
                    writing = self._writing(engine, prompt_ids)
                    ahead = partial(self._write_ahead, engine)
                    self._completions = engine.read_as_written(writing, read, units, ahead)
            self._staleness = writing.staleness(step)
        else:
            seeds, group = self._seeds(step, len(prompt_ids)), self.num_generations
            assert group is not None
            self._completions = self.sample(prompt_ids, seeds, group, "train")
            self._staleness = [0] * len(prompt_ids) * self.accelerator.num_processes
            self.on_phase(PHASES["reward"])
            with self.while_reading():
                read(units, self._completions)
        return [list(c.token_ids) for c in self._completions], [list(c.logprobs) for c in self._completions]

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        group: int,
        mode: str,
        sampling: Sampling | None = None,
    ) -> list[Completion]:
        """Return one completion of the current policy per row; every process calls it."""
        with self._keeping_what_is_trained(mode):
            self._load_weights(mode)
            with self._timed("generate", mode):
                return self.engine.sample(prompts, seeds, group, sampling)

    @property
    def problems(self) -> Sequence[PromptedProblem]:
        """The problems to train on."""
        return self._data.train

    def load_written_ahead(self, checkpoint: Path) -> None:
        """Take the completions that a checkpoint holds for the step after it, to be used there."""
        self._kept = kept_in(checkpoint) if self.settings.max_staleness else None

    def _save_written_ahead(self, folder: Path) -> None:
        """Write the next step's completions into a checkpoint, all of them unless a server is lost."""
        step = self.state.global_step
        writing, engine = self._writings.get(step), self.engine
        if not isinstance(engine, ServerEngine) or writing is None or writing.is_by(step):
            return  # the weights of the checkpoint itself write them
        if not self._are_servers_lost:
            with self._keeping_what_is_trained("train"), self._timed("generate", "train"):
                engine.finish(writing)
        engine.keep(writing, folder)

    def _seeds(self, step: int, count: int) -> list[int]:
        """Return the seeds of this process's rows, after so many updates."""
        first_row = self.accelerator.process_index * count
        return [spread_seed(self.args.seed, _TRAIN_SEED, step, first_row + i) for i in range(count)]

    def _writing(self, engine: ServerEngine, prompts: Sequence[Sequence[int]]) -> Writing:
        """Return what servers write for this step: since the step before, or from now on; collective."""
        step, group = self.state.global_step, self.num_generations
        assert group is not None
        writing = self._writings.get(step)
        if writing is None:
            asked = engine.asked(prompts, self._seeds(step, len(prompts)), group)
            kept, self._kept = self._kept, None
            if kept is not None and kept.digest == asked.digest():
                writing = engine.take_up(kept, asked)
                self._last_loaded_step = engine.holds
            else:
                if kept is not None and self.accelerator.is_main_process:
                    logger.warning(
                        "the checkpoint's completions of step %d were asked for with other settings: they "
                        "are written anew, with the weights of step %d",
                        *(step + 1, step),
                    )
                writing = engine.begin(asked)
        assert writing.asked.is_for(prompts), "the problems of the step are those that were foreseen"
        self._writings = {step: writing}
        return writing

    def _write_ahead(self, engine: ServerEngine) -> None:
        """Let servers that have written all of this step's completions begin with the next; collective."""
        step, group = self.state.global_step + 1, self.num_generations
        assert group is not None
        if not self.settings.max_staleness or step in self._writings or step >= self.state.max_steps:
            return
        self._load_weights("train")
        is_stale = any(self._writings[step - 1].staleness(step - 1))
        probed = self._probe(engine) if is_stale else []
        assert self._order is not None, "the dataloader has been made"
        count = len(self._batch)
        first = self.accelerator.process_index * count
        rows = self._order.batch(step)[first : first + count]
        prompts = [self.problems[row].prompt_ids for row in rows]
        self._writings[step] = engine.begin(engine.asked(prompts, self._seeds(step, count), group))
        for prompt, completion in probed:
            self._measure_drift(prompt, completion)
        self.on_phase(PHASES["reward"])

    def _probe(self, engine: ServerEngine) -> list[tuple[list[int], Completion]]:
        """Return a few tokens that each server samples with the policy's weights; the same on every process.

        The step's own completions are of older weights, so they cannot show whether a push was right.
        """
        prompt = list(self._writings[self.state.global_step].asked.prompts[0][-_PROBE:])
        sampling = Sampling(self.temperature, _PROBE, ())  # plain, so that the samples are the policy's own
        answers = engine.sample_each([prompt], sampling, self.state.global_step)
        return [(prompt, completion) for _, completions in answers for completion in completions]

    def _measure_drift(self, prompt: list[int], completion: Completion) -> None:
        tokens = completion.token_ids
        policy_C = self.loss_logprobs(self.model, [*prompt, *tokens], len(tokens))
        sampled_C = torch.tensor(completion.logprobs)
        self._drift.add(policy_C[None], sampled_C[None], torch.ones_like(policy_C, dtype=torch.bool)[None])

    def _load_weights(self, mode: str) -> None:
        """See to it that the engine holds the current weights; what servers write, they finish first."""
        if self._last_loaded_step != self.state.global_step:
            if isinstance(self.engine, ServerEngine):
                for writing in self._writings.values():
                    with self._timed("generate", mode):
                        self.engine.finish(writing)
            with self._timed("sync", mode):
                self.engine.sync_weights()
            self._last_loaded_step = self.state.global_step
        if self._first_check is not None:
            check, self._first_check = self._first_check, None
            self.on_phase(FIRST_CHECK)
            trainer: Any = self
            check_before_first_step(trainer, check)

    @contextmanager
    def _keeping_what_is_trained(self, mode: str) -> Iterator[None]:
        """Use the engine. A failure in it ends the run; a checkpoint is kept."""
        try:
            yield
        except (GenerationError, NotFinite) as error:  # on every process
            if isinstance(error, NotFinite) or self.broken_weights():  # nothing of this policy is to be kept
                step = self.state.global_step + (mode == "train")
                self.end_training(step, f"generation fails ({first_line(error)})", {"reward": math.nan})
            self._are_servers_lost = True
            kept = self.keep_trained(lambda: self.on_phase("saving"))
            raise type(error)(f"{error}\n{kept}" if kept else str(error)) from error

    @contextmanager
    def _timed(self, phase: str, mode: str) -> Iterator[None]:
        is_training = mode == "train"
        self.on_phase(PHASES[phase] if is_training or phase == "sync" else "evaluating")
        # While servers generate, which the pool records, this process waits.
        is_elsewhere = phase == "generate" and isinstance(self.engine, ServerEngine)
        with self.meter.span(WAIT if is_elsewhere else phase):
            yield
        if phase == "reward" and is_training:
            self.on_phase(PHASES["update"])
