"""GRPO as both RL stages run it: a thin subclass of TRL's trainer that does not know what is paid for.

What differs from `GRPOTrainer`:
- prompts are token ids made by a layout, never re-tokenised text;
- completions come from our engine (any number of servers, or the policy itself);
- the reference moves by `MovingReference`, and checkpoints hold it;
- every forward pass is as wide as its own rows (narrow.py);
- what is needed of a row without gradients is computed once, while others are written (reading.py);
- engine drift is measured in the loss pass, without a further forward, under every recipe;
- before the first step engine and trainer are compared at the end of the context (first_check.py);
- monitors read each step's samples and warn with advice;
- a completion is truncated when its engine says so: one that was stopped at its tag is whole;
- evaluation samples held-out problems with seeds of its own, each problem counted once.

Not reachable by extension: with a GPU but no Triton, and on a CPU, TRL's loss projects every position.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.grpo_config import GRPOConfig

from rlt.config.schema import MonitorSettings
from rlt.errors import GenerationError, NotFinite, first_line
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.generation.collective import on_main_process
from rlt.generation.seeds import spread_seed
from rlt.generation.types import Sampling
from rlt.models.zero_init import buffers_left_alone, warn_of_rounded_parameters
from rlt.records import Completion, Problem, Score
from rlt.rewards.likelihood import is_scorable
from rlt.surroundings.timeline import PHASES, WAIT
from rlt.trainers.alarms import Alarms
from rlt.trainers.drift_log import DriftLog
from rlt.trainers.early import units_of
from rlt.trainers.engine import Engine, policy_for_generation
from rlt.trainers.first_check import check_before_first_step
from rlt.trainers.first_check_verdict import FirstCheck
from rlt.trainers.grpo_base import GRPOTrainer
from rlt.trainers.monitor_limits import LimitsOf
from rlt.trainers.monitors import Monitors
from rlt.trainers.order import GroupSampler, Places, all_of
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.reading import ReadOnce, completion_requests, rows_together
from rlt.trainers.recompute import SelectiveRecompute
from rlt.trainers.reference import MovingReference
from rlt.trainers.sample_rows import mean_parts, number_samples, sample_row
from rlt.trainers.server_engine import ServerEngine

SampleSink = Callable[[str, list[dict[str, Any]]], None]
"""Takes the name of a table (`step_000001`) and its rows; called on the main process."""
Layout = TypeVar("Layout", TeacherLayout, StudentLayout)
_TRAIN, _EVAL = 0, 1
FIRST_CHECK = "comparing engine and policy"
"""What the time before the first step is called."""


@dataclass(frozen=True)
class RLSettings:
    """What the trainer needs besides TRL's arguments."""

    ref_sync_steps: int
    ref_mixup: float
    drift_limit: float
    """Warn above this mean |policy - sampled|; infinite where the two are not meant to agree."""
    drift_error: float | None
    """Stop above this maximum, where the reward reads the sampled log-probabilities."""
    mask_truncated: bool
    """Completions that were cut by their length get no loss."""
    tokens_per_pass: int
    """Tokens of a forward pass without gradients; one row may be longer."""
    joined_tokens: int
    """Tokens up to which passes of the update with short rows are joined."""
    rows_per_pass: int
    """Rows that fit into such a pass at their limits."""
    come_one_by_one: bool
    """A step's rows come from servers, so that each may be read when it is there."""
    eval_num_generations: int
    monitors: MonitorSettings


@dataclass(frozen=True)
class RLData:
    """Problems to train on, and held-out ones to evaluate on (may be empty)."""

    train: Sequence[PromptedProblem]
    held_out: Sequence[PromptedProblem]
    train_places: Places | None = None
    """Of `train` in its dataset; None: it is all of it."""

    @property
    def places(self) -> Places:
        """Where the problems to train on stand in their dataset."""
        return self.train_places or all_of(len(self.train))


@dataclass(frozen=True)
class RLParts:
    """What the trainer is given from outside; the engine needs its model to be made."""

    make_engine: Callable[[RLTrainer[Any]], Engine]
    write_samples: SampleSink
    first_check: FirstCheck | None = None
    """None: engine and policy are not compared before the first step."""


class RLTrainer(SelectiveRecompute, ReadOnce, ABC, Generic[Layout]):
    """Trains a policy by RL; a subclass says what a completion earns and what is told of it."""

    limits: ClassVar[LimitsOf]
    """What the monitors warn of."""
    without_reward: ClassVar[str]
    """What to look at when no completion of a step has a finite reward."""
    compares_rewards: ClassVar[bool] = True
    """Whether the loss reads the rewards, each against those of its group."""

    def __init__(
        self,
        model: str,
        arguments: dict[str, Any],
        *,
        layout: Layout,
        data: RLData,
        parts: RLParts,
        settings: RLSettings,
        peft_config: Any = None,
    ) -> None:
        """`arguments` are those of TRL's GRPOConfig (see arguments.py)."""
        args = GRPOConfig(**arguments)  # first: it tells transformers that ZeRO-3 is on
        with buffers_left_alone():  # of the policy and of the reference, which TRL loads here
            super().__init__(
                model,
                reward_funcs=[self.rlt],
                args=args,
                train_dataset=_indexed(data.train),
                eval_dataset=_indexed(data.held_out) if data.held_out else None,
                processing_class=layout.tokenizer,
                peft_config=peft_config,
            )
        if self.is_deepspeed_enabled:
            warn_of_rounded_parameters(self.model, "a start with ddp")
        self.layout = layout
        self.stop_token_ids = sorted({*self.eos_token_ids, *layout.stop_token_ids})
        self.settings = settings
        self.tokens_per_pass = settings.tokens_per_pass
        self.joined_tokens = settings.joined_tokens
        self.rows_together = None
        if settings.come_one_by_one:
            self.rows_together = rows_together(self.accelerator, settings.rows_per_pass)
        self._data = data
        self._write_samples = parts.write_samples
        self._first_check = parts.first_check
        self._batch: list[PromptedProblem] = []
        self.policy: Any = self.model
        self.engine = parts.make_engine(self)
        # TRL was built without vLLM so that it opens no connection of its own; from here on it takes the
        # branches that expect sampled log-probabilities, the importance-sampling correction among them.
        self.use_vllm = True
        if data.held_out:
            self.add_callback(_EvaluateAtTheEnd())
        self._last_loaded_step = -1
        self.on_phase: Callable[[str], None] = lambda phase: None  # noqa: ARG005 - nobody listens
        alarms = Alarms(speaks=self.accelerator.is_main_process)
        self._drift = DriftLog(alarms, settings.drift_limit, settings.drift_error)
        assert self.num_generations is not None
        limits = type(self).limits
        self.monitors = Monitors(settings.monitors, alarms, group=self.num_generations, limits=limits)
        self.reference: MovingReference | None = None
        if self.ref_model is not None and settings.ref_sync_steps:
            self.reference = MovingReference(
                self.policy,
                self.ref_model,
                self.accelerator,
                every=settings.ref_sync_steps,
                share=settings.ref_mixup,
            )
            self.add_callback(self.reference)

    @property
    def moving_models(self) -> list[MovingReference]:
        """The models that follow the policy, which checkpoints hold."""
        return [] if self.reference is None else [self.reference]

    @property
    def problems(self) -> Sequence[PromptedProblem]:
        """The problems to train on."""
        return self._data.train

    @abstractmethod
    def judge(
        self, items: Sequence[PromptedProblem], completions: Sequence[Completion], measured: Sequence[Any]
    ) -> list[Score]:
        """Return what each completion earns, from what `measure` has returned for each.

        Every process calls it, with all of its rows of a step.
        """

    def score(self, items: Sequence[PromptedProblem], completions: Sequence[Completion]) -> list[Score]:
        """Return what each completion earns; every process calls it, each with its own rows."""
        policy: Sequence[Tensor | None] = [None] * len(items)
        if self.reads_policy:
            policy = self.policy_logprobs(completion_requests(items, completions))
        return self.judge(items, completions, self.measure(items, completions, policy, runs=None))

    @abstractmethod
    def tell(self, problem: Problem, completion: Completion) -> dict[str, Any]:
        """Return the columns of a sample's row that depend on the layout: its texts, and what they show."""

    def _get_train_sampler(self, *dataset: Any, **named: Any) -> GroupSampler:
        sampler: Any = super()._get_train_sampler(*dataset, **named)
        return GroupSampler(sampler, self._data.places, lambda: int(self.state.epoch or 0))

    # ---- generation -------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._batch = [self._data.train[row["index"]] for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        if self.settings.mask_truncated:
            is_whole = [c.finish_reason != "length" for c in self._completions]
            output["completion_mask"] *= torch.tensor(is_whole, device=self.accelerator.device).unsqueeze(1)
            counted: Any = self.accelerator.gather(output["completion_mask"].sum())
            output["num_items_in_batch"] = counted.sum()
        rows = self._rows(self._batch, self._completions, self._scores)
        if self.compares_rewards:
            for row, advantage in zip(rows, output["advantages"].tolist(), strict=True):
                row["advantage"] = advantage
        step = self.state.global_step + 1
        for name, value in self.monitors.observe(self._store(f"step_{step:06d}", rows), step).items():
            self._metrics["train"][name].append(value)
        return output

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        assert len(prompts) == len(self._batch), "one prompt per row of the batch"
        return [item.prompt_ids for item in self._batch], None, {}

    def _generate(self, prompts: list[Any]) -> Any:
        """Generate, and log what was cut: TRL takes every completion without end-of-turn token for cut."""
        output = super()._generate(prompts)
        found = [(c.finish_reason == "length", len(c.token_ids)) for c in self._completions]
        rows: list[tuple[bool, int]] = gather_object(found)
        whole = [length for is_cut, length in rows if not is_cut] or [0]
        for name, value in (
            ("clipped_ratio", sum(is_cut for is_cut, _ in rows) / len(rows)),
            ("mean_terminated_length", sum(whole) / len(whole)),
            ("min_terminated_length", min(whole)),
            ("max_terminated_length", max(whole)),
        ):
            self._metrics["train"][f"completions/{name}"][-1] = float(value)
        return output

    def policy_for_generation(self) -> AbstractContextManager[Any]:
        """Return a context with the plain policy, its weights gathered under ZeRO-3."""
        return policy_for_generation(self)

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *_: Any, **__: Any
    ) -> tuple[list[list[int]], list[list[float]]]:
        first_row = self.accelerator.process_index * len(prompt_ids)
        seeds = [self._seed(_TRAIN, first_row + i) for i in range(len(prompt_ids))]
        group = self.num_generations
        assert group is not None
        read, units = partial(self.read, self._batch), units_of(len(prompt_ids), self.rows_together)
        if isinstance(self.engine, ServerEngine) and self.engine.overlaps:
            with self._engine_ready("train"), self._timed("generate", "train"), self.while_reading():
                self._completions = self.engine.sample_and_read(prompt_ids, seeds, group, read, units)
        else:
            self._completions = self._sample(prompt_ids, seeds, group, "train")
            self.on_phase(PHASES["reward"])
            with self.while_reading():
                read(units, self._completions)
        return [list(c.token_ids) for c in self._completions], [list(c.logprobs) for c in self._completions]

    def answer(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """Return one completion of the current policy per row, drawn as told; every process calls it."""
        completions = self._sample(prompts, seeds, 1, "eval", sampling)
        self._metrics["eval"].clear()
        return completions

    def _sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        group: int,
        mode: str,
        sampling: Sampling | None = None,
    ) -> list[Completion]:
        with self._engine_ready(mode), self._timed("generate", mode):
            return self.engine.sample(prompts, seeds, group, sampling)

    @contextmanager
    def _engine_ready(self, mode: str) -> Iterator[None]:
        """Open the engine with the current weights. A failure in it ends the run; a checkpoint is kept."""
        try:
            if self._last_loaded_step != self.state.global_step:
                with self._timed("sync", mode):
                    self.engine.sync_weights()
                self._last_loaded_step = self.state.global_step
            if self._first_check is not None:
                check, self._first_check = self._first_check, None
                self.on_phase(FIRST_CHECK)
                check_before_first_step(self, check)
            yield
        except (GenerationError, NotFinite) as error:  # on every process
            if isinstance(error, NotFinite) or self.broken_weights():  # nothing of this policy is to be kept
                step = self.state.global_step + (mode == "train")
                self.end_training(step, f"generation fails ({first_line(error)})", {"reward": math.nan})
            kept = self._keep_trained()
            raise type(error)(f"{error}\n{kept}" if kept else str(error)) from error

    def _keep_trained(self) -> str | None:
        """Write a checkpoint of the last whole step, unless there is one; return where it is.

        Samples are drawn before anything of the next step is computed, so it goes on as if nothing had been.
        """
        assert self.args.output_dir is not None
        step = self.state.global_step
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        if not step:
            return None
        if not on_main_process(self.accelerator, (folder / TRAINER_STATE_NAME).is_file):
            self.on_phase("saving")
            self._save_checkpoint(self.model, None)
            self.callback_handler.on_save(self.args, self.state, self.control)
        return f"step {step} of {self.state.max_steps} is kept in {folder}: resume_from=latest goes on there"

    def _seed(self, phase: int, row: int) -> int:
        return spread_seed(self.args.seed, phase, self.state.global_step, row)

    # ---- reward -----------------------------------------------------------------------------------

    def rlt(
        self, *, completion_ids: list[list[int]], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float | None]:
        """Return the reward of each completion; TRL calls this. None where it is no number."""
        assert len(completion_ids) == len(self._batch), "one completion per row of the batch"
        with self._timed("reward", "train"):
            measured = [self._values[row].measured for row in range(len(self._batch))]
            self._scores = self.judge(self._batch, self._completions, measured)
        with self.meter.span(WAIT):  # for the rewards of the others, which TRL gathers next
            self.accelerator.wait_for_everyone()
        for score in self._scores:
            if is_scorable(score):
                for name, value in score.parts.items():
                    log_metric(name, value)
            log_metric("unscorable", float(not is_scorable(score)))
        return [score.reward if is_scorable(score) else None for score in self._scores]

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards = super()._calculate_rewards(*args, **kwargs)  # of all processes
        if rewards.isnan().all():
            what = f"no completion of this step has a finite reward ({self.without_reward})"
            self.end_training(self.state.global_step + 1, what, {"reward": math.nan})
        return rewards

    # ---- loss, drift, logs ------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        if self._last_loaded_step == self.state.global_step:  # the engine holds this very policy
            sampled, mask = inputs["sampling_per_token_logps"], inputs["completion_mask"].bool()
            self._drift.add(self._loss_logprobs, sampled, mask)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the engine drift since the last call, and warn when it passes its limit."""
        if self.policy.training and math.isfinite(logs.get("loss", math.nan)):
            logs.update(self._drift.metrics())
            logs.update(self._ratios.metrics())
        super().log(logs, start_time)

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

    # ---- samples ----------------------------------------------------------------------------------

    def _rows(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        scores: Sequence[Score],
    ) -> list[dict[str, Any]]:
        """Return one row for each completion."""
        decode = self.layout.tokenizer.decode
        return [
            sample_row(i.problem, c, str(decode(list(c.token_ids))), s) | self.tell(i.problem, c)
            for i, c, s in zip(items, completions, scores, strict=True)
        ]

    def _store(self, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write the rows of all processes, and return them."""
        gathered: list[dict[str, Any]] = gather_object(rows)
        if self.accelerator.is_main_process:
            number_samples(gathered)
            self._write_samples(name, gathered)
        return gathered

    # ---- evaluation -------------------------------------------------------------------------------

    def evaluate(
        self,
        eval_dataset: Any = None,  # noqa: ARG002 - held-out problems are given to the constructor
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return the mean reward and its parts over the held-out problems, each counted once.

        Samples depend on the run's seed, the problem and the weights only; no generator of the training
        run is read or moved.
        """
        group = self.settings.eval_num_generations
        mine = range(self.accelerator.process_index, len(self._data.held_out), self.accelerator.num_processes)
        items = [self._data.held_out[i] for i in mine for _ in range(group)]
        # The seed leaves the step out: the same randomness before and after training pairs the samples.
        seeds = [spread_seed(self.args.seed, _EVAL, i, k) for i in mine for k in range(group)]
        start = time.perf_counter()
        completions = self._sample([item.prompt_ids for item in items], seeds, group, "eval")
        scores = self.score(items, completions)
        rows = self._rows(items, completions, scores)
        self._store(f"eval_step_{self.state.global_step:06d}", rows)
        metrics = mean_parts(gather_object(scores), metric_key_prefix)
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - start
        self._metrics["eval"].clear()
        super(GRPOTrainer, self).log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ---- checkpoints ------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # First: transformers writes the file that marks a whole checkpoint, then removes older ones.
        assert self.args.output_dir is not None
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        on_main_process(self.accelerator, lambda: self.monitors.save(folder))
        for moving in self.moving_models:
            moving.save(folder)
        super()._save_checkpoint(model, trial)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: the stage writes the run's card."""


def _indexed(problems: Sequence[PromptedProblem]) -> Dataset:
    """Return rows as TRL wants them, with a `prompt`; problem and ids are looked up by `index`."""
    return Dataset.from_dict({"prompt": [""] * len(problems), "index": list(range(len(problems)))})


class _EvaluateAtTheEnd(TrainerCallback):
    """Evaluates after the last step, whatever eval_steps is."""

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Ask for an evaluation after the last step."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
