"""The rules of `evaluate`: which tasks, from where, and how often each is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlt.config.original.skythought import TASK_PROMPTS, grader_paths, read_task_prompt
from rlt.config.rules.benchmarks import check_benchmarks, nearest, refuse_programs_and_examples, task_names
from rlt.config.schema import LOCAL_TASK, NO_DATASET, PLAIN_SAMPLING, SLOT, Config, EvaluateSettings
from rlt.errors import ConfigError

_MADE_HERE = "countdown"


def check_evaluate(config: Config) -> None:
    """Raise ConfigError for the first broken rule."""
    check_tasks(config.evaluate, "evaluate.tasks", config.evaluate.tasks)
    _check_local(config)
    _check_sampling(config)


def check_tasks(evaluate: EvaluateSettings, setting: str, asked: Sequence[str]) -> None:
    """Raise ConfigError for tasks that cannot be asked, in training or in evaluation, as `setting` says."""
    check_benchmarks(evaluate)
    benchmarks = task_names(evaluate)
    tasks = (*benchmarks, LOCAL_TASK)
    if not asked:
        raise ConfigError(f"`{setting}` is empty: give some of {', '.join(tasks)}.")
    _check_names(setting, asked, tasks)
    for task in asked:
        if asked.count(task) > 1:
            raise ConfigError(f"`{setting}` names {task} twice: name it once.")
    for name, allowed in (("paths", benchmarks), ("revisions", benchmarks), ("prompts", tasks)):
        _check_names(f"evaluate.{name}", getattr(evaluate, name), allowed)
    for task, prompt in evaluate.prompts.items():
        if prompt.count(SLOT) != 1:
            raise ConfigError(
                f"`evaluate.prompts.{task}` must hold {SLOT} once, where the question goes, got "
                f"'{prompt[:40]}'."
            )
    _check_original(evaluate, asked)
    if _MADE_HERE in asked and _MADE_HERE not in evaluate.paths:
        raise ConfigError(
            f"`{setting}` names {_MADE_HERE}, whose problems are made here: run `python train.py "
            "run_cfg=make_countdown output_dir=data/countdown` and give "
            "evaluate.paths={countdown: data/countdown/test.jsonl}."
        )
    for record in evaluate.benchmarks:
        if record.name in asked and record.hub is None and record.name not in evaluate.paths:
            raise ConfigError(
                f"`{setting}` names {record.name}, whose record in evaluate.benchmarks has no `hub`: "
                f"give one, or evaluate.paths={{{record.name}: FILE}}."
            )


def _check_original(evaluate: EvaluateSettings, asked: Sequence[str]) -> None:
    """Raise ConfigError where the checkout or package does not hold what is known of SkyThought."""
    if evaluate.original is None:
        return
    for task in TASK_PROMPTS:
        if task in asked and task not in evaluate.prompts:
            read_task_prompt(evaluate.original, task)
    grader_paths(evaluate.original)


def _check_names(setting: str, names: Iterable[str], allowed: tuple[str, ...]) -> None:
    for name in names:
        refuse_programs_and_examples(setting, name)
        if name not in allowed:
            hint = nearest(name, allowed) or f"take some of {', '.join(allowed)}."
            raise ConfigError(f"`{setting}` may name {', '.join(allowed)}, got '{name}': {hint}")


def _check_local(config: Config) -> None:
    is_asked, has_data = LOCAL_TASK in config.evaluate.tasks, config.dataset_id_or_path != NO_DATASET
    if is_asked and not has_data:
        raise ConfigError(
            f"`evaluate.tasks` names {LOCAL_TASK}, which are those of dataset_id_or_path: give a file or a "
            "Hub name there."
        )
    if has_data and not is_asked:
        raise ConfigError(
            f"`dataset_id_or_path={config.dataset_id_or_path}` is not read, because evaluate.tasks does not "
            f"name {LOCAL_TASK}: add it, or give the files of benchmarks in evaluate.paths."
        )
    others = [task for task in config.evaluate.tasks if task != LOCAL_TASK]
    if config.layout.student_prompt == "from_dataset" and others:
        raise ConfigError(
            f"`layout.student_prompt=from_dataset` finds no system prompt in the rows of {others[0]}: give "
            "file:PATH with the prompt that the student was trained with."
        )


def check_api(config: Config) -> None:
    """Raise ConfigError where servers that speak text alone will not do."""
    generation = config.generation
    if generation.api != "openai":
        return
    if generation.backend != "vllm" or not generation.servers:
        raise ConfigError("`generation.api=openai` needs generation.servers=[ADDRESS] to ask.")
    for name, off in PLAIN_SAMPLING.items():
        if name != "top_p" and getattr(generation, name) != off:
            raise ConfigError(f"`generation.{name}` must be {off}: OpenAI's API does not know it.")


def _check_sampling(config: Config) -> None:
    if config.temperature == 0 and config.evaluate.num_samples != 1:
        raise ConfigError(
            f"`evaluate.num_samples` must be 1 with temperature=0, because greedy answers are all the same, "
            f"got {config.evaluate.num_samples or 'null'}."
        )
    if config.data.on_long_row == "drop":
        raise ConfigError(
            "`data.on_long_row=drop` would skip problems without counting them as wrong: keep "
            "`error`, and raise max_prompt_length where a prompt is too long."
        )
