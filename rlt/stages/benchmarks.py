"""Benchmarks while a student trains: asked and graded by the code of the stage `evaluate`.

A fixed part of each task's problems is answered by the policy as it is at a step. Prompts, seeds and grading
do not depend on the training, and nothing of it is moved by them.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import Trainer

from rlt.config.rules.during_training import check_answers_fit
from rlt.config.schema import LOCAL_TASK, NO_DATASET, PLAIN_SAMPLING, Config, SubsetSettings, stage_of
from rlt.data.load import held_out_data
from rlt.errors import DataError
from rlt.evaluation.grading import RunningScore
from rlt.evaluation.items import EvalSample, plan_samples
from rlt.evaluation.protocol import Facts
from rlt.evaluation.summary import Numbers, summarize
from rlt.formats.layout import StudentLayout
from rlt.generation.collective import on_main_process
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.io import set_aside, write_json, write_jsonl
from rlt.records import Completion, Problem
from rlt.rundir.run_record import Source
from rlt.stages.common import is_main_process
from rlt.stages.engine import make_sampling
from rlt.stages.evaluate import open_graders, read_sample, sample_row
from rlt.stages.questions import ask, manifest, origins, task_input
from rlt.trainers.benchmarks import BenchmarkCallback
from rlt.trainers.engine import Answers

logger = logging.getLogger(__name__)
FOLDER = "evaluations"


@dataclass(frozen=True)
class Benchmarks:
    """What is asked at every evaluation of a run."""

    config: Config
    """Of an `evaluate` that asks the same."""
    layout: StudentLayout
    sampling: Sampling
    samples: Sequence[EvalSample]
    facts: Facts
    """manifest.json but for the model; empty where this process does not write it."""

    def measure(self, answer: Answers, accelerator: Accelerator, step: int) -> dict[str, float]:
        """Return the metrics of all tasks, on every process; what was answered is written to the run."""
        start = time.perf_counter()
        logger.info(
            "step %d: %d answers to %s", step, len(self.samples), ", ".join(self.facts.get("tasks", ()))
        )
        mine = self.samples[accelerator.process_index :: accelerator.num_processes]
        completions = answer(
            [sample.prompt_ids for sample in mine],
            [sample.seed(self.config.seed) for sample in mine],
            self.sampling,
        )
        drawn = gather_object([(s.key, c) for s, c in zip(mine, completions, strict=True)])
        numbers = on_main_process(accelerator, lambda: self._grade(dict(drawn), step))
        seconds = time.perf_counter() - start
        accuracies = "; ".join(line_of(task, of_task) for task, of_task in numbers.items())
        logger.info("step %d: %s (%.1f s)", step, accuracies, seconds)
        metrics = {k: v for task, of_task in numbers.items() for k, v in metrics_of(task, of_task).items()}
        return {**metrics, "time/benchmarks": seconds}

    def _grade(self, drawn: Mapping[tuple[Any, ...], Completion], step: int) -> dict[str, Numbers]:
        """Return the numbers of each task; samples, numbers and what they go back to are in files."""
        evaluate = self.config.evaluate
        with (
            open_graders(self.config) as graders,
            RunningScore(graders.grade, self.layout.style, evaluate.unfinished == "whole") as score,
        ):
            read = partial(
                read_sample,
                layout=self.layout,
                stop_ids=frozenset(self.sampling.stop_token_ids),
                score=score,
            )
            rows = [read(sample, drawn[sample.key]) for sample in self.samples]
            verdicts = score.verdicts()
        graded = [sample_row(s, r, verdicts[s.key]) for s, r in zip(self.samples, rows, strict=True)]
        numbers = summarize(graded)
        folder = Path(self.config.output_dir) / FOLDER / f"step_{step:06d}"
        write_jsonl(folder / "samples.jsonl", graded)
        shaped = {**asdict(self.sampling), "seed": self.config.seed}
        write_json(folder / "summary.json", {"tasks": numbers, "sampling": shaped, "step": step})
        write_json(folder / "manifest.json", {**self.facts, "model": {"step": step}})
        return numbers


def benchmark_inputs(config: Config) -> dict[str, Source | None]:
    """Return what the benchmarks are read from, for run.json; nothing while they are off."""
    if not config.evaluation.benchmarks.steps:
        return {}
    tasks = config.evaluation.benchmarks.tasks
    return {task: task_input(config, task) for task in tasks if task != LOCAL_TASK}


def load_benchmarks(
    config: Config,
    layout: StudentLayout,
    problems: Iterable[Problem],
    *,
    stop_ids: Iterable[int],
    context: int | None,
    pool: VLLMPool | None = None,
) -> Benchmarks | None:
    """Return what is asked while training; None while that is off.

    `problems` are those of the training: where each brings its system prompt, benchmarks are asked under it.
    """
    during = config.evaluation.benchmarks
    if not during.steps:
        return None
    asking = as_evaluation(config)
    own = own_prompt(layout, problems)
    tables = {
        task: ask(asking, task, layout if task == LOCAL_TASK else own, during.num_problems)
        for task in during.tasks
    }
    asked = [one for table in tables.values() for one in table.values]
    check_answers_fit(config, context, max(len(one.prompt_ids) for one in asked))
    times = dict.fromkeys(tables, during.num_samples)
    sampling = make_sampling(asking, sorted(set(stop_ids)))
    facts: dict[str, Any] = {}
    if is_main_process():
        sources = {task: task_input(asking, task) for task in tables}
        facts = manifest(asking, {}, own, sampling, tables, times)
        facts |= origins(asking, facts, sources, pool)
    return Benchmarks(asking, own, sampling, plan_samples(asked, times), facts)


def as_evaluation(config: Config) -> Config:
    """Return the configuration with which the stage `evaluate` would ask what a training asks."""
    during = config.evaluation.benchmarks
    held_out = replace(held_out_data(config), subset=SubsetSettings(), on_long_row="error")
    generation = replace(config.generation, **{**PLAIN_SAMPLING, "top_p": during.top_p}, stop_at_tag=False)
    if stage_of(config).generates:
        max_tokens = min(during.max_tokens, config.max_completion_length)
    else:  # has no engine, so the policy itself answers
        generation = replace(generation, backend="transformers")
        max_tokens = during.max_tokens
    return replace(
        config,
        dataset_id_or_path=config.evaluation.path or NO_DATASET,
        data=held_out,
        evaluate=replace(config.evaluate, tasks=during.tasks),
        generation=generation,
        temperature=during.temperature,
        max_completion_length=max_tokens,
        seed=during.seed,
    )


def own_prompt(layout: StudentLayout, problems: Iterable[Problem]) -> StudentLayout:
    """Return the layout under the system prompt that the student is trained with.

    With layout.student_prompt=from_dataset that is the one of the rows: DataError if they have several.
    """
    if layout.system_prompt is not None:
        return layout
    prompts = {problem.system or "" for problem in problems}
    if len(prompts) != 1:
        raise DataError(
            f"the training rows have {len(prompts)} different system prompts, so it is open which one the "
            "benchmarks should be asked under: give layout.student_prompt=file:PATH, or remove "
            "evaluation.benchmarks"
        )
    return layout.under(prompts.pop())


def watch_benchmarks(
    trainer: Trainer, benchmarks: Benchmarks | None, answer: Answers, start_step: int
) -> None:
    """Have the policy of a trainer answer the benchmarks; `start_step` is where the training starts."""
    if benchmarks is None:
        return
    if is_main_process():
        keep_earlier_apart(Path(benchmarks.config.output_dir) / FOLDER, start_step)
    trainer.add_callback(
        BenchmarkCallback(
            trainer,
            partial(benchmarks.measure, answer, trainer.accelerator),
            every=benchmarks.config.evaluation.benchmarks.steps,
            at_start=benchmarks.config.evaluation.at_start,
        )
    )


def keep_earlier_apart(folder: Path, step: int) -> None:
    """Make the folder fit a run that starts after `step`: at 0 an older one is set aside, else cut."""
    if step == 0:
        set_aside(folder)
    for place in folder.glob("step_*"):
        number = place.name.removeprefix("step_")
        if number.isdigit() and int(number) > step:
            shutil.rmtree(place)


def metrics_of(task: str, numbers: Numbers) -> dict[str, float]:
    """Return what is logged of a task."""
    found = {
        "accuracy": numbers["accuracy"],
        "truncated": numbers["truncated"],
        "tokens": numbers["tokens"]["mean"],
    }
    if interval := numbers["interval_95"]:
        found |= {"accuracy_low": interval[0], "accuracy_high": interval[1]}
    return {f"eval_{task}_{name}": value for name, value in found.items()}


def line_of(task: str, numbers: Numbers) -> str:
    """Return a task's score as a line of the log."""
    interval = numbers["interval_95"]
    sure = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return (
        f"{task} {100 * numbers['accuracy']:.1f}{sure} % right of {numbers['num_problems']} problems, "
        f"{100 * numbers['truncated']:.0f} % cut, {numbers['tokens']['mean']:.0f} tokens"
    )
