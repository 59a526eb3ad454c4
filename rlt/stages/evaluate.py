"""How many problems a student answers right, and how sure that is; nothing is trained.

Every answer is on disk as soon as it is finished, and none is drawn twice. They are graded beside the
drawing, all of them again at every start: a verdict depends on the text alone.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rlt.config.files import sequence_length
from rlt.config.original.skythought import LIBRARIES, grader_paths, is_skythought
from rlt.config.schema import Config
from rlt.config.server_key import find_key
from rlt.data.own_layout import prompt_text
from rlt.data.owners import STUDENT
from rlt.evaluation.grading import RunningScore
from rlt.evaluation.items import (
    EvalSample,
    num_samples,
    plan_samples,
)
from rlt.evaluation.protocol import WHOSE
from rlt.evaluation.summary import summarize
from rlt.evaluation.table import summary_page
from rlt.evaluation.verdicts import GradingPool, Verdict
from rlt.formats.answer import read_answer
from rlt.formats.layout import StudentLayout
from rlt.generation.openai_pool import WITHHELD, OpenAIPool, Texts
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.io import describe_input, input_label, write_json, write_jsonl, write_text
from rlt.models.frozen import scoring_accelerator
from rlt.models.load import load_eos_ids
from rlt.records import Completion
from rlt.reporting.progress import SampleProgress
from rlt.rundir.run_record import Source
from rlt.stages.common import is_main_process, phases_of, run_directory, write_skipped
from rlt.stages.engine import check_servers, make_sampling, server_pool
from rlt.stages.evaluation_report import evaluation_report
from rlt.stages.questions import ask, manifest, origins, read_layout, task_input
from rlt.stages.sampling import (
    from_servers,
    in_process,
    keys_of,
    local_generator,
    save,
    still_to_draw,
    units_of,
)
from rlt.tasks.extraction import ORDERS
from rlt.tasks.math_grader import MathGrader
from rlt.traces.journal import Journal, JournalRow
from rlt.traces.manifest import Manifest

logger = logging.getLogger(__name__)
FIELDS = ("task", "problem_id", "sample_index")
CUT = "cut by its length"
NO_TEXT = "no answer: {}"
NO_LAYOUT = "not one thought and one solution in their tags"


def run(config: Config) -> None:
    """Write samples.jsonl, summary.json, summary.md, manifest.json and report.html to the run directory."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    name, revision = config.model_name_or_path, config.model.revision
    evaluate, output = config.evaluate, Path(config.output_dir)
    sources: dict[str, Source | None] = {task: task_input(config, task) for task in evaluate.tasks}
    report = partial(evaluation_report, config.evaluate)
    with run_directory(config, {"model": (name, revision), **sources}, card=None, report=report) as record:
        accelerator, phases = scoring_accelerator(), phases_of(config, "reading")

        # 1. Text: the student's prompts, and where its answers end.
        layout, context = read_layout(config)
        own_stops = load_eos_ids(name, revision=revision, trust=config.model.trust_remote_code)
        sampling = make_sampling(config, sorted({*layout.stop_token_ids, *own_stops}))

        # 2. The questions of each task, and the answers to draw.
        tables = {task: ask(config, task, layout) for task in evaluate.tasks}
        num_skipped = write_skipped(config, *tables.values())
        times = {task: num_samples(task, len(table.items), evaluate) for task, table in tables.items()}
        samples = plan_samples([asked for table in tables.values() for asked in table.values], times)

        # 3. What an earlier run has left to draw; what came before needed no server.
        pool = open_pool(config, layout)
        size = 1 if pool else evaluate.samples_per_chunk
        units = units_of(longest_first(samples), size)
        journal = Journal(output / "samples", keys_of(units), "answers", FIELDS)
        described = describe_input((name, revision))
        facts = {**manifest(config, described, layout, sampling, tables, times), **models_of(pool)}
        todo = still_to_draw(journal, units, lambda: facts)

        # 4. Draw, and grade.
        with (
            open_graders(config) as graders,
            RunningScore(graders.grade, layout.style, evaluate.unfinished == "whole") as score,
        ):
            hand_in_earlier(score, samples, journal)
            if todo:
                phases.enter("answering" if pool else "loading")
                if pool:
                    drawn = from_servers(pool, sampling, config.seed, todo, context)
                else:
                    generator = local_generator(config, layout.tokenizer, size, accelerator)
                    phases.enter("answering")
                    drawn = in_process(generator, accelerator, sampling, config.seed, todo, context)
                stops = frozenset(sampling.stop_token_ids)
                read = partial(read_sample, layout=layout, stop_ids=stops, score=score)
                at_once = pool.max_requests if pool else size
                save(drawn, todo, journal, read, clock(journal, samples, at_once, score))
            phases.enter("grading")  # what is left: most is graded while others are drawn
            verdicts = score.verdicts()

        # 5. Write.
        phases.enter("writing")
        if is_main_process():
            graded = (sample_row(s, journal.rows[s.key], verdicts[s.key]) for s in samples)
            write_jsonl(output / "samples.jsonl", graded)
            whole = {**facts, **origins(config, facts, sources, pool)}
            numbers = write_numbers(config, sampling, input_label(described), whole)
            write_json(output / "manifest.json", whole)
            record.update(results=numbers, skipped=num_skipped)


def open_pool(config: Config, layout: StudentLayout) -> VLLMPool | None:
    """Return the servers that answer, each of which has been asked; None where this process answers."""
    generation, requests = config.generation, config.evaluate.requests_per_server
    if generation.backend != "vllm":
        return None
    if generation.api == "vllm":
        pool = server_pool(config, requests)
    else:
        pool = OpenAIPool(
            generation.servers,
            timeout=generation.request_timeout,
            texts=Texts(
                encode=partial(layout.tokenizer.encode, add_special_tokens=False),
                read=layout.tokenizer.encode,
                decode=lambda ids: str(layout.tokenizer.decode(list(ids))),
            ),
            key=find_key(generation.api_key_file, own=False),
            requests_per_server=requests,
            model=generation.api_model,
            retry_seconds=generation.retry_seconds,
        )
        pool.check(config.model_name_or_path, sequence_length(config))
        return pool
    check_servers(pool, config, logprobs=False)
    return pool


def models_of(pool: VLLMPool | None) -> Manifest:
    """Return the names under which other people's servers were asked; our own, with one model, have none."""
    return {"generation.api_model": pool.models} if isinstance(pool, OpenAIPool) else {}


def open_graders(config: Config) -> GradingPool:
    """Return what grades the answers: our graders, and SkyThought's program where it is there."""
    evaluate = config.evaluate
    original = grader_paths(evaluate.original) if evaluate.original is not None else None
    if evaluate.original is not None and original is None:
        logger.warning(
            "%s holds no libraries of SkyThought's grader (%s), so there is no second verdict: "
            "scripts/setup.sh --skythought unpacks them",
            evaluate.original,
            ", ".join(LIBRARIES),
        )
    return GradingPool(ORDERS[evaluate.extraction], seconds=evaluate.grading_seconds, original=original)


def longest_first(samples: Sequence[EvalSample]) -> list[EvalSample]:
    """Return the samples in the order to draw them: a long one that starts last is waited for alone.

    Batches hold answers of about one length, with little padding.
    """
    return sorted(samples, key=lambda sample: -len(sample.prompt_ids))


def clock(
    journal: Journal, samples: Sequence[EvalSample], at_once: int, score: RunningScore
) -> SampleProgress:
    """Return the progress lines, with the running score at their end."""
    total = Counter(sample.asked.item.task for sample in samples)
    return SampleProgress(
        journal.rows.values(), total, at_once, what="evaluating", noun=journal.what, note=score.note
    )


def write_numbers(config: Config, sampling: Sampling, model: str, manifest: Manifest) -> dict[str, Any]:
    """Return the numbers of samples.jsonl, written to summary.json and, as a table, to summary.md."""
    output = Path(config.output_dir)
    asked: list[str] | None = manifest.get("generation.api_model")  # of other people's servers
    with (
        (output / "samples.jsonl").open(encoding="utf-8") as lines,
        MathGrader(config.evaluate.grading_seconds) as grader,
    ):
        numbers = summarize([json.loads(line) for line in lines], grader.grade)
    shaped = {**asdict(sampling), "seed": config.seed}
    models = {} if asked is None else {"models_asked": asked}
    whose = {name: manifest[name] for name in WHOSE}
    facts = {"sampling": shaped, "grading": manifest["grading"], **whose, **models}
    write_json(output / "summary.json", {"tasks": numbers, **facts})
    if asked is not None:
        model = f"{model}, asked as {', '.join(asked)}"
    if is_skythought(prompt_text(config, STUDENT)):
        model = f"{model}, under SkyThought's own system prompt"
    page = summary_page(numbers, model, facts, reference=config.evaluate.reference)
    write_text(output / "summary.md", page)
    logger.info("%s", page)
    return numbers


def read_sample(
    sample: EvalSample,
    completion: Completion,
    layout: StudentLayout,
    stop_ids: frozenset[int],
    score: RunningScore,
) -> dict[str, Any]:
    """Return the answer's line of the journal, and hand it in for grading."""
    ids = list(completion.token_ids)
    while ids and ids[-1] in stop_ids:
        ids.pop()
    text = str(layout.tokenizer.decode(ids))
    why = None if read_answer(text, layout.style).is_well_formed else NO_LAYOUT
    if completion.finish_reason in WITHHELD:
        why = NO_TEXT.format(completion.finish_reason)
    row = {
        **dict(zip(FIELDS, sample.key, strict=True)),
        "text": text,
        "num_tokens": len(ids),
        "finish_reason": completion.finish_reason,
        "why": CUT if completion.finish_reason == "length" else why,
    }
    hand_in(score, sample, row)
    return row


def hand_in_earlier(score: RunningScore, samples: Sequence[EvalSample], journal: Journal) -> None:
    """Have the answers graded that an earlier start has drawn."""
    for sample in samples:
        if row := journal.rows.get(sample.key):
            hand_in(score, sample, row)


def hand_in(score: RunningScore, sample: EvalSample, row: JournalRow) -> None:
    """Have an answer graded."""
    item = sample.asked.item
    score.add(sample.key, row["text"], item.problem.solution, item.grading, item.task)


def sample_row(sample: EvalSample, drawn: JournalRow, verdict: Verdict) -> dict[str, Any]:
    """Return the row of an answer in samples.jsonl; the question is skipped where it is private."""
    asked, item = sample.asked, sample.asked.item
    return {
        **dict(zip(FIELDS, sample.key, strict=True)),
        "prompt_sha256": asked.prompt_sha256,
        "question": None if item.is_private else item.problem.question,
        "option_order": item.order,
        "groups": dict(item.groups),
        **{key: drawn[key] for key in ("text", "num_tokens", "finish_reason", "why")},
        "reference": item.problem.solution,
        **asdict(verdict),
    }
