"""Supervised fine-tuning: TRL's trainer on rows whose labels say what the loss counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from typing_extensions import override

from rlt.models.zero_init import buffers_left_alone, warn_of_rounded_parameters
from rlt.trainers.recompute import SelectiveRecompute

IGNORED = -100
"""The label of a token that the loss leaves out."""
Row = dict[str, list[int]]


class FineTuner(SelectiveRecompute, SFTTrainer):
    """TRL's trainer, which ends where a number is none."""

    @override
    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: TRL would put its own beside each checkpoint, and the stage writes the run's."""


def make_sft_trainer(
    model: str,
    arguments: dict[str, Any],
    *,
    rows: Sequence[Row],
    eval_rows: Sequence[Row] | None,
    tokenizer: PreTrainedTokenizerBase,
    peft_config: Any = None,
) -> FineTuner:
    """Return a trainer of rows that hold `input_ids` and `labels`; `arguments` are those of SFTConfig."""
    args = SFTConfig(**arguments)  # first: it tells transformers that ZeRO-3 is on
    with buffers_left_alone():
        trainer = FineTuner(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(list(rows)),
            eval_dataset=Dataset.from_list(list(eval_rows)) if eval_rows else None,
            processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
            peft_config=peft_config,
        )
    if trainer.is_deepspeed_enabled:
        warn_of_rounded_parameters(trainer.model, "a start with ddp")
    return trainer
