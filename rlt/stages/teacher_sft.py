"""Teacher warm-up: supervised fine-tuning on explanations, loss on the explanation only.

Each row is the teacher's prompt (system, question, solution) and what it should write: explanation, end tag,
end of turn (method section 4).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlt.config.schema import Config
from rlt.config.validate import check_lengths
from rlt.data.kept import KeptRows
from rlt.data.lengths import LengthRule, fit_lengths
from rlt.data.load import load_eval_problems, load_problems
from rlt.data.prompts import teacher_prompt
from rlt.formats.layout import TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.models.load import load_context, load_tokenizer
from rlt.records import Problem
from rlt.reporting.console import shorten_middle
from rlt.stages.common import (
    is_main_process,
    observe,
    progress,
    resume_point,
    run_context,
    run_directory,
    set_later_checkpoints_aside,
    start_step,
    write_skipped,
)
from rlt.trainers.arguments import sft_arguments
from rlt.trainers.epochs import train
from rlt.trainers.final_model import generation_config, save_final_model
from rlt.trainers.lora import lora_config
from rlt.trainers.teacher_sft import IGNORED, Row, make_sft_trainer

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Train the teacher on reasoning traces and write the model that teacher_rl starts from."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.data.eval_path,
    }
    with run_directory(config, inputs) as record:
        checkpoint = resume_point(config)

        # 1. Text: tokenizer and layout.
        trust = config.model.trust_remote_code
        tokenizer = load_tokenizer(config.model_name_or_path, revision=config.model.revision, trust=trust)
        tags = TAG_STYLES[config.layout.tags]
        layout = TeacherLayout(tokenizer, tags, teacher_prompt(config.layout.teacher_prompt, tags))
        context = load_context(config.model_name_or_path, revision=config.model.revision, trust=trust)
        check_lengths(config, context, {})

        # 2. Rows: problems with traces, as ids and labels, within the length limit.
        loaded = load_problems(config.data, config.dataset_id_or_path, tags, need_trace=True)
        held_out = load_eval_problems(config.data, config.dataset_id_or_path, tags, need_trace=True)
        rows = sft_rows(loaded, layout, config)
        eval_rows = sft_rows(held_out, layout, config) if held_out else None
        num_skipped = write_skipped(config, rows, eval_rows)
        show_targets(layout, rows.values[:3])

        # 3. Model and trainer.
        output = Path(config.output_dir)
        if is_main_process():
            set_later_checkpoints_aside(output, start_step(checkpoint))
        trainer = make_sft_trainer(
            config.model_name_or_path,
            sft_arguments(config, run_context(config)),
            rows=rows.values,
            eval_rows=eval_rows.values if eval_rows else None,
            tokenizer=tokenizer,
            peft_config=lora_config(config.model.lora),
        )
        model: Any = trainer.model
        model.generation_config = generation_config(tokenizer, layout.stop_token_ids, config.temperature)
        observe(trainer, config)

        # 4. Train, and write the model.
        train(trainer, checkpoint)
        save_final_model(model, trainer.accelerator, tokenizer, output)
        record.update(rows=len(rows.items), skipped=num_skipped)


@dataclass(frozen=True)
class Target:
    """A prompt and what the teacher should write after it, in token ids."""

    prompt_ids: list[int]
    completion_ids: list[int]
    num_explanation: int
    """Tokens of the completion before its end tag."""

    @property
    def num_tokens(self) -> int:
        """The length of the whole row."""
        return len(self.prompt_ids) + len(self.completion_ids)

    def shorten(self, excess: int) -> Target | None:
        """Return the row cut inside its explanation, at least `excess` tokens shorter; None if none is left.

        It has no end tag: the model must not learn to stop there.
        """
        room = self.num_explanation - excess
        return replace(self, completion_ids=self.completion_ids[:room]) if room > 0 else None

    def as_row(self) -> Row:
        """Return `input_ids`, and `labels` that cover explanation, end tag and end of turn."""
        labels = [IGNORED] * len(self.prompt_ids) + self.completion_ids
        return {"input_ids": self.prompt_ids + self.completion_ids, "labels": labels}


def sft_rows(problems: KeptRows[Problem], layout: TeacherLayout, config: Config) -> KeptRows[Row]:
    """Return the training row of each problem that fits."""

    def lay_out(problem: Problem) -> Target:
        assert problem.reasoning_trace is not None, "load_problems was asked for traces"
        completion = layout.completion_ids(problem.reasoning_trace)
        return Target(layout.prompt_ids(problem), completion, len(layout.split(completion).token_ids))

    targets = problems.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    rule = LengthRule[Target]("tokens", lambda t: t.num_tokens, config.data.max_length, "data.max_length")
    return fit_lengths(targets, [rule], config.data, Target.shorten).map(Target.as_row)


def show_targets(layout: TeacherLayout, rows: Sequence[dict[str, list[int]]]) -> None:
    """Print what the loss counts in each row: explanation, end tag, end of turn, nothing else."""
    for number, row in enumerate(rows, start=1):
        target = layout.tokenizer.decode([i for i in row["labels"] if i != IGNORED])
        logger.info("the loss counts this text of row %d:\n%s", number, shorten_middle(str(target), 1200))
