"""What the two fine-tuning stages share: rows with exact labels, their training, the model at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from rlt.config.schema import Config
from rlt.data.kept import KeptRows
from rlt.data.lengths import LAST_TOKENS, LengthRule, fit_lengths, keep_shortest
from rlt.rundir.run_record import RunRecord
from rlt.stages.benchmarks import Benchmarks, watch_benchmarks
from rlt.stages.common import (
    is_main_process,
    observe,
    places_of,
    progress,
    run_context,
    start_step,
    tidy_checkpoints,
)
from rlt.text import shorten_middle
from rlt.trainers.arguments import sft_arguments
from rlt.trainers.engine import answers_of
from rlt.trainers.epochs import train
from rlt.trainers.final_model import SavedWith, save_final_model
from rlt.trainers.gradients import accumulate_gradients_in
from rlt.trainers.lora import lora_config
from rlt.trainers.recompute import recompute_above
from rlt.trainers.sft import IGNORED, Row, SFTData, make_sft_trainer

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """A prompt and what the model should write after it, in token ids."""

    prompt_ids: list[int]
    completion_ids: list[int]

    @property
    def num_tokens(self) -> int:
        """The length of the whole row."""
        return len(self.prompt_ids) + len(self.completion_ids)

    def shorten(self, excess: int) -> Target | None:
        """Return the row without its last `excess` tokens, as the original's tokenizer call cuts it.

        Nothing follows the cut: the model must not learn to stop there. None if only the prompt is left, a
        row without a loss.
        """
        end = len(self.completion_ids) - excess
        return replace(self, completion_ids=self.completion_ids[:end]) if end > 0 else None

    def as_row(self) -> Row:
        """Return `input_ids`, and `labels` that cover the completion alone."""
        labels = [IGNORED] * len(self.prompt_ids) + self.completion_ids
        return {"input_ids": self.prompt_ids + self.completion_ids, "labels": labels}


def fit_rows(rows: KeptRows[T], lay_out: Callable[[T], Target], config: Config) -> KeptRows[Row]:
    """Return the training row of each item that fits data.max_length."""
    targets = rows.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    rule = LengthRule[Target]("tokens", lambda t: t.num_tokens, config.data.max_length, "data.max_length")
    fitting = fit_lengths(targets, [rule], config.data, Target.shorten)
    kept = keep_shortest(fitting, rule.measure, config.data).map(Target.as_row)
    return kept if config.data.shortest is None else kept.map(cut)


def sft_data(
    rows: KeptRows[Row], eval_rows: KeptRows[Row] | None, checkpoint: Path | None, record: RunRecord
) -> SFTData:
    """Return the rows of a run, in the order that it continues in."""
    held_out = eval_rows.values if eval_rows else None
    return SFTData(rows.values, held_out, places_of(rows, checkpoint, record))


def warn_of_short_steps(num_rows: int, config: Config) -> None:
    """Warn where the rows do not fill one step: each step then has fewer than the recipe says."""
    if num_rows < config.train_batch_size:
        logger.warning(
            "a step holds %d rows, not train_batch_size=%d: %s has no more, so each pass over it is one "
            "step; add rows, or lower train_batch_size and with it learning_rate",
            num_rows,
            config.train_batch_size,
            config.dataset_id_or_path,
        )


def cut(row: Row) -> Row:
    """Return the end of a row, for rehearsals."""
    return {"input_ids": row["input_ids"][-LAST_TOKENS:], "labels": row["labels"][-LAST_TOKENS:]}


def show_targets(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> None:
    """Print what the loss counts in each row."""
    for number, row in enumerate(rows, start=1):
        target = tokenizer.decode([i for i in row["labels"] if i != IGNORED])
        logger.info("the loss counts this text of row %d:\n%s", number, shorten_middle(str(target), 1200))


def fine_tune(
    config: Config,
    data: SFTData,
    *,
    tokenizer: PreTrainedTokenizerBase,
    saved: SavedWith,
    checkpoint: Path | None,
    benchmarks: Benchmarks | None = None,
) -> None:
    """Train on the rows from the model or a checkpoint of the run, and write the model to its directory.

    `saved` goes with the model.
    """
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    output = Path(config.output_dir)
    if is_main_process():
        tidy_checkpoints(output, start_step(checkpoint))
    trainer = make_sft_trainer(
        config.model_name_or_path,
        sft_arguments(config, run_context(config)),
        data=data,
        tokenizer=tokenizer,
        peft_config=lora_config(config.model.lora),
    )
    accumulate_gradients_in(config.trainer.grad_accum_dtype, trainer.accelerator)
    trainer.recompute_above = recompute_above(config)
    model: Any = trainer.model
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # under adapters
    plain.generation_config = saved.generation
    plain.config.eos_token_id, plain.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    observers = observe(trainer, config, saved.layout)
    if benchmarks is not None:
        answer = answers_of(trainer, tokenizer, config.evaluate.samples_per_chunk)
        watch_benchmarks(trainer, benchmarks, answer, start_step(checkpoint))
    train(trainer, checkpoint)
    observers.pause.leave()
    save_final_model(model, trainer.accelerator, tokenizer, output, saved.layout)
