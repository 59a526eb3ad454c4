"""The rules between settings, and between settings and the files of this machine.

`validate` runs before any model is loaded and imports nothing heavy. Bounds of single settings are in
`bounds.py`, the rules of one concern in a module of `rules/`, those of paths in `files.py`; whether rows are
good is for `rlt/data`, a tokenizer's tags for the stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlt.config.attention import check_attention
from rlt.config.bounds import check_bounds
from rlt.config.files import check_files
from rlt.config.rules.collect import check_collect
from rlt.config.rules.components import check_components
from rlt.config.rules.countdown import check_countdown
from rlt.config.rules.data import check_data
from rlt.config.rules.during_training import check_during_training
from rlt.config.rules.evaluate import check_api, check_evaluate
from rlt.config.rules.infer import check_infer
from rlt.config.rules.lengths import check_lengths_here
from rlt.config.rules.opd import check_opd
from rlt.config.rules.reward import check_correctness, check_engine_logprobs, check_reward
from rlt.config.rules.servers import check_generation, check_one_process, check_servers
from rlt.config.rules.students import check_own_prompt, check_student
from rlt.config.rules.traces import check_plan, check_select, check_show, check_sources, refuse_greedy
from rlt.config.rules.trainer import check_batch, check_trainer
from rlt.config.schema import Config, stage_of
from rlt.config.server_key import check_server_key
from rlt.config.tree import get
from rlt.errors import ConfigError


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


def _alone(rule: Callable[[Config], None]) -> Callable[[Config, Surroundings], None]:
    """Return a rule that depends on the configuration alone, called as all are."""
    return lambda config, _: rule(config)


CHECKS: dict[str, Callable[[Config, Surroundings], None]] = {
    "attention": lambda config, around: check_attention(config, must_be_installed=not around.rehearsed),
    "batch": lambda config, around: check_batch(config, around.num_processes),
    "one_process": lambda config, around: check_one_process(config, around.num_processes),
    "servers": lambda config, around: check_servers(config, servers_follow=around.servers_follow),
    **{
        name: _alone(rule)
        for name, rule in {
            "api": check_api,
            "bounds": check_bounds,
            "collect": check_collect,
            "components": check_components,
            "correctness": check_correctness,
            "countdown": check_countdown,
            "data": check_data,
            "during_training": check_during_training,
            "engine_logprobs": check_engine_logprobs,
            "evaluate": check_evaluate,
            "files": check_files,
            "generation": check_generation,
            "greedy": refuse_greedy,
            "infer": check_infer,
            "lengths": check_lengths_here,
            "opd": check_opd,
            "own_prompt": check_own_prompt,
            "plan": check_plan,
            "reward": check_reward,
            "select": check_select,
            "server_key": check_server_key,
            "show": check_show,
            "sources": check_sources,
            "student": check_student,
            "trainer": check_trainer,
        }.items()
    },
}
"""The rules by the names that the table of stages gives them."""
