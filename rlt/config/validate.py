"""The rules between settings, and between settings and the files of this machine.

`validate` runs before any model is loaded and imports nothing heavy. Bounds of single settings are in
`bounds.py`, the rules of one concern in `check_data.py`, `check_trainer.py` and `files.py`; whether
a dataset's rows are good is for `rlt/data`, a tokenizer's tags for the stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from math import lcm
from urllib.parse import urlsplit

from rlt.config.bounds import check_bounds
from rlt.config.check_collect import check_collect
from rlt.config.check_components import check_components
from rlt.config.check_correctness import check_correctness
from rlt.config.check_countdown import check_countdown
from rlt.config.check_data import check_data
from rlt.config.check_during_training import check_during_training
from rlt.config.check_evaluate import check_api, check_evaluate
from rlt.config.check_infer import check_infer
from rlt.config.check_pipeline import check_pipeline
from rlt.config.check_traces import check_traces
from rlt.config.check_trainer import check_trainer
from rlt.config.files import check_files, context_length
from rlt.config.schema import (
    ENGINE_STAGES,
    GENERATING_STAGES,
    PAID_STAGES,
    PLAIN_SAMPLING,
    REDUCTIONS,
    RL_STAGES,
    SCORING_STAGES,
    TEXT_STAGES,
    Config,
    StudentSettings,
)
from rlt.config.server_key import check_server_key
from rlt.config.students import FIRST, all_students, check_students
from rlt.errors import ConfigError

PUBLISHED_STUDENTS = (
    "bespokelabs/Bespoke-Stratos-7B",
    "bespokelabs/Bespoke-Stratos-32B",
    "SakanaAI/RLT-7B",
    "SakanaAI/RLT-32B",
)
"""Students trained under a system prompt that is data, not ours to word (method section 2)."""


def validate(config: Config, num_processes: int = 1, *, servers_follow: bool = False) -> None:
    """Raise ConfigError with one sentence for the first broken rule.

    `num_processes` is the number of training processes. `servers_follow` is for the launcher, which
    validates before it has started the vLLM servers.
    """
    if config.stage == "pipeline":
        check_bounds(config)
        check_pipeline(config)
        return
    if config.stage == "make_countdown":
        check_bounds(config)
        check_countdown(config)
        return
    if config.stage in TEXT_STAGES:
        check_bounds(config)
        check_traces(config)
        check_data(config)
        check_files(config)
        return
    if config.stage not in SCORING_STAGES and not config.model_name_or_path:
        raise ConfigError(
            "`model_name_or_path` is empty: give a value (the model to train, a folder or a Hub name)."
        )
    check_bounds(config)
    if config.stage == "infer":
        check_infer(config)
        _check_own_prompt(config)
        return
    if config.stage in SCORING_STAGES:
        check_scoring(config)
    elif config.stage in GENERATING_STAGES:
        check_generating(config, num_processes)
    else:
        check_training(config, num_processes)
    check_data(config)
    _check_own_prompt(config)
    if config.stage in PAID_STAGES:
        _check_reward(config)
        check_components(config)
        _check_student(config)
    if config.stage == "student_rl":
        check_correctness(config)
    if config.stage in ENGINE_STAGES:
        _check_generation(config)
    check_files(config)
    context = context_length(config.model_name_or_path) if config.model_name_or_path else None
    students = all_students(config) if config.stage in PAID_STAGES else []
    check_lengths(config, context, {s.model: context_length(s.model) for s in students})
    if config.stage in ENGINE_STAGES:
        check_api(config)
        _check_servers(config, servers_follow)
    check_server_key(config)


def check_training(config: Config, num_processes: int) -> None:
    """Raise ConfigError for the first broken rule of a stage that trains a model."""
    _check_batch(config, num_processes)
    check_trainer(config)
    check_during_training(config)
    _refuse_greedy(config)


def check_scoring(config: Config) -> None:
    """Raise ConfigError for settings that a stage which only scores cannot follow."""
    _refuse_training(config)
    _refuse_greedy(config)
    show = config.show
    if config.stage == "show_traces" and not (show.rows or show.best or show.worst):
        raise ConfigError("`show` asks for nothing: give show.rows=[1], show.best=3 or show.worst=3.")


def check_generating(config: Config, num_processes: int) -> None:
    """Raise ConfigError for settings that a stage which only generates cannot follow."""
    _refuse_training(config)
    if config.generation.backend == "vllm" and num_processes > 1:
        raise ConfigError(
            f"{config.stage} asks its servers from one process, got {num_processes}: start it with launch.sh "
            "or python train.py."
        )
    if config.stage == "evaluate":
        check_evaluate(config)
    else:
        check_collect(config)


def _refuse_training(config: Config) -> None:
    check_during_training(config)
    if config.resume_from is not None:
        hint = "" if config.stage == "show_traces" else " (it goes on by itself in the same output_dir)"
        raise ConfigError(
            f"`resume_from={config.resume_from}` is for training, and {config.stage} trains nothing: leave "
            f"it out{hint}."
        )
    if config.trainer_args:
        raise ConfigError(
            f"`trainer_args.{next(iter(config.trainer_args))}` has no effect, because {config.stage} "
            "trains nothing: leave it out."
        )


def _refuse_greedy(config: Config) -> None:
    if config.temperature == 0:
        raise ConfigError(
            f"`temperature` must be greater than 0 in {config.stage}, got 0, since logits are divided by it."
        )


def _check_batch(config: Config, num_processes: int) -> None:
    batch, unit = config.train_batch_size, config.per_device_train_batch_size * num_processes
    group = config.num_generations if config.stage in RL_STAGES else 1
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
    for name in ("answer_clip", "kl_clip"):
        clip = getattr(reward, name)
        if clip and (len(clip) != 2 or not clip[0] < clip[1]):
            raise ConfigError(
                f"`reward.{name}` must be [] for none, or [low,high] with low below high, got {_list(clip)}."
            )


def _check_student(config: Config) -> None:
    student = config.student_model
    if not student:
        raise ConfigError(
            f"`student_model` is empty, but {config.stage} is paid by a frozen student: give a model's "
            "folder or a Hub name."
        )
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
            f"because under any prompt but its own every reward would be off, got '{prompt[:40]}'."
        )


def _check_own_prompt(config: Config) -> None:
    """Refuse to train or to ask a published student under another prompt than its own."""
    is_student = config.stage in ("student_sft", "student_rl", "evaluate")
    is_student |= config.stage == "infer" and config.infer.solution is None
    model, prompt = config.model_name_or_path, config.layout.student_prompt
    if is_student and model and _needs_own_prompt(model, prompt):
        values = "from_dataset or file:PATH" if config.stage in ("student_sft", "student_rl") else "file:PATH"
        raise ConfigError(
            f"`layout.student_prompt` must be {values} with model_name_or_path={model}, because it was "
            f"trained with a prompt that is data, got '{prompt[:40]}'."
        )


def _needs_own_prompt(model: str, prompt: str) -> bool:
    """Whether a student is a published one, and the prompt words of someone else."""
    names = {name.rsplit("/", 1)[-1] for name in PUBLISHED_STUDENTS if name.startswith("bespokelabs")}
    is_published = model in PUBLISHED_STUDENTS or model.rstrip("/").rsplit("/", 1)[-1] in names
    return is_published and prompt != "from_dataset" and not prompt.startswith("file:")


def _check_student_servers(config: Config) -> None:
    reward = config.reward
    _check_addresses("reward.servers", reward.servers)
    if reward.placement == "server" and not reward.servers:
        raise ConfigError(
            "`reward.placement=server` needs running servers: start one with `python -m "
            f"rlt.launch.student_server {config.student_model} --temperature {reward.student_temperature:g} "
            "--port PORT` and give reward.servers=[http://127.0.0.1:PORT]."
        )
    if reward.servers and reward.placement != "server":
        raise ConfigError(
            f"`reward.servers` is not used with reward.placement={reward.placement}: take "
            "reward.placement=server, or leave the servers out."
        )


def _check_generation(config: Config) -> None:
    generation = config.generation
    if config.reward.teacher_logprobs == "engine" and config.reward.kl_estimator != "student_nll":
        for name, off in PLAIN_SAMPLING.items():
            if getattr(generation, name) != off:
                raise ConfigError(
                    f"`generation.{name}={getattr(generation, name)}` must be {off} with "
                    "reward.teacher_logprobs=engine, because only plain samples carry the teacher's own "
                    "log-probabilities: change it, or take reward.teacher_logprobs=policy."
                )
    if any(arg.split("=")[0].replace("_", "-") == "--api-key" for arg in generation.server_args):
        raise ConfigError(
            "`generation.server_args` must not hold --api-key, because the configuration is saved with the "
            "run: set the environment variable VLLM_API_KEY, or give generation.api_key_file."
        )
    _check_addresses("generation.servers", generation.servers)
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


def _check_servers(config: Config, servers_follow: bool) -> None:
    generation = config.generation
    if generation.backend == "vllm" and not generation.servers and not servers_follow:
        raise ConfigError(
            "`generation.backend=vllm` needs running servers: start through ./launch.sh, give "
            "generation.servers=[http://HOST:PORT], or take generation.backend=transformers."
        )


def check_lengths(config: Config, context: int | None, students: Mapping[str, int | None]) -> None:
    """Raise ConfigError for lengths that do not fit the contexts of the model and, by name, of the students.

    None is not known. The stages call it again once they know the contexts of models on the Hub.
    """
    if config.stage in SCORING_STAGES:
        return  # traces that are too long are marked
    if config.stage == "evaluate":  # an answer may go on to the end of the context
        need, what = config.max_prompt_length + 1, f"max_prompt_length + 1 = {config.max_prompt_length} + 1"
    elif config.stage in ENGINE_STAGES:
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
