"""What the original program does that no YAML file of it says: its code, and the defaults of its libraries.

It ran with transformers 4.51.1, TRL 0.14.0 and accelerate 1.4.0. compare.py puts these facts beside our
presets: a value that is the same here makes no row, so a preset that changes changes the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SFT, RL = "teacher_sft", "teacher_rl"
DELIBERATE, RENAMED, UNKNOWN = "deliberate", "renamed", "unknown"
KINDS = (DELIBERATE, UNKNOWN, RENAMED)

THERE: dict[str, dict[str, Any]] = {
    SFT: {
        "model.attn_implementation": "sdpa",
        "model.trust_remote_code": True,
        "data.missing_trace": "solution",
        "data.on_long_row": "truncate",
        "data.tag_match": "first",
        "resume_from": "auto",
        "trainer.grad_accum_dtype": "model",
        "trainer.save_total_limit": None,
        "trainer_args.average_tokens_across_devices": False,
        "trainer_args.label_smoothing_factor": 0.0,
        "trainer_args.loss_type": "nll",
        "trainer_args.neftune_noise_alpha": None,
        "trainer_args.optim": "adamw_torch",
        "trainer_args.shuffle_dataset": False,
    },
    RL: {
        "model.attn_implementation": "sdpa",
        "model.trust_remote_code": True,
        "data.tag_match": "first",
        "resume_from": "auto",
        "reward.solution_span": "released",
        "reward.dtype": "bfloat16",
        "reward.teacher_logprobs": "policy",
        "reward.text_after_tag_penalty": 0.0,
        "reward.empty_explanation_divergence": 1.0,
        "generation.stop_at_tag": False,
        "generation.dtype": "bfloat16",
        "trainer.grad_accum_dtype": "model",
        "trainer.loss_type": "grpo",
        "trainer.mask_truncated": False,
        "trainer.save_total_limit": None,
        "trainer.scale_rewards": "group",
        "trainer.warmup_steps": 0.0,
        "trainer_args.cast_lm_head_to_fp32": False,
        "trainer_args.disable_dropout": False,
        "trainer_args.entropy_coef": 0.0,
        "trainer_args.epsilon": None,
        "trainer_args.importance_sampling_level": "token",
        "trainer_args.optim": "adamw_torch",
        "trainer_args.shuffle_dataset": True,
        "trainer_args.top_entropy_quantile": 1.0,
        "trainer_args.use_bias_correction_kl": False,
        "trainer_args.vllm_importance_sampling_correction": False,
    },
}
"""By stage, values of our settings that are the original's own way."""


@dataclass(frozen=True)
class Reason:
    """Why a setting has another value here."""

    why: str
    switch: str | None = None
    """What to type for the original's way; None: the setting with the original's value."""


NO_SWITCH = "none"
REASONS: dict[str, Reason] = {
    "wandb_project": Reason("a name"),
    "output_dir": Reason("no date: one directory is one run's", "output_dir=results/rlt_teacher/DATE"),
    "trainer_args.ddp_timeout": Reason("a hang ends within the hour; no collective waits for a generation"),
    "trainer_args.ds3_gather_for_generation": Reason("TRL's default, the same", NO_SWITCH),
    "generation.base_port": Reason("0 takes free ports"),
    "reward.placement": Reason(
        "memory and time alone; the reference goes to host memory by the launcher's word `offload`",
        "reward.placement=cpu_offload, offload",
    ),
    "model.attn_implementation": Reason("FlashAttention 2 where it is installed; rounding alone"),
    "model.trust_remote_code": Reason("code of a checkpoint runs only where it is asked for"),
    "data.missing_trace": Reason(
        "a row without reasoning_trace counts as a mistake unless the setting allows it"
    ),
    "resume_from": Reason("a second start is not taken for the first one's continuation", "resume_from=auto"),
    "trainer.save_total_limit": Reason("a checkpoint of 7B with its optimizer takes some 100 GB"),
    "trainer_args.optim": Reason("the same update in one kernel; rounding alone"),
    "trainer_args.epsilon": Reason("never reached: each generation serves one update", NO_SWITCH),
}
"""By setting, why we deliberately differ. One that differs without a reason is listed as unknown."""


@dataclass(frozen=True)
class Behaviour:
    """Something the two programs do differently, and no setting holds its value."""

    name: str
    there: str
    here: str
    switch: str = NO_SWITCH
    stages: tuple[str, ...] = (SFT, RL)
    kind: str = DELIBERATE


BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour(
        "the teacher's system prompt",
        "a constant in custom_data/teacher_data.py",
        "in our own words",
        "layout.teacher_prompt=original:DIR",
    ),
    Behaviour(
        "the student's system prompt",
        "a constant, whatever the data",
        "the `system` column of the row's dataset, the same text in Bespoke-Stratos-17k",
        "layout.student_prompt=from_dataset:bespokelabs/Bespoke-Stratos-17k",
        (RL,),
    ),
    Behaviour(
        "the prompt that a model was trained with",
        "is not kept",
        "is stored beside the weights, and another one is refused",
        "layout.override=true",
    ),
    Behaviour(
        "columns of custom data",
        "`prompt`, where its README says `question`",
        "`question`",
        "data.columns.question=prompt",
    ),
    Behaviour(
        "blank lines inside tags, custom data",
        "as the row has them",
        "one after the opening and before the closing tag, so that no token spans a tag",
    ),
    Behaviour(
        "RL prompts over max_prompt_length",
        "cut from the left in the loss alone",
        "the row is dropped and listed, or data.on_long_row=error stops the run",
        stages=(RL,),
    ),
    Behaviour(
        "steps of an epoch whose last step is not full",
        "not counted: 1,044 an epoch, 10,440 in all, for 16,710 rows on 8 GPUs",
        "counted: 1,045 and 10,450; warm-up takes 523 steps in place of 522",
        "trainer.max_steps=10440",
        (SFT,),
    ),
    Behaviour(
        "an SFT row whose prompt alone fills max_length",
        "kept, with no token in the loss",
        "dropped and listed",
        stages=(SFT,),
    ),
    Behaviour(
        "a row whose trace contains the end tag of an explanation",
        "trained on",
        "a bad row: it would teach to end there",
        "data.on_bad_row=skip",
        (SFT,),
    ),
    Behaviour(
        "a row with an empty solution or thought",
        "taken",
        "a bad row",
        "data.on_bad_row=skip",
    ),
    Behaviour(
        "a row whose tags are not closed",
        "ends the run with an IndexError",
        "a bad row, named by its line",
        "data.on_bad_row=skip",
    ),
    Behaviour(
        "where the scored solution is",
        "the last place where its tokens occur",
        "its own place, by construction",
        stages=(RL,),
    ),
    Behaviour(
        "the label after the end of turn", "the newline that the template writes", "none", stages=(SFT,)
    ),
    Behaviour("padding side", "left", "right; what is padding counts nowhere", stages=(SFT,)),
    Behaviour(
        "weight decay of the last norm",
        "decays, as its name fits no pattern",
        "no norm decays (1e-9 a step)",
        stages=(SFT,),
    ),
    Behaviour("the final model", "only checkpoints", "also in output_dir", stages=(SFT,)),
    Behaviour(
        "tokens of the explanation",
        "the decoded text, tokenised again and searched for",
        "the ids that were sampled",
        stages=(RL,),
    ),
    Behaviour(
        "chat template and tokenizer of the student",
        "the teacher's",
        "the student's own",
        stages=(RL,),
    ),
    Behaviour("log-softmax of the reward", "in bfloat16", "in float32", stages=(RL,)),
    Behaviour(
        "a reward that is no number",
        "becomes 0",
        "has no advantage, and is counted",
        stages=(RL,),
    ),
    Behaviour(
        "requests and seeds",
        "one request for each completion, dealt to servers with the seeds 42, 43, …",
        "one request for each problem, with its own seed: the samples do not depend on the servers",
        stages=(RL,),
    ),
    Behaviour("completions kept", "a tenth, on the tracker", "all, in output_dir/samples", stages=(RL,)),
    Behaviour(
        "the launcher",
        "writes host and model into the run file, and kills every process on the GPUs",
        "writes no file of yours, and ends what it has started",
        stages=(RL,),
    ),
    Behaviour(
        "version of vLLM that wrote the samples",
        "0.8 or later, by the name of its requirements file",
        "as installed by scripts/setup.sh",
        stages=(RL,),
        kind=UNKNOWN,
    ),
    Behaviour(
        "loss average of the students' fine-tuning",
        "LLaMA-Factory's, in SkyThought: with transformers before 4.46 each row's mean, from then on each "
        "process's; which one is not known",
        "each process's mean, then the mean over processes",
        stages=("student_sft",),
        kind=UNKNOWN,
    ),
)
