"""How many traces fit a context budget, and which problems need others; of the student only the tokenizer."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from rlt.config.schema import Config
from rlt.io import write_json, write_jsonl, write_text
from rlt.reporting.budget_page import draw_lengths, write_budget_page
from rlt.stages.common import is_main_process, run_directory
from rlt.stages.trace_sources import count_tokens, read_traces, source_inputs, student_lengths
from rlt.text import markdown
from rlt.traces.budget import Plan, make_plan, plan_tables, recollect_rows

logger = logging.getLogger(__name__)
RECOLLECT = "recollect.jsonl"
NO_ROOM = "no_room.jsonl"


def run(config: Config) -> None:
    """Write plan.md, plan.html, plan.json, recollect.jsonl and no_room.jsonl to the run directory."""
    inputs = {"student": config.student_model, **source_inputs(config)}
    with run_directory(config, inputs, card=None) as record:
        if not is_main_process():
            return
        # 1. Traces and their lengths.
        lengths = student_lengths(config)
        traces, num_skipped = read_traces(config, lengths.around)
        counted = count_tokens(lengths, traces)

        # 2. Plan.
        plan = make_plan(traces, counted, config.plan.max_length, config.plan.cutoffs)

        # 3. Write.
        output = Path(config.output_dir)
        write_jsonl(output / RECOLLECT, recollect_rows(plan, config.plan.recollect_samples))
        write_jsonl(output / NO_ROOM, [asdict(problem) for problem in plan.no_room])
        write_json(output / "plan.json", plan.as_dict())
        write_plan(output, plan, config)
        record.update(results=plan.as_dict(), skipped=num_skipped)


def write_plan(output: Path, plan: Plan, config: Config) -> None:
    """Write the plan for people: Markdown, page and log."""
    tables, sentences = plan_tables(plan), advice(plan, config)
    title = f"Context budget: {plan.max_length} tokens"
    blocks = [f"## {name}\n\n{markdown(rows)}" for name, rows in tables]
    text = "\n".join([f"# {title}\n", "\n\n".join(sentences) + "\n", *blocks])
    write_text(output / "plan.md", text)
    plot = draw_lengths(plan.histogram, config.plan.cutoffs, plan.max_length)
    page = write_budget_page(output / "plan.html", title, sentences, plot, tables)
    logger.info("%s\npage: %s", text.rstrip(), page)


def advice(plan: Plan, config: Config) -> list[str]:
    """Return what the numbers mean for the budget, and what to type next."""
    (budget,) = [budget for budget in plan.budgets if budget.cutoff == plan.max_length]
    sentences = [f"{budget.rows_over} of {plan.rows} rows would be truncated at {plan.max_length} tokens."]
    times = plan.rows / plan.packed
    sentences.append(
        f"Packed, they would fill {plan.packed} sequences, {times:.1f} rows in each: a batch would hold "
        f"{times:.1f} times as many rows and an epoch as many times fewer steps. That is another recipe, so "
        "student_sft does not pack."
    )
    if plan.not_well_formed:
        sentences.append(f"{plan.not_well_formed} explanations are not well-formed and cannot be chosen.")
    if budget.problems_to_choose:
        sentences.append(
            f"{budget.problems_to_choose} problems have an explanation that fits, but a row that does not. "
            "Choose what fits: run_cfg=select_traces select.rule=shortest "
            f"select.max_length={plan.max_length} student_model={config.student_model}"
        )
    if plan.to_collect:
        sentences.append(
            f"{len(plan.to_collect)} problems have no well-formed explanation that fits. Collect others: "
            f"run_cfg=collect_traces collect.only={config.output_dir}/{RECOLLECT}; traces.more=[FILE] joins "
            "them here."
        )
    if plan.no_room:
        sentences.append(
            f"{len(plan.no_room)} problems leave no room for any explanation ({NO_ROOM}): question and "
            "solution alone fill the budget."
        )
    return sentences
