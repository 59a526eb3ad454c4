"""Teacher warm-up: supervised fine-tuning on explanations, loss on the explanation only.

Each row is the teacher's prompt (system, question, solution) and what it should write: explanation, end tag,
end of turn (method section 4).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlt.config.schema import Config
from rlt.data.lengths import LengthRule, plan_lengths
from rlt.data.load import load_eval_problems, load_problems
from rlt.data.prompts import teacher_prompt
from rlt.formats.layout import TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.models.load import load_tokenizer
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
)
from rlt.trainers.arguments import sft_arguments
from rlt.trainers.epochs import train
from rlt.trainers.final_model import generation_config, save_final_model
from rlt.trainers.lora import lora_config
from rlt.trainers.teacher_sft import IGNORED, make_sft_trainer

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Train the teacher on reasoning traces and write the model that teacher_rl starts from."""
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

        # 2. Rows: problems with traces, as ids and labels, within the length limit.
        loaded = load_problems(config.data, config.dataset_id_or_path, tags, need_trace=True)
        held_out = load_eval_problems(config.data, config.dataset_id_or_path, tags, need_trace=True)
        rows = sft_rows(loaded.problems, layout, config)
        eval_rows = sft_rows(held_out.problems, layout, config) if held_out else None
        show_targets(layout, rows[:3])

        # 3. Model and trainer.
        output = Path(config.output_dir)
        if is_main_process():
            set_later_checkpoints_aside(output, start_step(checkpoint))
        trainer = make_sft_trainer(
            config.model_name_or_path,
            sft_arguments(config, run_context(config)),
            rows=rows,
            eval_rows=eval_rows,
            tokenizer=tokenizer,
            peft_config=lora_config(config.model.lora),
        )
        model: Any = trainer.model
        model.generation_config = generation_config(tokenizer, layout.stop_token_ids, config.temperature)
        observe(trainer, config)

        # 4. Train, and write the model.
        train(trainer, checkpoint)
        save_final_model(model, trainer.accelerator, tokenizer, output)
        record.update(rows=len(rows), skipped=len(loaded.skipped))


def sft_rows(
    problems: Sequence[Problem], layout: TeacherLayout, config: Config
) -> list[dict[str, list[int]]]:
    """Return `input_ids` and `labels` of each problem that fits.

    Labels cover explanation, end tag and end of turn. A row cut by data.on_long_row=truncate ends inside its
    explanation, without end tag: the model must not learn to stop there.
    """
    prompts, completions, explanations = [], [], []
    for problem in progress(problems, "tokenising"):
        assert problem.reasoning_trace is not None, "load_problems was asked for traces"
        prompts.append(layout.prompt_ids(problem))
        completions.append(layout.completion_ids(problem.reasoning_trace))
        explanations.append(len(layout.split(completions[-1]).token_ids))
    totals = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    rule = LengthRule("tokens", totals, config.data.max_length, "data.max_length")
    plan = plan_lengths([rule], config.data.on_long_row, explanation_lengths_N=explanations)
    for report in plan.reports:
        logger.info("%s", report)
    rows = []
    for i in plan.kept:
        completion = completions[i]
        if i in plan.explanation_limits:
            completion = completion[: plan.explanation_limits[i]]
        labels = [IGNORED] * len(prompts[i]) + completion
        rows.append({"input_ids": prompts[i] + completion, "labels": labels})
    return rows


def show_targets(layout: TeacherLayout, rows: Sequence[dict[str, list[int]]]) -> None:
    """Print what the loss counts in each row: explanation, end tag, end of turn, nothing else."""
    for number, row in enumerate(rows, start=1):
        target = layout.tokenizer.decode([i for i in row["labels"] if i != IGNORED])
        logger.info("the loss counts this text of row %d:\n%s", number, shorten_middle(str(target), 1200))
