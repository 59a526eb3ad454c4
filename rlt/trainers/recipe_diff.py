"""How a recipe differs from the installed TRL's defaults, as a table.

`python -m rlt.trainers.recipe_diff run_cfg=teacher_rl [recipe=modern]`

Rows are the arguments that reach TRL. What the framework itself adds (reward, layouts, generation) has
no counterpart there and is not listed; our prompts are, because they are in our own words.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Sequence
from typing import Any

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.config.schema import DATASET_PROMPT, ORIGINAL_PROMPT, Config, stage_of
from rlt.surroundings.leaving import run_command
from rlt.text import markdown
from rlt.trainers.arguments import RunContext, grpo_arguments, sft_arguments

_NOT_RECIPE = {
    *("output_dir", "run_name", "project", "use_cpu", "bf16", "disable_tqdm", "model_init_kwargs"),
    *("gradient_accumulation_steps", "steps_per_generation"),  # they follow from train_batch_size
}
"""Arguments of this run or this machine."""


def differences(config: Config) -> list[tuple[str, Any, Any]]:
    """Return (argument, recipe's value, installed default) where the two differ, in order of name."""
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    is_rl = stage_of(config).is_rl
    arguments = (grpo_arguments if is_rl else sft_arguments)(
        config, RunContext(1, use_cpu=False, deepspeed=True)
    )
    if is_rl and config.trainer.ref_sync_steps:  # done by our own trainer, so TRL's setting stays off
        arguments["sync_ref_model"] = True
        arguments["ref_model_sync_steps"] = config.trainer.ref_sync_steps
        arguments["ref_model_mixup_alpha"] = config.trainer.ref_mixup
    defaults = {f.name: _plain(f.default) for f in dataclasses.fields(GRPOConfig if is_rl else SFTConfig)}
    changed = [
        (name, value, defaults[name])
        for name, value in sorted(arguments.items())
        if name not in _NOT_RECIPE and _plain(value) != defaults[name]
    ]
    changed.append(("train_batch_size", config.train_batch_size, "8 a device"))
    if config.trainer.grad_accum_dtype != "model":
        changed.append(("grad_accum_dtype", config.trainer.grad_accum_dtype, "model (DeepSpeed's)"))
    return changed


def as_table(rows: list[tuple[str, Any, Any]]) -> str:
    """Return the differences as a table."""
    cells = [(name, str(recipe), str(default)) for name, recipe, default in rows]
    return markdown([("setting", "recipe", "installed TRL default"), *cells])


def prompt_lines(config: Config) -> list[str]:
    """Return a line for each system prompt that is not the released one."""
    prompts: dict[str, tuple[str, str | None]] = {}
    stage = stage_of(config)
    if stage.reads("layout.teacher_prompt"):
        prompts["teacher"] = (config.layout.teacher_prompt, None)
    # The students of the released recipes read the one of their data.
    if stage.reads("layout.student_prompt"):
        prompts["student"] = (config.layout.student_prompt, "from_dataset")
    origins = {"default": "in our own words", "from_dataset": "that of each row"}
    return [
        f"The {role}'s system prompt is {origins.get(prompt, 'yours')}, not the released one."
        for role, (prompt, released) in prompts.items()
        if prompt != released and not prompt.startswith((ORIGINAL_PROMPT, DATASET_PROMPT))
    ]


def main(words: Sequence[str]) -> int:
    """Print the table for a command line; return the exit code."""
    if {"-h", "--help"} & {*words}:
        sys.stdout.write(f"usage: python -m rlt recipe-diff run_cfg=NAME [KEY=VALUE ...]\n\n{__doc__}")
        return 0
    config = resolve(compose(words))
    sys.stdout.write(f"{config.stage}, recipe {config.recipe}\n{as_table(differences(config))}")
    sys.stdout.write("".join(f"{line}\n" for line in prompt_lines(config)))
    return 0


def _plain(value: Any) -> Any:
    if value is dataclasses.MISSING:
        return None
    return value.value if isinstance(value, enum.Enum) else value


if __name__ == "__main__":
    raise SystemExit(run_command(main, sys.argv[1:]))
