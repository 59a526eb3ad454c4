"""Teacher warm-up: supervised fine-tuning on explanations, loss on the explanation only.

Each row is the teacher's prompt (system, question, solution) and what it should write: explanation, end tag,
end of turn (method section 4).
"""

from __future__ import annotations

import logging
from pathlib import Path

from rlt.config.files import is_here
from rlt.config.rules.lengths import check_lengths
from rlt.config.schema import Config
from rlt.data.kept import KeptRows
from rlt.data.load import count_overlap
from rlt.formats.layout import TeacherLayout
from rlt.models.load import load_context, load_tokenizer
from rlt.records import Problem
from rlt.stages.common import is_main_process, resume_point, run_directory, write_skipped
from rlt.stages.layouts import teacher_layout, teacher_record
from rlt.stages.problems import read_held_out, read_problems
from rlt.stages.sft import Target, fine_tune, fit_rows, sft_data, show_targets, warn_of_short_steps
from rlt.stages.turn_ends import check_ends, count_ends
from rlt.trainers.final_model import SavedWith, generation_config
from rlt.trainers.sft import Row

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Train the teacher on reasoning traces and write the model that teacher_rl starts from."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.evaluation.path,
    }
    with run_directory(config, inputs) as record:
        checkpoint = resume_point(config)

        # 1. Text: problems with traces, as ids and labels, within the length limit.
        layout, rows, eval_rows = read_text(config)
        num_skipped = write_skipped(config, rows, eval_rows)
        show_targets(layout.tokenizer, rows.values[:3])
        num_ends = count_ends(rows.values, layout.chat.end_of_turn_id, "teacher")

        # 2. Train, and write the model.
        generation = generation_config(layout.tokenizer, layout.stop_token_ids, config.temperature)
        fine_tune(
            config,
            sft_data(rows, eval_rows, checkpoint, record),
            tokenizer=layout.tokenizer,
            saved=SavedWith(generation, teacher_record(config, layout)),
            checkpoint=checkpoint,
        )
        if is_main_process():
            ends = layout.stop_token_ids
            logger.info("%s", check_ends(Path(config.output_dir), ends, layout.tokenizer, "teacher"))
        record.update(rows=len(rows.items), with_an_end=num_ends, skipped=num_skipped)


def read_text(config: Config) -> tuple[TeacherLayout, KeptRows[Row], KeptRows[Row] | None]:
    """Return layout, training rows and held-out rows; raises for text that training could not use."""
    layout = read_layout(config)
    loaded, held_out = read_problems(config, need_trace=True), read_held_out(config, need_trace=True)
    if held_out:
        count_overlap(loaded.values, held_out.values)
    rows = sft_rows(loaded, layout, config)
    warn_of_short_steps(len(rows.items), config)
    return layout, rows, sft_rows(held_out, layout, config) if held_out else None


def read_layout(config: Config) -> TeacherLayout:
    """Return the teacher's layout; raises for a tokenizer, a template or a context that do not fit."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    trust, revision = config.model.trust_remote_code, config.model.revision
    tokenizer = load_tokenizer(config.model_name_or_path, revision=revision, trust=trust)
    layout = teacher_layout(config, tokenizer)
    check_lengths(config, load_context(config.model_name_or_path, revision=revision, trust=trust), {})
    return layout


def check(config: Config) -> None:
    """Raise what training would, before it loads the model, as far as model and data are on this machine."""
    layout = read_layout(config) if is_here(config.model_name_or_path) else None
    problems = read_problems(config, need_trace=True) if is_here(config.dataset_id_or_path) else None
    held_out = read_held_out(config, need_trace=True) if is_here(config.evaluation.path) else None
    if problems and held_out:
        count_overlap(problems.values, held_out.values)
    if layout and problems:
        rows = sft_rows(problems, layout, config)
        warn_of_short_steps(len(rows.items), config)
        count_ends(rows.values, layout.chat.end_of_turn_id, "teacher")
    if layout and held_out:
        sft_rows(held_out, layout, config)


def sft_rows(problems: KeptRows[Problem], layout: TeacherLayout, config: Config) -> KeptRows[Row]:
    """Return the training row of each problem that fits: prompt, explanation, end tag, end of turn."""

    def lay_out(problem: Problem) -> Target:
        assert problem.reasoning_trace is not None, "load_problems was asked for traces"
        return Target(layout.prompt_ids(problem), layout.completion_ids(problem.reasoning_trace))

    return fit_rows(problems, lay_out, config)
