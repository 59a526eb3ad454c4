"""A check before the first step: the trainer scores what the engine samples near the end of the context.

After the first push every engine samples after a prompt as long as the run will ever see, and after a short
one. Policy and reference score the same tokens as the loss does. Where they differ by more than rounding, a
plain load of the weights says which side is wrong, and the run ends: it would train another network than the
one that samples. A fault of positions (rotary frequencies) shows after the long prompt alone.

Engines are asked to sample, never to score the prompt: `prompt_logprobs` of a long one holds a vocabulary of
float32 for each of its tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object

from rlt.generation.collective import on_main_process
from rlt.generation.types import Sampling
from rlt.models.plain import ids_in_a_row
from rlt.trainers.engine import LocalEngine
from rlt.trainers.first_check_verdict import FirstCheck, Judge, Scored, badness, is_partitioned

if TYPE_CHECKING:
    from rlt.trainers.rl import RLTrainer

logger = logging.getLogger(__name__)

NUM_SAMPLED = 64
"""Tokens that are sampled after each prompt."""
NUM_SHORT = 64
"""Tokens of the short prompt, which sees no fault of positions."""
_SEED = 0


def check_prompts(prompts: Iterable[Sequence[int]], length: int) -> list[list[int]]:
    """Return prompts of real ids: one that leaves the last tokens of `length` to be sampled, and a short one.

    The long one is the prompts of the data in a row; the short one is its end, and is skipped where it would
    not be much shorter.
    """
    size = length - num_sampled(length)
    long = ids_in_a_row(prompts, size)
    return [long, long[-NUM_SHORT:]] if size >= 2 * NUM_SHORT else [long]


def num_sampled(length: int) -> int:
    """Return how many tokens are sampled at the end of a context."""
    return min(NUM_SAMPLED, length // 2)


def check_before_first_step(trainer: RLTrainer[Any], check: FirstCheck) -> None:
    """Raise on every process where engine, policy and reference differ by more than rounding; collective.

    An engine that is the policy itself shares its faults. What a sharded policy computes is then compared
    with a plain load.
    """
    prompts = check_prompts((item.prompt_ids for item in trainer.problems), check.length)
    scored = _score(trainer, check, prompts)
    worst = max(scored, key=badness)
    record = {
        "limit": check.limit,
        "comparisons": [
            {
                "engine": found.engine,
                "model": found.model,
                "process": found.process,
                "after_tokens": len(prompts[found.prompt]),
                "tokens": found.drift.num_tokens,
                "mean": found.drift.mean,
                "max": found.drift.max,
            }
            for found in scored
        ],
    }
    judge = Judge(trainer, check, prompts, scored)
    if not worst.drift.mean <= check.limit:
        record["plain"] = on_main_process(trainer.accelerator, judge.settle)
    elif isinstance(trainer.engine, LocalEngine) and is_partitioned(trainer):
        record["plain"] = on_main_process(trainer.accelerator, judge.compare_models)
    if not trainer.accelerator.is_main_process:
        return
    check.note(record)
    if worst.drift.mean <= check.limit:
        logger.info(
            "before the first step: engine and trainer agree up to the end of the context: log-probabilities "
            "of %d tokens after %d differ by %.2g on average (limit %g)",
            *(len(worst.tokens), len(prompts[worst.prompt]), worst.drift.mean, check.limit),
        )


def _score(trainer: RLTrainer[Any], check: FirstCheck, prompts: list[list[int]]) -> list[Scored]:
    """Return what was sampled and scored on all processes; each runs the same number of forward passes."""
    # Plain settings: with top_p, say, the samples of a step are not the policy's own.
    sampling = Sampling(check.temperature, num_sampled(check.length), ())
    models = {"policy": trainer.model}
    if trainer.ref_model is not None and check.is_fresh:
        models["reference"] = trainer.ref_model
    mine = []
    for engine, completions in trainer.engine.sample_each(prompts, sampling, _SEED):
        for index, completion in enumerate(completions):
            tokens = completion.token_ids
            for name, model in models.items():
                values = trainer.loss_logprobs(model, [*prompts[index], *tokens], len(tokens)).tolist()
                process = trainer.accelerator.process_index
                mine.append(Scored(engine, name, process, index, tokens, completion.logprobs, tuple(values)))
    return gather_object(mine)
