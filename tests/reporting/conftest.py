"""A tiny real Trainer, and run directories written by the code under test."""

import json
import math
from pathlib import Path

import pytest
import torch
from helpers.line_model import Line
from transformers import PretrainedConfig, Trainer, TrainingArguments

from rlt.evaluation.intervals import paired_interval
from rlt.reporting.report import write_report
from rlt.rundir.metrics import metrics_row
from rlt.rundir.run_record import COMMAND_VARIABLE, RunRecord
from rlt.rundir.samples import step_name, write_samples


@pytest.fixture
def make_trainer(tmp_path):
    """Return a function that makes a Trainer of three logged and saved steps unless told otherwise."""

    def make(callbacks=(), **arguments):
        torch.manual_seed(0)
        rows = [{"x": torch.tensor([float(i)]), "labels": torch.tensor([2.0 * i])} for i in range(4)]
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 3,
            "logging_steps": 1,
            "save_steps": 1,
            "report_to": "none",
            "use_cpu": True,
            "per_device_train_batch_size": 2,
            "seed": 0,
        }
        arguments = TrainingArguments(**{**defaults, **arguments})
        model = Line(PretrainedConfig())
        return Trainer(model=model, args=arguments, train_dataset=rows, callbacks=list(callbacks))

    return make


HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>&\"\x1b[2J\u202e"


@pytest.fixture
def hostile() -> str:
    """The text that one sample of `rl_run` carries."""
    return HOSTILE


@pytest.fixture
def rl_run(tmp_path) -> Path:
    """The run directory of `build_rl_run`, free to be changed."""
    return build_rl_run(tmp_path)


@pytest.fixture(scope="module")
def rl_report(tmp_path_factory) -> Path:
    """The report of such a run, drawn once."""
    return write_report(build_rl_run(tmp_path_factory.mktemp("reported")), paired_interval)


def build_rl_run(tmp_path: Path) -> Path:
    """Return a finished RL run of 60 steps: evaluation, one NaN, samples with hostile text, a config."""
    run_dir = tmp_path / "teacher"
    model = tmp_path / "warmup"
    model.mkdir()
    (model / "config.json").write_text("{}")
    inputs = {"model": str(model), "dataset": ("bespokelabs/Bespoke-Stratos-17k", "main"), "student": None}
    command = "./launch.sh cfgs/run_cfg/teacher_rl.yaml trainer_args={hub_token: hf_abcdefghijklmnopqrst}"
    with pytest.MonkeyPatch.context() as launcher:
        launcher.setenv(COMMAND_VARIABLE, command)
        record = RunRecord.start(run_dir, stage="teacher_rl", seed=7, inputs=inputs)
    with record:
        lines = []
        for step in range(61):
            if step:
                lines.append(metrics_row(step, step / 60, 2.0 * step, rl_metrics(step)))
            if step % 20 == 0:
                r = -0.9 + step / 100
                lines.append(
                    metrics_row(
                        step,
                        step / 60,
                        2.0 * step,
                        {
                            "eval_reward": r,
                            "eval_reward_low": r - 0.1,
                            "eval_reward_high": r + 0.1,
                            "eval_r_ss": r + 0.1,
                            "eval_r_kl": 0.2,
                        },
                    )
                )
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for step in (59, 60, 99):
            write_samples(run_dir / "samples", step_name(step), [sample(step, i) for i in range(8)])
        (run_dir / "config.yaml").write_text(
            f"stage: teacher_rl\nmodel_name_or_path: {model}\nlearning_rate: 1.0e-06\nrecipe: released\n"
            "trainer:\n  beta: 0.04\ntrainer_args:\n  hub_token: hf_abcdefghijklmnopqrst\n"
            f"results_dir: {Path.home()}/results\n"
        )
    return run_dir


def rl_metrics(step: int) -> dict:
    wave = math.sin(step * 1.7) * 0.05
    return {
        "loss": 0.01 + wave / 10,
        "grad_norm": math.nan if step == 30 else 0.5 + wave,
        "learning_rate": 1e-6,
        "reward": -0.9 + step / 100 + wave,
        "reward_std": 0.4 - step / 300,
        "frac_reward_zero_std": 0.0,
        "r_ss": -0.6 + step / 150,
        "r_ss_mean": -0.58,
        "r_ss_min": -2.1,
        "r_kl": 0.3 - step / 400,
        "r_kl_mean": 0.09,
        "r_kl_max": 1.4,
        "missing_tag": 0.05 - step / 2000,
        "text_after_tag": 0.0,
        "explanation_tokens": 150 + 2 * step,
        "solution_tokens": 2.0,
        "kl": step / 1e4,
        "entropy": 0.6 - step / 300,
        "completions/mean_length": 160 + 2 * step,
        "completions/clipped_ratio": 0.01,
        "drift/max": 1e-5 * (1 + abs(wave)),
        "drift/mean": 1e-6,
        "time/generate": 1.1,
        "time/sync": 0.1,
        "time/reward": 0.3,
        "time/update": 0.5 + wave,
        "step_time": 2.0,
    }


def sample(step: int, index: int) -> dict:
    return {
        "step": step,
        "problem_id": f"problem{index}",
        "sample_index": index,
        "question": f"What is {index}+{index}?",
        "solution": str(2 * index),
        "explanation": f"Add {index} to itself.\n{HOSTILE if index == 7 else ''}",
        "reward": float(index) / 10 - 1,
        "advantage": 0.5,
        "r_ss": -0.4,
        "r_ss_mean": -0.39,
        "r_ss_min": -1.0,
        "r_kl": 0.1,
        "r_kl_mean": 0.03,
        "r_kl_max": 0.4,
        "format": 0.0,
    }
