"""Evaluation of an RL policy on held-out problems while it trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlt.generation.seeds import spread_seed
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.sample_rows import mean_parts

if TYPE_CHECKING:
    from rlt.trainers.rl import RLTrainer

EVAL_SEED = 1
"""What the seeds of held-out samples are spread by; those of training by 0."""


def evaluate_held_out(
    trainer: RLTrainer[Any], held_out: Sequence[PromptedProblem], prefix: str
) -> dict[str, float]:
    """Return the mean reward and its parts over the problems, each counted once; every process calls it."""
    accelerator, group = trainer.accelerator, trainer.settings.eval_num_generations
    mine = range(accelerator.process_index, len(held_out), accelerator.num_processes)
    items = [held_out[i] for i in mine for _ in range(group)]
    # The seed leaves the step out: the same randomness before and after training pairs the samples.
    seeds = [spread_seed(trainer.args.seed, EVAL_SEED, i, k) for i in mine for k in range(group)]
    start = time.perf_counter()
    completions = trainer.sample([item.prompt_ids for item in items], seeds, group, "eval")
    scores = trainer.score(items, completions)
    trainer.store(f"eval_step_{trainer.state.global_step:06d}", trainer.rows(items, completions, scores))
    metrics = mean_parts(gather_object(scores), prefix)
    metrics[f"{prefix}_runtime"] = time.perf_counter() - start
    return metrics


class EvaluateAtTheEnd(TrainerCallback):
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
