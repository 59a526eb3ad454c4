"""The table of stages: what each one reads, needs, generates, trains and checks. Data alone, in one place.

A setting that is typed and that the stage does not read is refused (typed.py), is not written to its
config.yaml (save.py) and is not on its help page (explain.py). What it reads under a condition alone is in
conditions.py.

A new setting: add its name to one of the groups below, or to a stage's own `settings`. A section's name
means all of its settings. tests/config/test_stages.py names a setting that nobody reads, and
tests/stages/test_stage_table.py a setting that is read without being here, or here without being read.
"""

from __future__ import annotations

from rlt.config.stage import Stage

NOTHING = {"model_name_or_path": None, "dataset_id_or_path": "none", "output_dir": "none"}
"""What these say in a stage that does not read them: it is filled in, and may be typed."""


_RUN = ("stage", "results_dir", "output_dir")
_DATASET = (
    *("dataset_id_or_path", "data.format", "data.split", "data.config_name", "data.revision"),
    *("data.columns", "data.tag_match", "data.on_bad_row", "data.subset"),
)
_CLEANING = (
    *("data.decontaminate", "data.on_contaminated", "data.deduplicate"),
    # the benchmarks' questions
    *("evaluate.benchmarks", "evaluate.paths", "evaluate.revisions", "evaluate.option_order"),
)
_TOO_LONG = ("data.on_long_row", "data.shortest")
_HELD_OUT = (
    *("evaluation.path", "evaluation.split", "evaluation.subset", "evaluation.steps"),
    "evaluation.at_start",
)
_MODEL = (
    *("model_name_or_path", "model.dtype", "model.attn_implementation", "model.revision"),
    "model.trust_remote_code",
)
_LAYOUT = ("layout.tags", "layout.chat_template_kwargs", "layout.date")
_TRAINING = (
    *(*_RUN, *_MODEL, *_DATASET, *_TOO_LONG, *_HELD_OUT, *_CLEANING),
    *("recipe", "seed", "model.lora", *_LAYOUT, "layout.override"),
    *("learning_rate", "train_batch_size", "per_device_train_batch_size", "resume_from"),
    *("report_to", "wandb_project", "trainer_args", "hardware"),
    "temperature",  # of an SFT stage too: the sampling default that is saved with its model
    *("trainer.max_steps", "trainer.num_train_epochs", "trainer.lr_scheduler_type", "trainer.warmup_steps"),
    *("trainer.adam_beta1", "trainer.adam_beta2", "trainer.adam_epsilon", "trainer.weight_decay"),
    *(
        "trainer.max_grad_norm",
        "trainer.gradient_checkpointing",
        "trainer.recompute_above",
        "trainer.grad_accum_dtype",
        "trainer.logging_steps",
    ),
    *("trainer.save_steps", "trainer.save_total_limit"),
    *("trainer.max_hours", "trainer.hang_timeout", "trainer.save_on_sigterm"),
)
_SFT = ("data.max_length", "evaluation.per_device_batch_size")
_PLAIN_SAMPLING = (
    *("temperature", "max_completion_length", "generation.top_p", "generation.top_k", "generation.min_p"),
    "generation.repetition_penalty",
)
_SERVERS = ("generation.request_timeout", "generation.api_key_file", "generation.allow_open_servers")
"""Of the servers that are asked, started by us or by others."""
_ENGINE = (
    *(*_PLAIN_SAMPLING, *_SERVERS, "max_prompt_length", "generation.backend", "generation.servers"),
    *("generation.startup_timeout", "generation.silence_timeout", "generation.tensor_parallel"),
    *("generation.gpu_memory_utilization", "generation.dtype", "generation.host", "generation.base_port"),
    "generation.server_args",
)
_ON_POLICY = (
    *(*_ENGINE, "num_generations", "evaluation.num_generations"),
    *("trainer.beta", "trainer.ref_sync_steps", "trainer.ref_mixup", "trainer.loss_type"),
    "trainer.mask_truncated",
    *("generation.weight_sync", "generation.sync_dir", "generation.sync_timeout"),
    *("generation.max_restarts", "generation.drift_limit", "generation.overlap"),
    "generation.max_staleness",
    *("monitors.max_length_ratio", "monitors.min_length_ratio", "monitors.baseline_steps"),
    "monitors.max_truncated",
)
_RL = (*_ON_POLICY, "trainer.scale_rewards", "monitors.max_zero_variance")
_ASKING = (
    "evaluate.benchmarks",
    *("evaluate.paths", "evaluate.revisions", "evaluate.prompts", "evaluate.grader"),
    "evaluate.original",
    *("evaluate.option_order", "evaluate.unfinished", "evaluate.extraction", "evaluate.grading_seconds"),
)
_WHILE_TRAINING = (*_ASKING, "evaluation.benchmarks")
_SOLUTION_SCORE = (
    *("student_model", "answer_log_prob_coeff", "layout.student_prompt"),
    *("reward.student_temperature", "reward.answer_reductions", "reward.solution_span"),
    *("reward.answer_transform", "reward.answer_clip", "reward.answer_length_norm"),
    *("reward.answer_baseline", "reward.answer_result_transform", "reward.answer_result_clip"),
    *("reward.missing_tag_penalty", "reward.placement", "reward.dtype", "reward.tokens_per_batch"),
)
"""r_SS, and the student that gives it."""
_LIKELIHOOD = (
    *(*_SOLUTION_SCORE, "kl_penalty_reward_coeff", "reward.kl_reductions"),
    *("reward.kl_transform", "reward.kl_clip", "reward.kl_estimator", "reward.text_after_tag_penalty"),
    *("reward.empty_explanation_divergence", "reward.servers", "reward.students", "reward.combine"),
)
_SCORING = (
    *(*_RUN, *_DATASET, *_MODEL, *_LIKELIHOOD, *_SERVERS),
    *(*_LAYOUT, "layout.teacher_prompt", "layout.show_solution", "layout.override"),
    *("temperature", "reward.verify_server"),
)
_TRACE_FILES = (
    *(*_RUN, *_DATASET, "traces", "score.fallback_index", "student_model", "model.trust_remote_code"),
    *(*_LAYOUT, "layout.student_prompt", "layout.override"),
)

_NEEDS_MODEL = (
    "model_name_or_path",
    ": give a value (the model to train, a folder or a Hub name).",
)
_NEEDS_STUDENT = (
    "student_model",
    ", but {stage} is paid by a student: give a model's folder or a Hub name, which is frozen (null "
    "meant, in the original release, the reference model of an RL run: that is student_model=reference).",
)
_RESUMES = ("resume_from", "it resumes by itself in the same output_dir")
_KEEPS_LONG = ("data.on_long_row", "traces that are too long are marked, and kept")
_NO_TAG = ("generation.stop_at_tag", "the tag is a teacher's, and a student has to end its turn by itself")

STAGES: dict[str, Stage] = {
    "teacher_sft": Stage(
        "warm-up: fine-tunes a teacher on reasoning traces in its own layout",
        settings=(
            *(*_TRAINING, *_SFT, "layout.teacher_prompt", "layout.show_solution", "data.missing_trace"),
        ),
        needs=(_NEEDS_MODEL,),
        checks=("bounds", "attention", "batch", "trainer", "greedy", "data", "files", "lengths"),
        model="teacher",
        trains=True,
        rehearses=True,
        notes=(("max_completion_length", "data.max_length limits a whole row"),),
    ),
    "teacher_rl": Stage(
        "trains a teacher by RL with the reward of frozen students",
        settings=(
            *(*_TRAINING, *_RL, *_LIKELIHOOD, "layout.teacher_prompt", "layout.show_solution"),
            "generation.stop_at_tag",
            *("reward.teacher_logprobs", "reward.verify_server", "reward.length", "reward.copy"),
            *("reward.answers", "reward.functions", "reward.answer_group"),
            *("monitors.max_solution_copied", "monitors.max_solution_first", "monitors.max_missing_tag"),
            *("monitors.max_kl_share", "monitors.min_kl_share"),
        ),
        needs=(_NEEDS_MODEL, _NEEDS_STUDENT),
        checks=(
            *("bounds", "attention", "batch", "trainer", "greedy", "data", "reward", "components", "student"),
            *("engine_logprobs", "generation", "files", "lengths", "servers", "server_key"),
        ),
        model="teacher",
        trains=True,
        generates=True,
        scores=True,
        rehearses=True,
    ),
    "collect_traces": Stage(
        "collects the explanations that a teacher writes for a dataset",
        settings=(
            *(*_RUN, *_MODEL, *_DATASET, *_TOO_LONG, *_CLEANING, *_ENGINE, "seed", "collect"),
            *("layout", "generation.stop_at_tag"),
        ),
        needs=(_NEEDS_MODEL,),
        checks=(
            *(
                "bounds",
                "attention",
                "one_process",
                "collect",
                "data",
                "generation",
                "files",
                "lengths",
                "servers",
            ),
            "server_key",
        ),
        model="teacher",
        generates=True,
        rehearses=True,
        notes=(_RESUMES,),
    ),
    "student_sft": Stage(
        "fine-tunes a student on traces",
        settings=(
            *(*_TRAINING, *_SFT, *_WHILE_TRAINING, "evaluate.samples_per_chunk", "distill"),
            *("layout.student_prompt", "max_prompt_length"),
        ),
        needs=(_NEEDS_MODEL,),
        checks=(
            *(
                "bounds",
                "attention",
                "batch",
                "trainer",
                "during_training",
                "greedy",
                "data",
                "own_prompt",
                "files",
            ),
            "lengths",
        ),
        model="student",
        trains=True,
        reads_traces=True,
        rehearses=True,
        notes=(
            (
                "data.missing_trace",
                "a student that is taught the solution as its thought learns not to think",
            ),
            ("max_completion_length", "data.max_length limits a whole row"),
        ),
    ),
    "student_rl": Stage(
        "trains a student by RL with a grader's verdicts, or with the solution's likelihood",
        settings=(
            *(*_TRAINING, *_RL, *_WHILE_TRAINING, "correctness", *_SOLUTION_SCORE),
            *("reward.answer_group", "monitors.max_malformed"),
        ),
        needs=(_NEEDS_MODEL,),
        checks=(
            *("bounds", "attention", "batch", "trainer", "during_training", "greedy", "data", "own_prompt"),
            *("correctness", "generation", "files", "lengths", "servers", "server_key"),
        ),
        model="student",
        trains=True,
        generates=True,
        rehearses=True,
        notes=(_NO_TAG,),
    ),
    "student_opd": Stage(
        "trains a student on its own completions, towards a teacher that knows the solution",
        settings=(
            *(*_TRAINING, *_ON_POLICY, *_WHILE_TRAINING, "teacher_model", "opd", "layout.student_prompt"),
            *("layout.teacher_prompt", "layout.show_solution", "monitors.max_malformed"),
            "monitors.max_solution_copied",
            "monitors.max_solution_first",
        ),
        needs=(_NEEDS_MODEL,),
        checks=(
            *("bounds", "attention", "batch", "trainer", "during_training", "greedy", "data", "own_prompt"),
            *("opd", "generation", "files", "lengths", "servers", "server_key"),
        ),
        model="student",
        trains=True,
        generates=True,
        is_judged=True,
        rehearses=True,
        notes=(
            _NO_TAG,
            ("student_model", "model_name_or_path is the student, teacher_model its teacher"),
        ),
    ),
    "infer": Stage(
        "asks a student one question, or a teacher for one explanation, in this process",
        settings=("stage", *_MODEL, *_PLAIN_SAMPLING, "generation.stop_at_tag", "layout", "seed", "infer"),
        needs=(
            _NEEDS_MODEL,
            (
                "infer.question",
                ': give infer.question="What is 6*7?" (and infer.solution="42" if the model is a teacher).',
            ),
        ),
        checks=("bounds", "attention", "infer", "own_prompt"),
        model="either",
    ),
    "score_traces": Stage(
        "scores and ranks explanations that exist already",
        settings=(*_SCORING, "data.shortest", "score"),
        needs=(_NEEDS_STUDENT,),
        checks=("bounds", "attention", "greedy", "data", "reward", "student", "files", "server_key"),
        model="teacher",
        scores=True,
        reads_traces=True,
        rehearses=True,
        notes=(_RESUMES, _KEEPS_LONG),
    ),
    "show_traces": Stage(
        "shows what each token of some explanations earned",
        settings=(*_SCORING, "show"),
        needs=(_NEEDS_STUDENT,),
        checks=("bounds", "attention", "greedy", "show", "data", "reward", "student", "files", "server_key"),
        model="teacher",
        scores=True,
        reads_traces=True,
        notes=(_KEEPS_LONG,),
    ),
    "select_traces": Stage(
        "chooses the explanations that students are trained on",
        settings=(*_TRACE_FILES, *_CLEANING, "select", "seed"),
        checks=("bounds", "sources", "select", "data", "files"),
        reads_traces=True,
        notes=(_KEEPS_LONG,),
    ),
    "plan_traces": Stage(
        "says how many explanations fit a context budget",
        settings=(*_TRACE_FILES, "plan"),
        needs=(
            (
                "student_model",
                ", but {stage} counts its tokens: give a folder with its tokenizer, or a Hub name.",
            ),
        ),
        checks=("bounds", "sources", "plan", "data", "files"),
        reads_traces=True,
        notes=(_KEEPS_LONG,),
    ),
    "make_countdown": Stage(
        "makes Countdown problems",
        settings=(*_RUN, "countdown"),
        checks=("bounds", "countdown"),
    ),
    "evaluate": Stage(
        "asks a student the questions of benchmarks",
        settings=(
            *(*_RUN, *_MODEL, *_DATASET, *_TOO_LONG, *_ENGINE, *_ASKING, "evaluate.tasks", "seed"),
            *(*_LAYOUT, "layout.student_prompt", "layout.override"),
            *("generation.api", "generation.api_model", "generation.retry_seconds"),
            *("evaluate.num_samples", "evaluate.requests_per_server", "evaluate.samples_per_chunk"),
            *("evaluate.reference", "evaluate.report_samples"),
        ),
        needs=(_NEEDS_MODEL,),
        checks=(
            *("bounds", "attention", "one_process", "evaluate", "data", "own_prompt", "generation", "files"),
            *("lengths", "api", "servers", "server_key"),
        ),
        model="student",
        generates=True,
        fills_context=True,
        rehearses=True,
        notes=(_RESUMES, _NO_TAG),
    ),
    "pipeline": Stage(
        "runs stages one after the other",
        settings=(*_RUN, "recipe", "seed", "pipeline"),
        checks=("bounds",),
        remedy="write pipeline.steps.STEP.{name}=… for one step, or pipeline.every.{name}=… for all that "
        "read it",
    ),
}


def names(**facts: object) -> tuple[str, ...]:
    """Return the stages with these facts, e.g. `names(trains=True)`."""
    return tuple(
        name
        for name, stage in STAGES.items()
        if all(getattr(stage, fact) == value for fact, value in facts.items())
    )
