"""The rules between settings, and between settings and the files of this machine.

`validate` runs before any model is loaded and imports nothing heavy. Bounds of single settings are in
`bounds.py`, the rules of one concern in `check_data.py`, `check_trainer.py` and `files.py`; whether
a dataset's rows are good is for `rlt/data`, a tokenizer's tags for the stage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from math import lcm
from urllib.parse import urlsplit

from rlt.config.attention import check_attention
from rlt.config.bounds import check_bounds
from rlt.config.check_collect import check_collect
from rlt.config.check_components import check_components
from rlt.config.check_correctness import check_correctness
from rlt.config.check_countdown import check_countdown
from rlt.config.check_data import check_data
from rlt.config.check_during_training import check_during_training
from rlt.config.check_evaluate import check_api, check_evaluate
from rlt.config.check_infer import check_infer
from rlt.config.check_traces import check_plan, check_select, check_sources
from rlt.config.check_trainer import check_trainer
from rlt.config.files import LAYOUT_FILE, check_files, context_length
from rlt.config.judges import pays_likelihood
from rlt.config.schema import (
    DATASET_PROMPT,
    FILE_PROMPT,
    PLAIN_SAMPLING,
    REDUCTIONS,
    SKYTHOUGHT_PROMPT,
    Config,
    StudentSettings,
    stage_of,
)
from rlt.config.server_key import check_server_key
from rlt.config.students import FIRST, all_students, check_students, refuse_own_student
from rlt.config.tree import get
from rlt.errors import ConfigError

PUBLISHED_STUDENTS = (
    "bespokelabs/Bespoke-Stratos-7B",
    "bespokelabs/Bespoke-Stratos-32B",
    "SakanaAI/RLT-7B",
    "SakanaAI/RLT-32B",
)
"""Students trained under a system prompt that is data, not ours to word (method section 2)."""


@dataclass(frozen=True)
class Surroundings:
    """What the rules depend on besides the configuration."""

    num_processes: int = 1
    servers_follow: bool = False
    rehearsed: bool = False


def validate(
    config: Config, num_processes: int = 1, *, servers_follow: bool = False, rehearsed: bool = False
) -> None:
    """Raise ConfigError with one sentence for the first broken rule of the stage.

    `num_processes` is the number of training processes. `servers_follow` is for the launcher, which
    validates before it has started the vLLM servers; `rehearsed` for a run that is only rehearsed here, whose
    attention need not be installed.
    """
    around = Surroundings(num_processes, servers_follow, rehearsed)
    stage = stage_of(config)
    for name, rest in stage.needs:
        if not get(config, name):
            raise ConfigError(f"`{name}` is empty{rest.format(stage=config.stage)}")
    for name in stage.checks:
        CHECKS[name](config, around)


def _check_attention(config: Config, around: Surroundings) -> None:
    check_attention(config, must_be_installed=not around.rehearsed)


def _check_one_process(config: Config, around: Surroundings) -> None:
    if config.generation.backend == "vllm" and around.num_processes > 1:
        raise ConfigError(
            f"{config.stage} asks its servers from one process, got {around.num_processes}: start it with "
            "launch.sh or python train.py."
        )


def _check_show(config: Config) -> None:
    show = config.show
    if not (show.rows or show.best or show.worst):
        raise ConfigError("`show` asks for nothing: give show.rows=[1], show.best=3 or show.worst=3.")


def _refuse_greedy(config: Config) -> None:
    if config.temperature == 0:
        raise ConfigError(
            f"`temperature` must be greater than 0 in {config.stage}, got 0, since logits are divided by it."
        )


def _check_batch(config: Config, around: Surroundings) -> None:
    num_processes = around.num_processes
    batch, unit = config.train_batch_size, config.per_device_train_batch_size * num_processes
    group = config.num_generations if stage_of(config).is_rl else 1
    good = lcm(unit, group)
    lower, upper = batch // good * good, (batch // good + 1) * good
    remedy = f"take {' or '.join(str(n) for n in (lower, upper) if n)}"
    if batch % unit:
        raise ConfigError(
            f"`train_batch_size={batch}` must be a multiple of per_device_train_batch_size x training "
            f"processes = {config.per_device_train_batch_size} x {num_processes}, so that accumulation makes "
            f"up the rest: {remedy}."
        )
    if batch % group:
        raise ConfigError(
            f"`train_batch_size={batch}` counts completions and must be a multiple of "
            f"num_generations={group}, so that every group is whole: {remedy}."
        )


def _check_reward(config: Config) -> None:
    reward = config.reward
    pairs = {"answer_log_prob_coeff": "answer_reductions", "kl_penalty_reward_coeff": "kl_reductions"}
    for coeff_name, name in pairs.items():
        coeff, reductions = getattr(config, coeff_name), getattr(reward, name)
        for reduction in reductions:
            if reduction not in REDUCTIONS:
                raise ConfigError(f"`reward.{name}` may hold {', '.join(REDUCTIONS)}, got '{reduction}'.")
        if len(coeff) != len(reductions):
            raise ConfigError(
                f"`{coeff_name}={_list(coeff)}` must have one number for each of "
                f"reward.{name}={_list(reductions)}: change one of the two."
            )
    if not config.answer_log_prob_coeff:
        raise ConfigError("`answer_log_prob_coeff=[]` leaves no reward: give at least one, e.g. [1,0.01].")
    for name in ("answer_clip", "kl_clip", "answer_result_clip"):
        clip = getattr(reward, name)
        if clip and (len(clip) != 2 or not clip[0] < clip[1]):
            raise ConfigError(
                f"`reward.{name}` must be [] for none, or [low,high] with low below high, got {_list(clip)}."
            )


def _check_student(config: Config) -> None:
    if config.reward.placement == "zero3" and find_spec("deepspeed") is None:
        raise ConfigError(
            "`reward.placement=zero3` needs DeepSpeed, which is not installed: pip install 'rlt[deepspeed]', "
            "or take replicated or cpu_offload."
        )
    if config.reward.placement == "zero3" and config.reward.dtype != config.model.dtype:
        # DeepSpeed has one dtype for all that it shards, and would cast the student to it in silence.
        raise ConfigError(
            f"`reward.placement=zero3` shards the student in the dtype of the run, which is model.dtype="
            f"{config.model.dtype}, but reward.dtype is {config.reward.dtype}: set "
            f"reward.dtype={config.model.dtype}, or take replicated or cpu_offload."
        )
    _check_student_servers(config)
    check_students(config)
    for other in all_students(config):
        _check_student_prompt(other)


def _check_student_prompt(student: StudentSettings) -> None:
    name, prompt = student.model, student.prompt or ""
    if _needs_own_prompt(name, prompt):
        setting = (
            "layout.student_prompt" if student.name == FIRST else f"reward.students.{student.name}.prompt"
        )
        model = "student_model" if student.name == FIRST else "model"
        raise ConfigError(
            f"`{setting}` must be from_dataset or file:PATH with {model}={name}, "
            f"because under any prompt but its own every reward would be off, got '{prompt[:40]}' "
            "(from_dataset:NAME takes the one of another dataset)."
        )


def _check_own_prompt(config: Config) -> None:
    """Refuse to train or to ask a published student under another prompt than its own."""
    stage = stage_of(config)
    if stage.model == "either" and config.infer.solution is not None:
        return  # a teacher
    model, prompt = config.model_name_or_path, config.layout.student_prompt
    if config.stage == "evaluate" and prompt.startswith(SKYTHOUGHT_PROMPT):
        return  # the protocol's own
    if model and _needs_own_prompt(model, prompt):
        values = "from_dataset or file:PATH" if stage.trains else "file:PATH"
        raise ConfigError(
            f"`layout.student_prompt` must be {values} with model_name_or_path={model}, because it was "
            f"trained with a prompt that is data, got '{prompt[:40]}' (from_dataset:NAME takes the one of "
            "another dataset)."
        )


def _needs_own_prompt(model: str, prompt: str) -> bool:
    """Whether a student is a published one, and the prompt words of someone else."""
    names = {name.rsplit("/", 1)[-1] for name in PUBLISHED_STUDENTS if name.startswith("bespokelabs")}
    is_published = model in PUBLISHED_STUDENTS or model.rstrip("/").rsplit("/", 1)[-1] in names
    if os.path.isfile(os.path.join(model, LAYOUT_FILE)):  # it says itself what it was trained with
        return False
    return is_published and prompt != "from_dataset" and not prompt.startswith((FILE_PROMPT, DATASET_PROMPT))


def _check_student_servers(config: Config) -> None:
    reward = config.reward
    _check_addresses("reward.servers", reward.servers)
    if reward.placement == "server" and not reward.servers:
        raise ConfigError(
            "`reward.placement=server` needs running servers: start one with `python -m "
            f"rlt.launch.student_server {config.student_model} --temperature {reward.student_temperature:g} "
            "--port PORT` and give reward.servers=[http://127.0.0.1:PORT]."
        )


def _check_engine_logprobs(config: Config) -> None:
    generation = config.generation
    if config.reward.teacher_logprobs == "engine" and config.reward.kl_estimator != "student_nll":
        for name, off in PLAIN_SAMPLING.items():
            if getattr(generation, name) != off:
                raise ConfigError(
                    f"`generation.{name}={getattr(generation, name)}` must be {off} with "
                    "reward.teacher_logprobs=engine, because only plain samples carry the teacher's own "
                    "log-probabilities: change it, or take reward.teacher_logprobs=policy."
                )


def _check_generation(config: Config) -> None:
    generation = config.generation
    if any(arg.split("=")[0].replace("_", "-") == "--api-key" for arg in generation.server_args):
        raise ConfigError(
            "`generation.server_args` must not hold --api-key, because the configuration is saved with the "
            "run: set the environment variable VLLM_API_KEY, or give generation.api_key_file."
        )
    _check_addresses("generation.servers", generation.servers)


def _check_sources(config: Config) -> None:
    refuse_own_student(config)
    check_sources(config)


def _check_components(config: Config) -> None:
    check_components(config)
    _check_addresses("reward.answers.servers", config.reward.answers.servers)


def _check_addresses(name: str, addresses: list[str]) -> None:
    for address in addresses:
        _check_address(name, address)
        if addresses.count(address) > 1:
            raise ConfigError(
                f"`{name}` names {address} twice, but each server is sent its own share of the work: name it "
                "once."
            )


def _check_address(name: str, address: str) -> None:
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number up to 65535
        is_good = False
    if not is_good or any(c.isspace() for c in address):
        raise ConfigError(f"`{name}` must hold addresses like http://127.0.0.1:8000, got '{address}'.")
    if "@" in address:
        raise ConfigError(
            f"`{name}` must hold no name and password, because the configuration is saved with the run: set "
            "the environment variable VLLM_API_KEY, or give generation.api_key_file."
        )


def _check_servers(config: Config, around: Surroundings) -> None:
    generation = config.generation
    if generation.backend == "vllm" and not generation.servers and not around.servers_follow:
        raise ConfigError(
            "`generation.backend=vllm` needs running servers: start through ./launch.sh, give "
            "generation.servers=[http://HOST:PORT], or take generation.backend=transformers."
        )


def _check_lengths(config: Config) -> None:
    context = context_length(config.model_name_or_path) if config.model_name_or_path else None
    students = all_students(config) if pays_likelihood(config) else []
    check_lengths(config, context, {s.model: context_length(s.model) for s in students})


def check_lengths(config: Config, context: int | None, students: Mapping[str, int | None]) -> None:
    """Raise ConfigError for lengths that do not fit the contexts of the model and, by name, of the students.

    None is not known. The stages call it again once they know the contexts of models on the Hub.
    """
    stage = stage_of(config)
    if stage.only_scores:
        return  # traces that are too long are marked
    if stage.fills_context:
        need, what = config.max_prompt_length + 1, f"max_prompt_length + 1 = {config.max_prompt_length} + 1"
    elif stage.generates:
        prompt, completion = config.max_prompt_length, config.max_completion_length
        need = prompt + completion
        what = f"max_prompt_length + max_completion_length = {prompt} + {completion}"
        for student, room in students.items():
            _check_room_for_student(config, student, room)
    else:
        need, what = config.data.max_length, f"data.max_length = {config.data.max_length}"
    if context is not None and need > context:
        raise ConfigError(
            f"`{what}` must fit the context of {config.model_name_or_path}, whose max_position_embeddings is "
            f"{context}: lower it by {need - context}."
        )


def _check_room_for_student(config: Config, student: str, context: int | None) -> None:
    """Refuse explanations that alone would fill what the student reads: question, explanation, solution."""
    length = config.max_completion_length
    if context is not None and length >= context:
        raise ConfigError(
            f"`max_completion_length={length}` must leave room for question and solution in the context of "
            f"the student {student}, whose max_position_embeddings is {context}: take much "
            f"less than {context}."
        )


def _list(values: list) -> str:
    return "[" + ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values) + "]"


def _alone(rule: Callable[[Config], None]) -> Callable[[Config, Surroundings], None]:
    """Return a rule that depends on the configuration alone, called as all are."""
    return lambda config, _: rule(config)


CHECKS: dict[str, Callable[[Config, Surroundings], None]] = {
    "attention": _check_attention,
    "batch": _check_batch,
    "one_process": _check_one_process,
    "servers": _check_servers,
    **{
        name: _alone(rule)
        for name, rule in {
            "api": check_api,
            "bounds": check_bounds,
            "collect": check_collect,
            "components": _check_components,
            "correctness": check_correctness,
            "countdown": check_countdown,
            "data": check_data,
            "during_training": check_during_training,
            "engine_logprobs": _check_engine_logprobs,
            "evaluate": check_evaluate,
            "files": check_files,
            "generation": _check_generation,
            "greedy": _refuse_greedy,
            "infer": check_infer,
            "lengths": _check_lengths,
            "own_prompt": _check_own_prompt,
            "plan": check_plan,
            "reward": _check_reward,
            "select": check_select,
            "server_key": check_server_key,
            "show": _check_show,
            "sources": _check_sources,
            "student": _check_student,
            "trainer": check_trainer,
        }.items()
    },
}
"""The rules by the names that the table of stages gives them."""
