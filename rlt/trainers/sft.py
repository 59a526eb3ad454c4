"""Supervised fine-tuning: TRL's trainer on rows whose labels say what the loss counts.

The loss of an optimizer step is a sum over the tokens of its rows, so their order within the step does not
matter: rows of like length share a pass. Rows stay on their process: which rows a process averages over is
part of the recipe (`average_tokens_across_devices`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import RandomSampler
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from typing_extensions import override

from rlt.models.zero_init import buffers_left_alone, warn_of_rounded_parameters
from rlt.trainers.order import Places, RowSampler
from rlt.trainers.own_loss import IGNORED, adapters_on_the_head, hold_to_own_head
from rlt.trainers.recompute import SelectiveRecompute

Row = dict[str, list[int]]


@dataclass(frozen=True)
class SFTData:
    """Rows that hold `input_ids` and `labels`: to train on, and held-out ones (may be none)."""

    train: Sequence[Row]
    held_out: Sequence[Row] | None
    places: Places
    """Of `train` in its dataset."""


class FineTuner(SelectiveRecompute, SFTTrainer):
    """TRL's trainer on the model's own logits, ending where a number is none, in narrow passes."""

    places: Places
    """Of the rows in their dataset."""
    _shares: list[float]
    """Of the passes of a step that are still to come: the loss's tokens in each, 1 on average."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """The arguments are those of SFTTrainer."""
        with adapters_on_the_head():
            super().__init__(*args, **kwargs)
        assert self.model is not None, "the constructor has made it"
        with self.accelerator.autocast():
            hold_to_own_head(self.model)

    @override
    def _get_train_sampler(self, *dataset: Any, **named: Any) -> Any:
        """Return the order of rows.

        Overridden because transformers shuffles the rows that are left; see order.py. Another strategy than a
        random order (trainer_args.train_sampling_strategy) stays what it is.
        """
        sampler = super()._get_train_sampler(*dataset, **named)
        if type(sampler) is not RandomSampler:
            return sampler
        return RowSampler(self.places, self.args.data_seed or 0, lambda: int(self.state.epoch or 0))

    @override
    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Return the micro-batches of one optimizer step, dealt by length, and the tokens of its loss.

        Overridden because transformers takes the rows of each micro-batch in the loader's order: one long
        row makes its neighbours as wide as itself. The auxiliary loss of a mixture of experts is a mean over
        a micro-batch, so its rows stay where they are.
        """
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if num_items is not None and not self.aux_loss_enabled:
            batches = self._by_length(batches)
        counts = torch.stack([(batch["labels"][:, 1:] != IGNORED).sum() for batch in batches])
        counts: Any = self.accelerator.reduce(counts.to(self.accelerator.device), "sum")
        self._shares = (counts * len(batches) / counts.sum().clamp(min=1)).tolist()
        return batches, num_items

    @override
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a micro-batch.

        Overridden for the metrics that TRL averages over micro-batches, whatever each holds: where rows are
        dealt by length, short rows would count more than long ones. Here each token counts once.
        """
        result = super().compute_loss(model, inputs, *args, **kwargs)
        assert self.model is not None, "the constructor has made it"
        if self.model.training:
            share = self._shares.pop(0)
            for name in ("entropy", "mean_token_accuracy"):
                self._metrics["train"][name][-1] *= share
        return result

    def _by_length(self, batches: Sequence[Any]) -> list[Any]:
        """Return the rows of some batches in batches of the same sizes, the longest rows in the first one."""
        rows = [row for batch in batches for row in rows_of(batch)]
        rows.sort(key=lambda row: -len(row["input_ids"]))  # stable: a resumed run has the same order
        remaining = iter(rows)
        return [self.data_collator([next(remaining) for _ in batch["input_ids"]]) for batch in batches]

    @override
    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: TRL would put its own beside each checkpoint, and the stage writes the run's."""


def rows_of(batch: Any) -> list[Row]:
    """Return the rows of a padded batch as they were before it."""
    is_real_BT = batch["attention_mask"].bool().cpu()
    names = ("input_ids", "labels")
    values = [[v[real].tolist() for v, real in zip(batch[n].cpu(), is_real_BT, strict=True)] for n in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def make_sft_trainer(
    model: str,
    arguments: dict[str, Any],
    *,
    data: SFTData,
    tokenizer: PreTrainedTokenizerBase,
    peft_config: Any = None,
) -> FineTuner:
    """Return a trainer of the rows; `arguments` are those of SFTConfig."""
    args = SFTConfig(**arguments)  # first: it tells transformers that ZeRO-3 is on
    with buffers_left_alone():
        trainer = FineTuner(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(list(data.train)),
            eval_dataset=Dataset.from_list(list(data.held_out)) if data.held_out else None,
            processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
            peft_config=peft_config,
        )
    trainer.places = data.places
    if trainer.is_deepspeed_enabled:
        warn_of_rounded_parameters(trainer.model, "a start with ddp")
    return trainer
