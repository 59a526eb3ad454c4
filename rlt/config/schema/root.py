"""The root: what people type, each key feeding one section, and the sections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from rlt.config.schema.data import DataSettings
from rlt.config.schema.evaluate import EvaluateSettings
from rlt.config.schema.evaluation import EvaluationSettings
from rlt.config.schema.generation import GenerationSettings
from rlt.config.schema.hardware import HardwareSettings
from rlt.config.schema.layout import LayoutSettings
from rlt.config.schema.model import ModelSettings
from rlt.config.schema.opd import OpdSettings
from rlt.config.schema.programs import CountdownSettings, InferSettings, PipelineSettings
from rlt.config.schema.reward import CorrectnessSettings, RewardSettings
from rlt.config.schema.setting import setting
from rlt.config.schema.traces import (
    CollectSettings,
    DistillSettings,
    PlanSettings,
    ScoreSettings,
    SelectSettings,
    ShowSettings,
    TracesSettings,
)
from rlt.config.schema.trainer import MonitorSettings, TrainerSettings
from rlt.config.stage import Stage
from rlt.config.stages import STAGES

RECIPES = ("released", "modern")
TRACKERS = ("wandb", "tensorboard", "trackio")


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
        None,
        "the student that pays the reward: a folder or a Hub name, which is frozen; in RL also policy (the "
        "trained model itself) or reference (the one of the KL term; null in the original release)",
    )
    teacher_model: str | None = setting(
        None, "student_opd: the teacher that judges the student's tokens, e.g. one of teacher_rl"
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
    opd: OpdSettings = setting(OpdSettings, "student_opd: the teacher, and the distance from it")
    generation: GenerationSettings = setting(GenerationSettings, "the engine")
    evaluation: EvaluationSettings = setting(EvaluationSettings, "what is measured while training")
    evaluate: EvaluateSettings = setting(EvaluateSettings, "how benchmarks are read, asked and graded")
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
