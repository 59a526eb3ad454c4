"""Every setting of the framework: type, default, bound and meaning, in this one place.

The root holds what people type; each section below it holds the rest of one concern and maps to
one folder of `cfgs/`. YAML files only override. `validate.py` holds the rules between settings;
bounds of a single setting stand here. OmegaConf turns these classes into a closed schema, so an
unknown key fails at composition. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from rlt.config.stages import STAGES, Stage


def setting(
    default: Any,
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field with its meaning and bounds in the metadata."""
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {"doc": doc, "choices": choices, **{k: v for k, v in bounds.items() if v is not None}}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


BENCHMARKS = (
    *("aime24", "aime25", "aime26", "hmmt_feb25", "hmmt_nov25", "hmmt_feb26", "brumo25", "amc23"),
    *("math500", "minerva", "olympiadbench", "gsm8k", "gpqa_diamond", "supergpqa", "mmlu_pro", "countdown"),
)
"""The names of rlt/tasks/benchmarks/catalog.py."""
LOCAL_TASK = "problems"
"""The task of `evaluate` that reads dataset_id_or_path."""
SLOT = "{question}"
"""Where the question stands in `evaluate.prompts`."""
BOXED = r"Put your final answer inside \boxed{}. " + SLOT
"""Asks as SkyThought does, in our own words: what is wanted first, then the question."""
MOST_OPTIONS = {"choice": 4, "choice10": 10}
"""Kinds of answers that are the letter of an option -> how many options there may be."""
ANSWER_KINDS = ("math", *MOST_OPTIONS, "countdown")
NO_DATASET = "none"
"""dataset_id_or_path of a stage that reads nothing there."""
SELECTION_RULES = ("none", "first", "best", "shortest", "random", "rank")
OPERATIONS = ("+", "-", "*", "/")
RECIPES = ("released", "modern")
GPU_KINDS = (
    *("h100-80g", "h200-141g", "b200-180g", "a100-80g", "a100-40g"),
    *("l40s-48g", "rtx-4090-24g", "rtx-3090-24g"),
)
"""Kinds that rlt/surroundings/gpus.py knows."""
REDUCTIONS = ("mean", "sum", "min", "max", "median", "first_quartile", "last_quartile")
TRANSFORMS = ("none", "exp", "one_minus_exp")
SOLUTION_SPANS = ("content", "released")
PLAIN_SAMPLING = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Settings of `generation` under which only the temperature shapes the samples."""
TRACKERS = ("wandb", "tensorboard", "trackio")
FILE_PROMPT, ORIGINAL_PROMPT, DATASET_PROMPT = "file:", "original:", "from_dataset:"
"""What a prompt begins with that is read from a file, a checkout of the original release, or a dataset."""
SKYTHOUGHT_PROMPT, TEXT_PROMPT = "skythought:", "text:"
"""What it begins with where a checkout of SkyThought holds it, or where the text itself follows."""
TEMPLATE_DATE = "2025-01-01"
"""The date given to chat templates that write one, so that prompts are the same every day."""
PROMPT_KEYWORDS = {"teacher_prompt": ("default",), "student_prompt": ("default", "from_dataset")}
"""Settings of `layout` that hold a text, one of the forms of prompts.py, or one of these words."""
REQUIRED_FIELDS = {
    "columns": ("question", "solution"),
    "sharegpt": ("conversations",),
    "messages": ("messages",),
}
"""Per `data.format`, the fields of ours that a row must feed."""
OPTIONAL_FIELDS = {
    "columns": ("reasoning_trace", "answer", "system"),
    "sharegpt": ("answer", "system"),
    "messages": ("answer", "system"),
}
TRACE_FIELDS = ("explanation", "explanations", "sample_index")
"""Further fields of rows with explanations, whatever their format (stages that read traces)."""
DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
"""May follow a data suffix: such a file is unpacked while it is read."""


@dataclass
class LoraSettings:
    """Low-rank adapters instead of full fine-tuning; rank 0 is off."""

    rank: int = setting(0, "rank of the adapters; 0 trains all weights", ge=0)
    alpha: int = setting(32, "scale of the adapters (lora_alpha)", gt=0)
    dropout: float = setting(0.0, "dropout on the adapters' input", ge=0, lt=1)
    target_modules: list[str] = setting(["all-linear"], "modules that get adapters")


@dataclass
class ModelSettings:
    """How the trained model is loaded."""

    dtype: str = setting("bfloat16", "dtype of weights and activations", choices=("bfloat16", "float32"))
    attn_implementation: str = setting(
        "auto",
        "attention: eager, sdpa, flash_attention_2 (needs the package flash-attn), or a kernel of the Hub as "
        "kernels-community/flash-attn2 (needs the package kernels, and runs native code of others); auto is "
        "flash_attention_2 where that is installed and a GPU and the model can use it, else sdpa, else eager",
    )
    revision: str | None = setting(None, "branch, tag or commit on the Hub")
    trust_remote_code: bool = setting(False, "run model code that comes with the checkpoint")
    lora: LoraSettings = setting(LoraSettings, "low-rank adapters")


@dataclass
class SubsetSettings:
    """A reproducible random part of the dataset."""

    n: int | None = setting(None, "number of rows; null takes all", gt=0)
    seed: int = setting(0, "seed of the choice")


@dataclass
class DataSettings:
    """Where problems come from and what happens to rows that do not fit."""

    format: str = setting(
        "auto",
        "shape of a row: question/solution columns, ShareGPT conversations, or messages",
        choices=("auto", "columns", "sharegpt", "messages"),
    )
    split: str = setting("train", "split of a Hub dataset or of a dataset folder")
    config_name: str | None = setting(None, "configuration of a Hub dataset")
    revision: str | None = setting(None, "branch, tag or commit on the Hub")
    columns: dict[str, str] = setting(
        {}, "our field -> the dataset's column, e.g. {question: problem, solution: answer}"
    )
    tag_match: str = setting(
        "once",
        "tags in an assistant's turn: each once, in order and with nothing around them, else the row is bad; "
        "or the first match of each pair counts, and the rest is ignored, as the original reads its data",
        choices=("once", "first"),
    )
    on_bad_row: str = setting("error", "stop at a bad row, or skip and list it", choices=("error", "skip"))
    on_long_row: str = setting(
        "drop",
        "rows over the length limits: drop them, keep their first data.max_length tokens (SFT only), or stop",
        choices=("drop", "truncate", "error"),
    )
    missing_trace: str = setting(
        "error",
        "SFT rows without a reasoning trace: stop, or let the solution stand for it",
        choices=("error", "solution"),
    )
    max_length: int = setting(16384, "SFT: tokens of a whole row", gt=0)
    shortest: int | None = setting(
        None,
        "use no more than so many rows, the shortest, after all have been checked (SFT: their last 1,024 "
        "tokens; RL: of held-out ones alone). For rehearsals; null: all",
        gt=0,
    )
    decontaminate: list[str] = setting(
        [],
        f"benchmarks ({', '.join(BENCHMARKS)}, read as `evaluate` reads them) or files with questions: rows "
        "whose question or solution shares 13 words in sequence with one of theirs are found, "
        "e.g. [math500, aime24, FILE]",
    )
    on_contaminated: str = setting(
        "drop",
        "rows that data.decontaminate finds: leave them out, or keep them; overlap.jsonl lists them",
        choices=("drop", "report"),
    )
    deduplicate: str = setting(
        "off",
        "rows that repeat an earlier one (its question, with its trace where traces are trained on): leave "
        "them out, or keep them and list them in overlap.jsonl",
        choices=("off", "drop", "report"),
    )
    subset: SubsetSettings = setting(SubsetSettings, "train on a random part only")
    eval_path: str | None = setting(None, "held-out problems: a local file or a Hub name; null: none")
    eval_split: str = setting("test", "split of eval_path where it has several")
    eval_subset: SubsetSettings = setting(SubsetSettings, "evaluate on a random part only")


@dataclass
class LayoutSettings:
    """The text around questions, solutions and explanations (method section 2)."""

    tags: str = setting(
        "bespoke",
        "tags around a student's thought and solution: bespoke, r1, or native, which writes both as the "
        "student's own chat template does; a teacher's tags are ours with all of them",
        choices=("bespoke", "r1", "native"),
    )
    teacher_prompt: str = setting(
        "default",
        "the teacher's system prompt: default, original:DIR (the released one, out of a checkout of "
        "SakanaAI/RLT), file:PATH, text:TEXT, or the text itself",
    )
    student_prompt: str = setting(
        "default",
        "the student's system prompt: default, from_dataset (the row's system column, byte-exact), "
        "from_dataset:NAME (the one text in that column of another dataset), skythought:DIR (SkyThought's "
        "own, out of a checkout), file:PATH, text:TEXT, or the text itself",
    )
    chat_template_kwargs: dict[str, Any] = setting(
        {},
        "switches of chat templates, e.g. {enable_thinking: false}; they hold wherever a chat is written",
    )
    show_solution: bool = setting(
        True,
        "the teacher's prompt holds the solution; false leaves it out, a control: what is the solution worth "
        "to a teacher? A model does not carry it, so it is typed wherever such a teacher is used",
    )
    date: str = setting(
        TEMPLATE_DATE, "the day, as YYYY-MM-DD, that is given to chat templates that write the date"
    )
    override: bool = setting(
        False,
        "use the tags and prompts that are typed though a model was trained with others, as its "
        "rlt_layout.json says; tags and prompts that are not typed are the model's own all the same",
    )


@dataclass
class TrainerSettings:
    """The optimisation, common to the stages."""

    max_steps: int = setting(-1, "optimizer steps; -1 counts num_train_epochs instead", ge=-1)
    num_train_epochs: float = setting(1.0, "passes over the data when max_steps is -1", gt=0)
    lr_scheduler_type: str = setting("constant", "learning-rate schedule, by transformers' name")
    warmup_steps: float = setting(0.0, "warm-up: a number of steps, or below 1 a fraction of them", ge=0)
    adam_beta1: float = setting(0.9, "AdamW beta 1", ge=0, lt=1)
    adam_beta2: float = setting(0.999, "AdamW beta 2", ge=0, lt=1)
    adam_epsilon: float = setting(1e-8, "AdamW epsilon", gt=0)
    weight_decay: float = setting(0.0, "AdamW decoupled weight decay", ge=0)
    max_grad_norm: float = setting(1.0, "gradient-norm clip; 0 is off", ge=0)
    gradient_checkpointing: bool | str = setting(
        True,
        "recompute activations (non-reentrant) to save memory; auto: only in micro-batches of more than "
        "trainer.recompute_above tokens",
        choices=("true", "false", "auto"),
    )
    recompute_above: int | None = setting(
        None,
        "trainer.gradient_checkpointing=auto: tokens, padding included, up to which a micro-batch keeps its "
        "activations; null: as many as fit, which launch.sh calculates for GPUs that it knows",
        ge=0,
    )
    grad_accum_dtype: str = setting(
        "model",
        "what DeepSpeed adds up the gradients of micro-batches in: the model's dtype (256 of them in "
        "bfloat16 are 1.5 to 2 % off), or float32, which takes memory; without DeepSpeed it is float32",
        choices=("model", "float32"),
    )
    beta: float = setting(0.04, "RL: weight of the KL term against the reference in the loss", ge=0)
    ref_sync_steps: int = setting(
        32, "RL: steps between mixes of the policy into the reference; 0 is off", ge=0
    )
    ref_mixup: float = setting(0.9, "RL: share of the policy in that mix", gt=0, le=1)
    loss_type: str = setting("grpo", "RL: loss reduction, by TRL's name")
    mask_truncated: bool = setting(False, "RL: no loss on completions that were cut by their length")
    scale_rewards: str = setting(
        "group", "RL: what advantages are divided by", choices=("group", "batch", "none")
    )
    logging_steps: int = setting(1, "write metrics every so many steps", gt=0)
    save_steps: int = setting(25, "checkpoint every so many steps; 0 keeps only the final model", ge=0)
    max_hours: float | None = setting(
        None,
        "hours, from the launcher's start, after which a run saves a checkpoint and leaves with exit code "
        "75; no step is begun that would not fit",
        gt=0,
    )
    hang_timeout: float = setting(
        4 * 3600.0,
        "seconds in one phase of a step (python -m rlt.status shows it) after which launch.sh ends a "
        "training that hangs; 0: never",
        ge=0,
    )
    save_on_sigterm: bool = setting(
        False,
        "a first SIGTERM to the launcher asks for a checkpoint after the step, as SIGUSR1 does, and ends the "
        "run then",
    )
    save_total_limit: int | None = setting(None, "checkpoints kept; null keeps all", gt=0)
    eval_steps: int = setting(0, "evaluate held-out problems every so many steps; 0 is off", ge=0)
    per_device_eval_batch_size: int = setting(8, "rows of one forward pass in SFT evaluation", gt=0)


@dataclass
class LengthSettings:
    """Length shaping: explanations outside of a range of tokens cost their relative distance from it."""

    weight: float = setting(
        0.0, "reward of an explanation of no tokens, or twice max_tokens, is less by this; 0 is off", ge=0
    )
    min_tokens: int = setting(0, "shorter explanations cost (min_tokens - n) / min_tokens", ge=0)
    max_tokens: int | None = setting(
        None, "longer explanations cost (n - max_tokens) / max_tokens; null: no limit", gt=0
    )


@dataclass
class CopySettings:
    """Solution-copy penalty: the share of the solution's n-word sequences that stand in the explanation."""

    weight: float = setting(0.0, "subtracted where all of the solution is copied; 0 is off", ge=0)
    n: int = setting(8, "words of a sequence; a shorter solution costs nothing", gt=0)


@dataclass
class FunctionSettings:
    """A reward function of the user."""

    path: str = setting("", "MODULE:FUNCTION; it is code that runs with your rights")
    weight: float = setting(1.0, "what one unit of its value is worth; 0 is off")


@dataclass
class StudentSettings:
    """One more student that judges explanations beside student_model."""

    name: str = setting("", "what its metrics are called: NAME/r_ss, NAME/r_kl")
    model: str = setting("", "a folder or a Hub name")
    weight: float = setting(1.0, "its share in reward.combine=mean, where student_model has 1")
    temperature: float | None = setting(
        None, "its logits are divided by this; null: reward.student_temperature"
    )
    prompt: str | None = setting(None, "its system prompt; null: layout.student_prompt")


@dataclass
class AnswerSettings:
    """Correctness: the share of right answers that the student gives after reading the explanation."""

    weight: float = setting(0.0, "added where all answers are right; 0 is off", ge=0)
    num_samples: int = setting(4, "answers sampled per explanation", gt=0)
    temperature: float = setting(0.7, "sampling temperature of the answers; 0 is greedy", ge=0)
    max_tokens: int = setting(512, "tokens of an answer; one that is cut counts as wrong", gt=0)
    servers: list[str] = setting(
        [], "addresses of vLLM servers that serve student_model; empty: the student in this process answers"
    )
    grader: str = setting(
        "math",
        "math: equal by math-verify; countdown: the reference's numbers, each once, and its value",
        choices=("math", "countdown"),
    )
    grading_seconds: float = setting(
        5.0, "CPU seconds for grading an answer; one that needs more is wrong", gt=0
    )


@dataclass
class RewardSettings:
    """The student-likelihood reward (method section 3). Its coefficients are root keys."""

    student_temperature: float = setting(0.7, "the student's logits are divided by this", gt=0)
    answer_reductions: list[str] = setting(
        ["mean", "min"], "reductions of the solution's log-probabilities, one per answer_log_prob_coeff"
    )
    kl_reductions: list[str] = setting(
        ["mean", "max"], "reductions of the explanation's divergence, one per kl_penalty_reward_coeff"
    )
    solution_span: str = setting(
        "released",
        "tokens that r_SS counts: content, those wholly inside the solution; released, also the blank line "
        "after it, alone or joined with the last character (does the student know that it ends here?)",
        choices=SOLUTION_SPANS,
    )
    answer_transform: str = setting("none", "elementwise map before reducing", choices=TRANSFORMS)
    answer_baseline: bool = setting(
        False,
        "subtract from r_SS what it is with an empty explanation: the student reads each solution once more",
    )
    answer_result_transform: str = setting(
        "none", "map of r_SS itself, after reducing and the baseline", choices=TRANSFORMS
    )
    answer_result_clip: list[float] = setting([], "[low, high] on r_SS itself, last of all; empty is off")
    kl_transform: str = setting("none", "elementwise map before reducing", choices=TRANSFORMS)
    answer_clip: list[float] = setting([], "[low, high] on the raw log-probabilities; empty is off")
    kl_clip: list[float] = setting([], "[low, high] on the raw divergence; empty is off")
    kl_estimator: str = setting(
        "k1",
        "k1: log-ratio of the sampled token; k3: exp(-d) - 1 + d; student_nll: -log p of the student alone",
        choices=("k1", "k3", "student_nll"),
    )
    teacher_logprobs: str = setting(
        "policy",
        "whose log-probabilities stand for the teacher: the trainer's policy or the engine's samples",
        choices=("policy", "engine"),
    )
    missing_tag_penalty: float = setting(1.0, "subtracted when the closing explanation tag is missing", ge=0)
    text_after_tag_penalty: float = setting(0.0, "subtracted when text follows the closing tag", ge=0)
    empty_explanation_divergence: float = setting(
        1.0, "divergence that an explanation without tokens counts with, in every reduction", ge=0
    )
    placement: str = setting(
        "replicated",
        "the frozen student: a copy on each GPU, sharded with ZeRO-3, resting in host memory between uses, "
        "or behind servers that `python -m rlt.launch.student_server` starts",
        choices=("replicated", "zero3", "cpu_offload", "server"),
    )
    servers: list[str] = setting(
        [], "base addresses of the student's servers, for placement server, e.g. [http://127.0.0.1:8100]"
    )
    verify_server: bool = setting(
        True, "before anything is paid, compare a served or sharded student with a plain load of it here"
    )
    dtype: str = setting("bfloat16", "dtype of the student's weights", choices=("bfloat16", "float32"))
    tokens_per_batch: int = setting(32768, "padded tokens of one scoring forward pass", gt=0)
    students: list[StudentSettings] = setting(
        [], "further students, e.g. [{name: small, model: PATH, weight: 0.5}]"
    )
    combine: str = setting(
        "mean",
        "several students: the mean by weight, or for each explanation the one with the lowest r_ss - r_kl",
        choices=("mean", "min"),
    )
    length: LengthSettings = setting(LengthSettings, "length shaping")
    copy: CopySettings = setting(CopySettings, "solution-copy penalty")
    answers: AnswerSettings = setting(AnswerSettings, "correctness of the student's own answers")
    functions: list[FunctionSettings] = setting(
        [], "your own reward functions, e.g. [{path: my_rewards:brevity, weight: 0.5}]"
    )


@dataclass
class CorrectnessSettings:
    """What student_rl pays for: right answers, and the form of an answer that is wrong."""

    weight: float = setting(1.0, "reward of a right answer", gt=0)
    format_weight: float = setting(
        0.1, "reward of a wrong answer whose thought and solution stand in the student's tags", ge=0
    )
    grader: str = setting(
        "math",
        "math: equal by math-verify; countdown: the reference's numbers, each once, and its value",
        choices=("math", "countdown"),
    )
    grading_seconds: float = setting(
        5.0, "CPU seconds for grading an answer; one that needs more is wrong", gt=0
    )


@dataclass
class GenerationSettings:
    """The engine that writes completions. Temperature and lengths are root keys."""

    backend: str = setting("vllm", "engine", choices=("vllm", "transformers"))
    top_p: float = setting(1.0, "nucleus sampling; 1 is off", gt=0, le=1)
    top_k: int = setting(0, "sample among the k likeliest tokens; 0 is off", ge=0)
    min_p: float = setting(0.0, "drop tokens below this share of the likeliest one; 0 is off", ge=0, lt=1)
    repetition_penalty: float = setting(1.0, "1 is off", gt=0)
    stop_at_tag: bool = setting(False, "end a completion at the closing explanation tag")
    servers: list[str] = setting(
        [], "base addresses of running vLLM servers, e.g. [http://127.0.0.1:8000]; launch.sh fills this in"
    )
    api: str = setting(
        "vllm",
        "evaluate: what generation.servers speak; openai sends and reads text, and asks any server of "
        "OpenAI's completions API",
        choices=("vllm", "openai"),
    )
    api_model: str | None = setting(
        None,
        "openai: the model to ask, by its name in the server's list; null: the only one in it",
    )
    retry_seconds: float = setting(
        600.0,
        "openai: seconds that one request may wait, in all, for a server that is busy or broken",
        gt=0,
    )
    overlap: bool = setting(
        True,
        "RL with vLLM: let student, teacher and reference read completions while others are being written; "
        "off, they wait for the last one; the numbers are the same",
    )
    weight_sync: str = setting(
        "auto",
        "how weights reach the servers: nccl broadcast, or a safetensors checkpoint they reload; "
        "auto is nccl on GPUs and checkpoint elsewhere",
        choices=("auto", "nccl", "checkpoint"),
    )
    sync_dir: str | None = setting(
        None, "folder for the checkpoint sync, visible to trainer and servers; null: under output_dir"
    )
    request_timeout: float = setting(
        1800.0,
        "seconds that a server may be silent with requests in flight: no answer, and no further token; a "
        "generation that goes on may take any time. openai: seconds for one answer, asked again then",
        gt=0,
    )
    sync_timeout: float = setting(600.0, "seconds that one weight sync may take, with all its requests", gt=0)
    max_restarts: int = setting(
        1,
        "RL: times that servers which have ended are started again by the launcher; the trainer waits for "
        "them, pushes its weights and repeats what was lost",
        ge=0,
    )
    startup_timeout: float = setting(900.0, "seconds a server may take to answer its first token", gt=0)
    silence_timeout: float = setting(
        300.0, "seconds without an answer of a server's /health after which launch.sh ends it; 0: never", ge=0
    )
    drift_limit: float | None = setting(
        None,
        "warn when the mean |policy - sampled| log-probability of a step passes this, and stop when it does "
        "before the first step; null: 0.001 where everything is float32, else 0.05 (in bfloat16 engine and "
        "trainer never agree)",
        gt=0,
    )
    tensor_parallel: int = setting(1, "GPUs per vLLM server", gt=0)
    gpu_memory_utilization: float = setting(0.9, "share of a GPU that a server may take", gt=0, le=1)
    dtype: str = setting("bfloat16", "dtype of the server's weights", choices=("bfloat16", "float32"))
    host: str = setting("127.0.0.1", "address that servers started by launch.sh listen on")
    api_key_file: str | None = setting(
        None,
        "file (mode 600) with the key that servers demand, those we start and those we ask; null: the "
        "environment variable VLLM_API_KEY, and for servers that launch.sh starts a new key for each run",
    )
    allow_open_servers: bool = setting(
        False, "servers without a key, beyond this machine too: anyone who reaches one can run code there"
    )
    base_port: int = setting(0, "first port of the servers; 0 picks free ones", ge=0, le=65535)
    server_args: list[str] = setting([], "further arguments for the vLLM command line")


@dataclass
class EvaluationSettings:
    """Held-out evaluation during training."""

    num_generations: int = setting(4, "explanations sampled per held-out problem", gt=0)
    at_start: bool = setting(True, "evaluate once before the first step")


@dataclass
class DuringTrainingSettings:
    """Benchmarks while a student trains (student_sft, student_rl): those of evaluate.tasks, asked and graded
    as in the stage evaluate. A few problems, greedily: a curve to watch, not a result to report."""

    every_steps: int = setting(
        0, "answer them every so many optimizer steps, and after the last one; 0 is off", ge=0
    )
    num_problems: int | None = setting(64, "problems of each task, always the same; null: all", gt=0)
    num_samples: int = setting(1, "answers to each problem", gt=0)
    temperature: float = setting(0.0, "sampling temperature; 0 is greedy", ge=0, le=2)
    top_p: float = setting(1.0, "nucleus sampling; 1 is off", gt=0, le=1)
    max_tokens: int = setting(
        4096, "tokens of an answer, in student_rl never more than max_completion_length", gt=0
    )
    seed: int = setting(
        41,
        "decides the problems and the samples, so that runs with other seeds can be compared",
        ge=0,
        lt=2**32,
    )


@dataclass
class BenchmarkSettings:
    """A benchmark: where its rows come from, which columns say what, and what kind of answer is right."""

    name: str = setting("", "what evaluate.tasks calls it: small letters, digits and _")
    hub: str | None = setting(None, "dataset on the Hub; null: evaluate.paths={NAME: FILE} gives the rows")
    revision: str | None = setting(
        None, "its commit, where evaluate.revisions does not say another; null: newest"
    )
    split: str = setting("test", "split of the dataset")
    config_name: str | None = setting(None, "configuration of the dataset")
    question: str = setting("problem", "column of the question")
    answer: str = setting(
        "answer",
        r"column of the right answer: a text, a number, a list of texts, or a solution that ends in \boxed{} "
        "or ####; with options a letter, a place from 0 on, or the column of the right option",
    )
    grader: str = setting("math", "kind of its answers", choices=ANSWER_KINDS)
    options: list[str] = setting([], "with choice or choice10: columns of one option each, or one of a list")
    shuffle: bool = setting(False, "shuffle the options, as evaluate.option_order says")
    most_digits: int = setting(0, "answers are whole numbers of at most so many digits; 0: no rule")
    only: dict[str, str] = setting({}, "column -> text that it holds in the rows of this benchmark")
    groups: list[str] = setting([], "columns by which the accuracy is reported as well, such as level")
    prompt: str = setting(BOXED, "what the user's turn says, with {question} where the question goes")
    num_problems: int | None = setting(None, "how many it has, to notice a file that lacks some")
    num_samples: int | None = setting(
        None, "answers to each problem under evaluate.num_samples=null; null: by the number of problems"
    )
    licence: str = setting("", "of the dataset, for the docs")
    private: bool = setting(False, "its questions must not be passed on: nothing that is written holds one")


@dataclass
class EvaluateSettings:
    """The stage evaluate: which questions, asked how, graded how. eval_cfg=skythought and =robust set it."""

    tasks: list[str] = setting(
        ["aime24", "math500", "gpqa_diamond"],
        f"any of {', '.join(BENCHMARKS)}, and {LOCAL_TASK}: those of dataset_id_or_path, while training of "
        "data.eval_path",
    )
    benchmarks: list[BenchmarkSettings] = setting(
        [], "benchmarks of your own, one record each (docs/evaluation.md); evaluate.tasks names what is asked"
    )
    paths: dict[str, str] = setting(
        {}, "task -> a file with the dataset's own columns, to read instead of the Hub, e.g. {aime24: FILE}"
    )
    revisions: dict[str, str] = setting({}, "task -> branch, tag or commit of its dataset on the Hub")
    prompts: dict[str, str] = setting(
        {}, "task -> what the user's turn says, with {question} where the question goes; as it is if left out"
    )
    original: str | None = setting(
        None,
        "SkyThought's package as scripts/setup.sh --skythought unpacks it (.venv/skythought), or a checkout: "
        "asks in the words of its task files, and adds its grader's verdict; null: our words, no second "
        "verdict",
    )
    num_samples: int | None = setting(
        None,
        "answers to each problem; null: what the number of problems asks for (AIME 32, GPQA 8, MATH 2, else "
        "1,000 over the number of problems, at most 32)",
        gt=0,
    )
    option_order: str = setting(
        "row",
        "options of a question are shuffled by a random stream that runs through all rows, or by each row's "
        "own seed",
        choices=("stream", "row"),
    )
    unfinished: str = setting(
        "wrong",
        "a thought that never ends has no answer and is wrong, or the text is graded as a whole",
        choices=("wrong", "whole"),
    )
    extraction: str = setting(
        "lenient",
        "rules that find the answer in a text, in order: those of SkyThought (last box, answer phrase, last "
        "number; last letter), or more careful ones (a formula alone, the letter in a box, ...)",
        choices=("skythought", "lenient"),
    )
    grader: str = setting(
        "math",
        f"kind of answers in {LOCAL_TASK}: mathematics, the letter of one of four or of ten options, or "
        "Countdown expressions",
        choices=ANSWER_KINDS,
    )
    grading_seconds: float = setting(
        5.0, "CPU seconds for grading an answer; one that needs more is wrong", gt=0
    )
    requests_per_server: int = setting(512, "vllm: requests in flight per server", gt=0)
    samples_per_chunk: int = setting(
        16, "transformers: answers of one batch, which is saved or lost as a whole", gt=0
    )
    reference: bool = setting(False, "show published accuracies beside ours in summary.md and report.html")
    report_samples: int = setting(
        100, "answers of all tasks together in report.html, each cut to 8,000 characters", ge=0, le=2000
    )
    during_training: DuringTrainingSettings = setting(
        DuringTrainingSettings, "benchmarks while a student trains"
    )


@dataclass
class MonitorSettings:
    """When RL warns, with advice. The numbers are logged as monitor/NAME whatever is set here."""

    max_solution_copied: float | None = setting(
        0.5,
        "warn above this mean share of a solution's 8-word sequences that stand in its explanation (0.2 in "
        "honest reasoning traces); solutions of fewer words do not count; null: never",
        ge=0,
        le=1,
    )
    max_solution_first: float | None = setting(
        0.2,
        "warn when more than this share of explanations state a solution of fewer than 8 words in their "
        "first tenth; single characters, and solutions that the question holds, do not count; null: never",
        ge=0,
        le=1,
    )
    max_length_ratio: float | None = setting(
        2.0, "warn when explanations are this many times as long as in the first steps; null: never", gt=1
    )
    min_length_ratio: float | None = setting(
        0.5, "warn when explanations have shrunk to this share of the first steps; null: never", gt=0, lt=1
    )
    baseline_steps: int = setting(5, "first steps whose mean length stands for the start", gt=0)
    max_missing_tag: float | None = setting(
        0.2, "warn when more than this share lacks the closing explanation tag; null: never", ge=0, le=1
    )
    max_malformed: float | None = setting(
        0.2,
        "student_rl: warn when more than this share is no thought with an answer, ended by the student; "
        "null: never",
        ge=0,
        le=1,
    )
    max_truncated: float | None = setting(
        0.2, "warn when more than this share is cut by max_completion_length; null: never", ge=0, le=1
    )
    max_zero_variance: float | None = setting(
        0.25, "warn when in more than this share of groups all rewards are equal; null: never", ge=0, le=1
    )
    max_kl_share: float | None = setting(
        0.98,
        "warn when r_kl makes up more than this share of V(r_ss) + V(r_kl), the variances within groups; "
        "null: never",
        gt=0.5,
        le=1,
    )
    min_kl_share: float | None = setting(
        None,
        "warn when r_kl makes up less than this share of it, e.g. 0.02; null: never (a teacher that starts "
        "close to the student begins near 0)",
        ge=0,
        lt=0.5,
    )


@dataclass
class CollectSettings:
    """Collecting explanations of a dataset. A seed, a problem_id and a sample_index decide a sample."""

    num_samples: int = setting(1, "explanations of each row", gt=0)
    first_sample_index: int = setting(
        0, "sample_index of a row's first one: the number that there are already, to collect others", ge=0
    )
    only: str | None = setting(
        None,
        "a .jsonl file with `problem_id`, and `sample_index` where a certain one is wanted: collect for "
        "these problems alone; null: for all",
    )
    requests_per_server: int = setting(
        512, "vllm: requests in flight per server; those that it cannot run yet wait in its queue", gt=0
    )
    samples_per_chunk: int = setting(
        16, "transformers: explanations of one batch, which is saved or lost as a whole", gt=0
    )
    push_to_hub: str | None = setting(
        None, "upload traces and card to this dataset on the Hub, OWNER/NAME, private if new; null: don't"
    )


@dataclass
class ScoreSettings:
    """Scoring and ranking of traces that exist already."""

    rows_per_shard: int = setting(
        256, "traces scored between two saves; a killed run loses no more than that", gt=0
    )
    fallback_index: int | None = setting(
        None,
        "place among a problem's explanations (negative: from the end) of the one that is chosen only where "
        "no other has a score; null: none",
    )
    rank_buckets: int = setting(4, "rows of the table of mean scores by rank, at most", gt=0)


@dataclass
class ShowSettings:
    """Which traces are shown by token."""

    rows: list[int] = setting([], "rows of the source, counted from 1; each with all its explanations")
    best: int = setting(3, "how many of the traces with the highest score", ge=0)
    worst: int = setting(3, "how many of the traces with the lowest score", ge=0)


@dataclass
class TracesSettings:
    """Further sources of traces (select_traces, plan_traces)."""

    more: list[str] = setting(
        [],
        "files whose explanations join those of dataset_id_or_path, e.g. what was collected again; numbered "
        "on where a sample_index is taken",
    )


@dataclass
class SelectSettings:
    """Which explanations students are trained on."""

    rule: str = setting(
        "none",
        "none: all; of each problem: the first that is well-formed, the best by score, the shortest, a "
        "random one, or (rank) all whose rank by score lies in rank_bucket",
        choices=SELECTION_RULES,
    )
    max_length: int | None = setting(
        None,
        "choose only among those whose whole sequence, in student_model's tokens, is no longer; null: all",
        gt=0,
    )
    rank_bucket: list[int] = setting([], "[first, last] rank by score within the problem, for rule rank")


@dataclass
class PlanSettings:
    """How many traces fit a context budget."""

    max_length: int = setting(16384, "tokens of the student's whole training sequence that fit", gt=0)
    cutoffs: list[int] = setting([4096, 8192, 16384, 32768], "further budgets to compare")
    recollect_samples: int = setting(
        1, "further explanations that recollect.jsonl asks for, of each problem of which none fits", gt=0
    )


@dataclass
class HardwareSettings:
    """What the launchers' forecast of memory and time takes for granted; training reads none of it."""

    gpu: str = setting(
        "auto",
        "kind of GPU to forecast for; auto asks nvidia-smi, and takes h100-80g where there is none",
        choices=("auto", *GPU_KINDS),
    )
    mean_prompt_tokens: int | None = setting(
        None,
        "mean tokens of a prompt (SFT: of what stands before the answer); null: a sixteenth of the limit",
        gt=0,
    )
    mean_completion_tokens: int | None = setting(
        None, "mean tokens of a completion (SFT: of an answer); null: a quarter of the limit", gt=0
    )


@dataclass
class DistillSettings:
    """Fine-tuning a student on traces."""

    turn_end: str = setting(
        "end_of_turn",
        "the token that the student learns to stop with: that of its chat template (Qwen: <|im_end|>), or "
        "the end of text (<|endoftext|>), as the published students do",
        choices=("end_of_turn", "end_of_text"),
    )
    malformed: str = setting(
        "keep",
        "traces that are marked as malformed, are empty, or hold tags of the student's layout: train on "
        "them as they are, or leave them out",
        choices=("keep", "drop"),
    )


@dataclass
class InferSettings:
    """One question to a student, or with its solution to a teacher."""

    question: str | None = setting(None, "the question")
    solution: str | None = setting(
        None, "its solution: then the model is a teacher, which explains it; null: it is a student"
    )


@dataclass
class CountdownSettings:
    """Which Countdown problems make_countdown makes."""

    num_train: int = setting(1000, "problems to train on", gt=0)
    num_test: int = setting(100, "problems held out: other numbers or another target", gt=0)
    seed: int = setting(0, "seed of the problems", ge=0, lt=2**32)
    min_numbers: int = setting(3, "fewest numbers of a problem", ge=2, le=6)
    max_numbers: int = setting(4, "most numbers of a problem", ge=2, le=6)
    max_number: int = setting(99, "numbers are drawn from 1 to this", gt=0, le=10**6)
    min_target: int = setting(1, "lowest target", ge=0)
    max_target: int = setting(100, "highest target", ge=0)
    operations: list[str] = setting(
        list(OPERATIONS), "what a reference solution may use; answers may use all four"
    )
    question: str | None = setting(
        None, "the question, with {numbers} and {target} where they go; null: one in words with an example"
    )


@dataclass
class PipelineSettings:
    """Stages one after the other, each reading what earlier ones wrote."""

    steps: dict[str, Any] = setting(
        {},
        "step -> its settings, e.g. student_sft: {dataset_id_or_path: '{collect_traces}/traces.jsonl'}; "
        "'{STEP}' is a step's run directory, run_cfg its run file (by default that of its name), gpus and "
        "strategy what the launcher gets (gpus: '4 4', strategy: offload)",
    )
    every: dict[str, Any] = setting({}, "settings of all steps that do not set them themselves")
    prefix: str | None = setting(
        None,
        "run files with this before their name are taken where there are some: quickstart_ is the toy world",
    )
    fork: bool = setting(
        False,
        "load the libraries once and fork for each step that is one process on a CPU without servers, which "
        "saves tiny models most of their time",
    )
    ignore_code: bool = setting(
        False, "let finished steps stand although the code has changed since; else they run again"
    )


@dataclass
class Config:
    """The whole configuration. Root keys are what people type on the command line."""

    stage: str = setting(MISSING, "what to run; a run file sets it", choices=tuple(STAGES))
    recipe: str = setting("released", "preset of trainer settings", choices=RECIPES)
    model_name_or_path: str | None = setting(
        MISSING,
        "the model to train, or the teacher that explains: a folder or a Hub name; where traces are scored "
        "the teacher, null for none",
    )
    dataset_id_or_path: str = setting(MISSING, "the problems: a file, a folder or a Hub name")
    student_model: str | None = setting(
        None, "teacher_rl and scoring: the frozen student that pays the reward"
    )
    learning_rate: float = setting(1e-6, "peak learning rate", gt=0)
    train_batch_size: int = setting(
        16, "rows (SFT) or completions (RL) of one optimizer step, over all processes", gt=0
    )
    per_device_train_batch_size: int = setting(1, "rows or completions of one forward pass", gt=0)
    num_generations: int = setting(64, "RL: completions per problem (the group)", ge=2)
    temperature: float = setting(
        0.7, "sampling temperature; 2 is the most vLLM takes, 0 (greedy) is for collecting alone", ge=0, le=2
    )
    max_prompt_length: int = setting(
        16384, "RL, collecting, evaluating: tokens of a prompt; see data.on_long_row", gt=0
    )
    max_completion_length: int = setting(
        16384, "RL, collecting, evaluating: tokens that the model may write", gt=0
    )
    answer_log_prob_coeff: list[float] = setting([1.0, 0.01], "weights of reward.answer_reductions in r_SS")
    kl_penalty_reward_coeff: list[float] = setting([3.0, 0.03], "weights of reward.kl_reductions in r_KL")
    results_dir: str = setting("results", "folder that holds the run directories")
    output_dir: str = setting(MISSING, "this run's directory")
    resume_from: str | None = setting(
        None,
        "checkpoint folder, `latest` for the newest in output_dir, or `auto` for that one where there is any",
    )
    seed: int = setting(42, "seed of everything random", ge=0, lt=2**32)
    report_to: str | None = setting(None, "experiment tracker besides metrics.jsonl", choices=TRACKERS)
    wandb_project: str = setting("rlt", "project name for wandb")
    model: ModelSettings = setting(ModelSettings, "loading the trained model")
    data: DataSettings = setting(DataSettings, "reading problems")
    layout: LayoutSettings = setting(LayoutSettings, "tags and prompts")
    trainer: TrainerSettings = setting(TrainerSettings, "optimisation")
    reward: RewardSettings = setting(RewardSettings, "the reward of explanations")
    correctness: CorrectnessSettings = setting(CorrectnessSettings, "student_rl: the reward of answers")
    generation: GenerationSettings = setting(GenerationSettings, "the engine")
    evaluation: EvaluationSettings = setting(EvaluationSettings, "evaluation during training")
    evaluate: EvaluateSettings = setting(EvaluateSettings, "benchmarks of a trained student")
    monitors: MonitorSettings = setting(MonitorSettings, "RL: warnings while training")
    collect: CollectSettings = setting(CollectSettings, "collecting explanations")
    score: ScoreSettings = setting(ScoreSettings, "scoring of existing traces")
    show: ShowSettings = setting(ShowSettings, "showing traces by token")
    traces: TracesSettings = setting(TracesSettings, "further sources of traces")
    select: SelectSettings = setting(SelectSettings, "choosing the traces to train on")
    plan: PlanSettings = setting(PlanSettings, "planning a context budget")
    hardware: HardwareSettings = setting(HardwareSettings, "what the forecast of memory and time assumes")
    distill: DistillSettings = setting(DistillSettings, "fine-tuning a student on traces")
    infer: InferSettings = setting(InferSettings, "one question to a trained model")
    countdown: CountdownSettings = setting(CountdownSettings, "making Countdown problems")
    pipeline: PipelineSettings = setting(PipelineSettings, "stages one after the other")
    trainer_args: dict[str, Any] = setting(
        {}, "further arguments of TRL's SFTConfig or GRPOConfig, by their own names"
    )


def stage_of(config: Config) -> Stage:
    """Return what the table of stages says of a configuration's stage."""
    return STAGES[config.stage]
