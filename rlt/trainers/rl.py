"""GRPO as both RL stages run it: a thin subclass of TRL's trainer that does not know what is paid for.

What differs from `GRPOTrainer`:
- prompts are token ids made by a layout, never re-tokenised text;
- completions come from our engine (any number of servers, or the policy itself), maybe written while the step
  before is learnt from (generating.py);
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.grpo_config import GRPOConfig

from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.generation.collective import on_main_process
from rlt.generation.types import Sampling
from rlt.models.zero_init import buffers_left_alone, warn_of_rounded_parameters
from rlt.records import Completion, Problem, Score
from rlt.rewards.likelihood import is_scorable
from rlt.rundir.metrics import GENERATED
from rlt.rundir.samples import SampleRow
from rlt.surroundings.timeline import WAIT
from rlt.trainers.alarms import Alarms
from rlt.trainers.drift_log import DriftLog
from rlt.trainers.engine import policy_for_generation
from rlt.trainers.generating import Generating
from rlt.trainers.grpo_base import GRPOTrainer
from rlt.trainers.held_out import EvaluateAtTheEnd, evaluate_held_out
from rlt.trainers.monitor_limits import LimitsOf
from rlt.trainers.monitors import Monitors
from rlt.trainers.order import GroupSampler
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.reading import completion_requests, rows_together, sampled_mask
from rlt.trainers.reference import MovingReference
from rlt.trainers.rl_parts import RLData, RLParts, RLSettings, indexed
from rlt.trainers.sample_rows import lengths_by_ending, number_samples, sample_row

Layout = TypeVar("Layout", TeacherLayout, StudentLayout)


class RLTrainer(Generating, ABC, Generic[Layout]):
    """Trains a policy by RL; subclasses implement `score` (the reward) and `tell` (the logged columns)."""

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
                reward_funcs=[self.total],
                args=args,
                train_dataset=indexed(data.train),
                eval_dataset=indexed(data.held_out) if data.held_out else None,
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
            self.add_callback(EvaluateAtTheEnd())
        self.generated_tokens = 0
        self.on_phase: Callable[[str], None] = lambda phase: None  # noqa: ARG005 - nobody listens
        alarms = Alarms(speaks=self.accelerator.is_main_process)
        self._drift = DriftLog(alarms, settings.drift_limit, settings.drift_error)
        assert self.num_generations is not None
        limits = type(self).limits
        self.monitors = Monitors(settings.monitors, alarms, group=self.num_generations, limits=limits)
        self.reference: MovingReference | None = None
        if self.ref_model is not None and settings.ref_sync_steps:
            every, share = settings.ref_sync_steps, settings.ref_mixup
            self.reference = MovingReference(
                self.policy, self.ref_model, self.accelerator, every=every, share=share
            )
            self.add_callback(self.reference)

    @property
    def moving_models(self) -> list[MovingReference]:
        """The models that follow the policy, which checkpoints hold."""
        return [] if self.reference is None else [self.reference]

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
    def tell(self, problem: Problem, completion: Completion) -> SampleRow:
        """Return the columns of a sample's row that depend on the layout: its texts, and what they show."""

    # TRL's repeats each prompt for its group and shuffles the rows that it is given. Ours keeps that (it
    # wraps TRL's RepeatSampler) but shuffles places in the dataset: a skipped row would otherwise change the
    # order of all others. It breaks if `RepeatSampler` no longer yields indices of whole groups.
    def _get_train_sampler(self, *dataset: Any, **named: Any) -> GroupSampler:
        sampler: Any = super()._get_train_sampler(*dataset, **named)
        self._order = GroupSampler(sampler, self._data.places, lambda: int(self.state.epoch or 0))
        return self._order

    # TRL's generates, scores and makes the advantages of one generation batch. Ours passes it which problems
    # its rows are (TRL knows a `prompt` and an `index` alone) and stores the samples with their advantages.
    # TRL's own `mask_truncated_completions` looks for an end-of-turn token, which a completion that was
    # stopped at its tag lacks, so the mask is made here, by finish_reason, and `num_items_in_batch` with it.
    # It breaks if the output loses `advantages`, `completion_mask` or `num_items_in_batch`.
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._batch = [self._data.train[row["index"]] for row in inputs]
        output = super()._generate_and_score_completions(inputs)
        if self.settings.mask_truncated:
            is_whole = [c.finish_reason != "length" for c in self._completions]
            output["completion_mask"] *= torch.tensor(is_whole, device=self.accelerator.device).unsqueeze(1)
            counted: Any = self.accelerator.gather(output["completion_mask"].sum())
            output["num_items_in_batch"] = counted.sum()
        rows = self.rows(self._batch, self._completions, self._scores)
        if self.compares_rewards:
            for row, advantage in zip(rows, output["advantages"].tolist(), strict=True):
                row["advantage"] = advantage
        first = self.accelerator.process_index * len(rows)
        for row, staleness in zip(rows, self._staleness[first : first + len(rows)], strict=True):
            row["staleness"] = staleness
        if self.settings.max_staleness:
            self._metrics["train"]["sampling/staleness"].append(fmean(self._staleness))
        step = self.state.global_step + 1
        stored = self.store(f"step_{step:06d}", rows)
        self.generated_tokens += sum(row["num_tokens"] for row in stored)
        self._metrics["train"][GENERATED] = [self.generated_tokens]  # as TRL logs its own sum, num_tokens
        for name, value in self.monitors.observe(stored, step).items():
            self._metrics["train"][name].append(value)
        return output

    # TRL's applies the chat template to the text of each prompt. Ours hands over the ids of our layout, which
    # are never made from text again. It breaks if `_generate` asks for other than ids, images and fields.
    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        assert len(prompts) == len(self._batch), "one prompt per row of the batch"
        return [item.prompt_ids for item in self._batch], None, {}

    # TRL's calls the two methods around this one and logs lengths; it takes every completion without an
    # end-of-turn token for cut. Ours corrects those four metrics by finish_reason. It breaks if TRL renames
    # them (KeyError) or appends them elsewhere.
    def _generate(self, prompts: list[Any]) -> Any:
        output = super()._generate(prompts)
        for name, value in lengths_by_ending(self._completions).items():
            self._metrics["train"][f"completions/{name}"][-1] = value
        return output

    def policy_for_generation(self) -> AbstractContextManager[Any]:
        """Return a context with the plain policy, its weights gathered under ZeRO-3."""
        return policy_for_generation(self)

    def answer(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """Return one completion of the current policy per row, sampled as asked; every process calls it."""
        completions = self.sample(prompts, seeds, 1, "eval", sampling)
        self._metrics["eval"].clear()
        return completions

    # The one reward function that TRL is given. It is named by what TRL logs it as, `rewards/total/mean`: TRL
    # takes `__name__` for the name of the metric. It would hand over texts too; ours reads the completions
    # that `_generate_single_turn` has kept, whose token ids are those that were sampled.
    def total(
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

    # TRL's calls the reward functions and gathers their values; a row without a value is NaN, and it warns.
    # Ours ends the run where no row of the step has one: every advantage would be NaN, and the weights after
    # it.
    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards = super()._calculate_rewards(*args, **kwargs)  # of all processes
        if rewards.isnan().all():
            what = f"no completion of this step has a finite reward ({self.without_reward})"
            step = self.state.global_step + 1
            self.end_training(step, what, {"reward": math.nan}, change="that put right")
        return rewards

    # TRL's runs the policy with gradients and makes the loss. Ours compares the log-probabilities of that
    # very pass (narrow.py keeps them) with the sampled ones, so that drift costs no pass of its own. It
    # breaks if the inputs lose `sampling_per_token_logps`, which TRL has only with `use_vllm` (see the
    # constructor).
    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        if not any(self._staleness):  # this very policy has sampled them
            sampled, mask = inputs["sampling_per_token_logps"], sampled_mask(inputs)
            self._drift.add(self._loss_logprobs, sampled, mask.bool())
        return loss

    # TRL's adds the means of `_metrics`. Ours adds the drift and the ratios first, in the lines that have a
    # loss.
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the engine drift since the last call, and warn when it passes its limit."""
        if self.policy.training and math.isfinite(logs.get("loss", math.nan)):
            logs.update(self._drift.metrics())
            logs.update(self._ratios.metrics())
        super().log(logs, start_time)

    def rows(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        scores: Sequence[Score],
    ) -> list[SampleRow]:
        """Return one row for each completion."""
        decode = self.layout.tokenizer.decode
        return [
            sample_row(i.problem, c, str(decode(list(c.token_ids))), s) | self.tell(i.problem, c)
            for i, c, s in zip(items, completions, scores, strict=True)
        ]

    def store(self, name: str, rows: list[SampleRow]) -> list[SampleRow]:
        """Write the rows of all processes, and return them."""
        gathered: list[SampleRow] = gather_object(rows)
        if self.accelerator.is_main_process:
            number_samples(gathered)
            self._write_samples(name, gathered)
        return gathered

    # TRL's runs its loss over the evaluation set in batches, with rewards as they come. Ours replaces it:
    # each problem counts once whatever the number of processes, with seeds of its own. `super(GRPOTrainer,
    # self).log` goes past TRL's `log`, which would add training metrics that are waiting for their own line.
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
        metrics = evaluate_held_out(self, self._data.held_out, metric_key_prefix)
        self._metrics["eval"].clear()
        super(GRPOTrainer, self).log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # TRL's writes a model card and calls transformers'. Ours writes the monitors, the reference and what
    # older weights have written of the next step too, without which a resumed run would differ.
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # First: transformers writes the file that marks a whole checkpoint, then removes older ones.
        assert self.args.output_dir is not None
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        on_main_process(self.accelerator, lambda: self.monitors.save(folder))
        for moving in self.moving_models:
            moving.save(folder)
        self._save_written_ahead(folder)
        super()._save_checkpoint(model, trial)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: TRL's would be beside each checkpoint, and the stage writes the run's card."""
