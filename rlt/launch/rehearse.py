"""A rehearsal: the user's own configuration with tiny random models, two steps through every phase.

Models, lengths, batches and steps are made small; data, prompts, rewards, strategy and engine stay. All of it
happens in OUTPUT_DIR/rehearsal, which the run itself does not read. What the run will need of memory and time
is for the forecast (`--dry-run`).
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from rlt.config.attention import needs_gpu, not_provided
from rlt.config.overrides import literal, quoted
from rlt.config.rules.lengths import check_lengths
from rlt.config.schema import Config, StudentSettings, stage_of
from rlt.config.stages import names
from rlt.config.students import FIRST, frozen_students
from rlt.data.lengths import LAST_TOKENS
from rlt.data.load import require_full_step
from rlt.device_plan import Plan
from rlt.errors import ConfigError
from rlt.rundir.run_record import REHEARSAL, cannot_write, only_run_in, read_run
from rlt.text import markdown

if TYPE_CHECKING:
    from rlt.models.tiny import Shrunk

FLAG = "--rehearse"
REHEARSED = names(rehearses=True)
NUM_STEPS = 2
_TOKENS = 32
_GROUP = 4
_PER_DEVICE = {True: 4, False: 2}
"""Sequences of a forward pass, in RL or not: SFT holds the logits of whole rows."""
_ROWS = 4
"""Held-out problems, or problems of a stage that trains nothing."""
_PROCESSES_ON_CPU = 2
_SHARED_GPU = {"generation.gpu_memory_utilization": "0.3", "generation.weight_sync": "checkpoint"}
"""Of a server that has to share a GPU with the training: NCCL takes no GPU twice."""

Words = dict[str, str]
"""Setting -> its value, as one types it."""


@dataclass(frozen=True)
class Rehearsal:
    """What will be run in place of the run itself."""

    directory: Path
    """Holds `models` and `run`."""
    words: tuple[str, ...]
    """What follows the user's own words."""
    plan: Plan
    report: tuple[str, ...]
    """One line each of what was made small."""


def refuse_rehearsal(config: Config, *, dry_run: bool, num_machines: int) -> None:
    """Raise ConfigError where there is nothing to rehearse."""
    if num_machines > 1:
        raise ConfigError(f"`{FLAG}` is for one machine: remove --num_machines and its options.")
    if dry_run:
        raise ConfigError(f"--dry-run starts nothing and {FLAG} runs every phase: give one of the two.")
    if config.stage == "pipeline":
        raise ConfigError(
            f"`{FLAG}` is for one stage, and a pipeline has several: rehearse its steps one by one, by "
            "their own run files (--dry-run checks them all)."
        )
    if config.stage not in REHEARSED:
        raise ConfigError(
            f"`{FLAG}` is for {', '.join(REHEARSED)}: {config.stage} has nothing that would take long, so "
            "run it as it is."
        )


@contextmanager
def rehearsal(config: Config, real: Plan, present: tuple[str, ...]) -> Iterator[Rehearsal]:
    """Hold OUTPUT_DIR/rehearsal, empty but for new tiny models, for the rehearsal of a checked configuration.

    `real` is the plan of the run itself, `present` the GPUs that this machine really has. Raises ConfigError,
    and ModelError for a model that cannot be read.
    """
    directory = Path(config.output_dir) / REHEARSAL
    with only_run_in(directory):
        plan = plan_here(real, present, serves=_starts_servers(config))
        try:
            for name in ("models", "run"):
                if (directory / name).exists():
                    shutil.rmtree(directory / name)
            models = write_models(config, plan, directory / "models")
        except OSError as error:
            raise cannot_write(str(directory), error) from error
        except SafetensorError as error:
            raise ConfigError(
                f"the tiny models cannot be written to {directory} ({error}): make room."
            ) from error
        settings = {
            "output_dir": str(directory / "run"),
            "resume_from": "null",
            "report_to": "null",
            **model_words(config, directory / "models"),
            **size_words(config, plan, real),
            **device_words(config, plan),
        }
        settings = _read(settings, config)
        words = tuple(f"{key}={value}" for key, value in settings.items())
        yield Rehearsal(directory, words, plan, tuple(report(config, real, plan, models, settings)))


def plan_here(real: Plan, present: tuple[str, ...], *, serves: bool) -> Plan:
    """Return the run's own plan where its GPUs are here; else one that shares a GPU, or a small one on a CPU.

    `serves` says whether servers generate: a rehearsal starts its own where the run asks somebody else's.
    """
    needed = {*real.training_gpus, *(gpu for server in real.servers for gpu in server)}
    if needed and needed <= {*present}:
        return replace(real, servers=(real.training_gpus[-1:],)) if serves and not real.servers else real
    gpu = present[:1]
    servers = (gpu,) if serves else ()
    if gpu and not real.on_cpu:
        return Plan(servers, gpu, 1, "single" if real.strategy == "ddp" else real.strategy)
    processes = min(real.num_processes, _PROCESSES_ON_CPU)
    return Plan(
        servers, (), processes, "single" if (real.strategy, processes) == ("ddp", 1) else real.strategy
    )


def write_models(config: Config, plan: Plan, folder: Path) -> dict[str, Shrunk]:
    """Write the tiny model of each one that the configuration names; return what became of them by name.

    The lengths are checked once more: contexts of models on the Hub were not known before.
    """
    from transformers.utils.logging import disable_progress_bar  # with torch: seconds for a rehearsal alone

    from rlt.models.tiny import HEADS, write_tiny

    disable_progress_bar()
    trust, revision = config.model.trust_remote_code, config.model.revision
    heads = lcm(HEADS, config.generation.tensor_parallel) if _has_wide_servers(plan) else HEADS
    found: dict[str, Shrunk] = {}
    for seed, (name, model) in enumerate(models_of(config).items()):
        found[name] = write_tiny(
            model,
            folder / name,
            seed=seed,
            revision=revision if name == "model" else None,
            trust=trust,
            heads=heads,
        )
    contexts = {name: shrunk.context for name, shrunk in found.items()}
    contexts.pop("teacher", None)  # its rows are checked with their prompts
    check_lengths(config, contexts.pop("model", None), contexts)
    return found


def models_of(config: Config) -> dict[str, str]:
    """Return the models of a stage: `model`, `student`, and further students by `student-NAME`."""
    found = {"model": config.model_name_or_path}
    for student in frozen_students(config):
        found["student" if student.name == FIRST else f"student-{student.name}"] = student.model
    if stage_of(config).is_judged and config.opd.teacher == "model":
        found["teacher"] = config.teacher_model
    return {name: model for name, model in found.items() if model}


def model_words(config: Config, folder: Path) -> Words:
    """Return the settings that put the tiny models in the place of the real ones."""
    places = {"model": "model_name_or_path", "student": "student_model", "teacher": "teacher_model"}
    words = {places[name]: str(folder / name) for name in models_of(config) if name in places}
    if stage_of(config).is_judged and config.opd.solution_in == "explanation":
        words["opd.open_thought"] = "true"  # random weights open none
    if stage_of(config).is_judged and config.opd.placement == "server":
        words |= {"opd.placement": "replicated", "opd.servers": "[]"}
    if not stage_of(config).scores:
        return words
    if config.reward.students:
        small = (replace(s, model=str(folder / f"student-{s.name}")) for s in config.reward.students)
        words["reward.students"] = f"[{', '.join(map(_record, small))}]"
    answers = config.reward.answers
    if answers.servers:
        words["reward.answers.servers"] = "[]"
    if answers.servers and config.reward.placement == "zero3":  # leaves no whole student that could answer
        words["reward.answers.weight"] = "0"
    if config.reward.placement == "server":
        words |= {"reward.placement": "replicated", "reward.servers": "[]"}
    return words


def size_words(config: Config, plan: Plan, real: Plan) -> Words:
    """Return the settings that make lengths, batches and steps small."""
    words: Words = {"data.shortest": str(_ROWS)}
    stage = stage_of(config)
    if stage.generates:
        words["max_completion_length"] = str(min(config.max_completion_length, _TOKENS))
    if stage.reads("collect"):
        words["collect.num_samples"] = str(min(config.collect.num_samples, 2))
        words["collect.push_to_hub"] = "null"
    if stage.reads("evaluate.num_samples"):
        words["evaluate.num_samples"] = "1"
    if stage.reads("reward.answers"):
        answers = config.reward.answers
        words["reward.answers.num_samples"] = str(min(answers.num_samples, 2))
        words["reward.answers.max_tokens"] = str(min(answers.max_tokens, _TOKENS))
    if stage.trains:
        words |= _training_words(config, plan, real)
    return _read(words, config)


def _read(words: Words, config: Config) -> Words:
    """Return the settings that the stage reads: others would be refused."""
    return {name: value for name, value in words.items() if stage_of(config).reads(name)}


def _training_words(config: Config, plan: Plan, real: Plan) -> Words:
    trainer, during, is_rl = config.trainer, config.evaluation.benchmarks, stage_of(config).is_rl
    batch, per_device, group = small_batch(config, plan.num_processes, real.num_processes)
    words = {
        "train_batch_size": str(batch),
        "per_device_train_batch_size": str(per_device),
        "trainer.max_steps": str(_num_steps(config)),
        "trainer.logging_steps": "1",
        "trainer.save_steps": str(min(trainer.save_steps, 1)),
        "evaluation.steps": str(min(config.evaluation.steps, 1)),
        "trainer.max_hours": "null",
        "trainer.save_on_sigterm": "false",
        "evaluation.per_device_batch_size": str(min(config.evaluation.per_device_batch_size, 2)),
    }
    if is_rl:
        words["num_generations"] = str(group)
        words["trainer.ref_sync_steps"] = str(min(trainer.ref_sync_steps, 1))
        words["evaluation.num_generations"] = str(min(config.evaluation.num_generations, 2))
    else:
        words["data.shortest"] = str(NUM_STEPS * batch)
    if during.steps:
        prefix = "evaluation.benchmarks"
        words |= {
            f"{prefix}.steps": "1",
            f"{prefix}.num_problems": str(min(during.num_problems or _ROWS, _ROWS)),
            f"{prefix}.num_samples": str(min(during.num_samples, 2)),
            f"{prefix}.max_tokens": str(min(during.max_tokens, _TOKENS)),
        }
    return words


def small_batch(config: Config, processes: int, real_processes: int) -> tuple[int, int, int]:
    """Return train_batch_size, per_device_train_batch_size and num_generations that go together.

    Two problems, or two forward passes, are left of a batch with several.
    """
    is_rl = stage_of(config).is_rl
    group = min(config.num_generations, _GROUP) if is_rl else 1
    per_device = min(config.per_device_train_batch_size, _PER_DEVICE[is_rl])
    unit = per_device * processes
    whole = config.num_generations if is_rl else config.per_device_train_batch_size * real_processes
    part = group if is_rl else unit
    batch = part * min(config.train_batch_size // whole, 2)
    good = lcm(unit, group)
    return max(ceil(batch / good), 1) * good, per_device, group


def device_words(config: Config, plan: Plan) -> Words:
    """Return the settings that the run's own devices would allow, and those of this machine do not."""
    words: Words = {}
    if stage_of(config).generates:
        words |= {"generation.servers": "[]", "generation.api": "vllm", "generation.base_port": "0"}
        if plan.servers and not _has_wide_servers(plan):
            words["generation.tensor_parallel"] = "1"
        if any(gpu in plan.training_gpus for server in plan.servers for gpu in server):
            words |= _SHARED_GPU
    on_cpu = plan.on_cpu and not any(plan.servers)
    attention = config.model.attn_implementation
    if not_provided(attention) or (on_cpu and needs_gpu(attention)):
        words["model.attn_implementation"] = "auto"
    if on_cpu:
        if config.generation.weight_sync == "nccl":
            words["generation.weight_sync"] = "auto"
        if config.trainer_args.get("use_liger_kernel"):
            words["trainer_args.use_liger_kernel"] = "false"
    return _read(words, config)


def report(
    config: Config, real: Plan, plan: Plan, models: Mapping[str, Shrunk], words: Words
) -> Iterator[str]:
    """Yield one line each of what was made smaller or turned off."""
    yield "models: " + "; ".join(f"{name}: {shrunk}" for name, shrunk in models.items())
    yield "their weights are random: what rewards, accuracies and monitors say means nothing"
    stage = stage_of(config)
    if stage.generates:
        yield f"completions: {words['max_completion_length']} of {config.max_completion_length:,} tokens"
    if stage.trains:
        yield from _report_training(config, words)
    else:
        yield f"rows: the {words['data.shortest']} shortest"
    if plan != real:
        yield f"devices: {_devices(plan)}, in place of {_devices(real)}"
    changed = {
        key: value for key, value in words.items() if key in _IN_ITS_PLACE and _differs(config, key, value)
    }
    if changed:
        yield "in place of your own: " + " ".join(f"{key}={value}" for key, value in changed.items())
    attention = config.model.attn_implementation
    if reason := not_provided(attention):
        yield f"the run itself would not start: model.attn_implementation={attention} {reason}"


def _report_training(config: Config, words: Words) -> Iterator[str]:
    batch = f"{words['train_batch_size']} of {config.train_batch_size:,}"
    if stage_of(config).is_rl:
        group = f"{words['num_generations']} of {config.num_generations} a problem"
        yield f"batch: {batch} completions, {group}"
    else:
        tokens = f"of no more than {LAST_TOKENS:,} tokens"
        yield f"batch: {batch} rows, out of the {words['data.shortest']} shortest, {tokens}"
    steps, epochs = config.trainer.max_steps, config.trainer.num_train_epochs
    yield f"steps: {words['trainer.max_steps']}" + (
        f" of {steps:,}" if steps > 0 else f" in place of {epochs:g} epochs"
    )
    if config.evaluation.path:
        yield f"held-out rows: the {words['data.shortest']} shortest"


_IN_ITS_PLACE = (
    *(
        "report_to",
        "resume_from",
        "collect.push_to_hub",
        "trainer.max_hours",
        "generation.servers",
        "generation.api",
    ),
    *("generation.tensor_parallel", "generation.weight_sync", "generation.gpu_memory_utilization"),
    *("reward.placement", "reward.answers.servers", "reward.answers.weight"),
    *("model.attn_implementation", "trainer_args.use_liger_kernel"),
)
"""Settings that a rehearsal turns off or changes, reported if they had another value."""


def results(rehearsed: Rehearsal, config: Config, seconds: float, typed: str) -> str:
    """Return the table of phases, and the sentence at the end; `typed` is the command line of the rehearsal.

    Raises DataError for problems that are too few for a whole step of the run itself.
    """
    record = read_run(rehearsed.directory / "run")
    if stage_of(config).is_rl:
        require_full_step(record["problems"], config)
    phases = record.get("seconds_by_phase") or {config.stage: record["seconds"] or 0.0}
    rest = max(seconds - sum(phases.values()), 0.0)
    rows = [*phases.items(), ("checks, start of processes and servers, report", rest)]
    table = markdown([("phase", "seconds"), *((name, f"{spent:.1f}") for name, spent in rows)])
    command = shlex.join(word for word in shlex.split(typed) if word != FLAG)
    kept = f"nothing was kept but {rehearsed.directory}"
    return f"{table}rehearsed in {seconds:.0f} s; {kept}; the run itself: {command}"


def _num_steps(config: Config) -> int:
    return min(config.trainer.max_steps, NUM_STEPS) if config.trainer.max_steps > 0 else NUM_STEPS


def _starts_servers(config: Config) -> bool:
    return stage_of(config).generates and config.generation.backend == "vllm"


def _has_wide_servers(plan: Plan) -> bool:
    return any(len(server) > 1 for server in plan.servers)


def _record(student: StudentSettings) -> str:
    """Return a further student as one types it."""
    texts = {"name": student.name, "model": student.model, "prompt": student.prompt}
    pairs = {key: "null" if text is None else quoted(literal(text)) for key, text in texts.items()}
    pairs["weight"] = str(student.weight)
    pairs["temperature"] = "null" if student.temperature is None else str(student.temperature)
    return "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"


def _devices(plan: Plan) -> str:
    servers = f"{len(plan.servers)} server(s) and " if plan.servers else ""
    where = "the CPU" if plan.on_cpu else f"GPU {','.join(plan.training_gpus)}"
    return f"{servers}{plan.num_processes} process(es) on {where}"


def _differs(config: Config, key: str, value: str) -> bool:
    own: Any = config
    for part in key.split("."):
        own = own.get(part) if isinstance(own, dict) else getattr(own, part)
    return (str(own).lower() if own is not None else "null") != value
