"""The rules of the reward's further components: `reward.length`, `copy`, `answers` and `functions`."""

from __future__ import annotations

import math
import re
from collections import Counter

from rlt.config.rules.servers import check_addresses
from rlt.config.schema import Config
from rlt.errors import ConfigError

_NAME = r"[^\W\d]\w*"
_PATH = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}")
_TAKEN = ("length", "copy", "answers")


def check_components(config: Config) -> None:
    """Raise ConfigError for the first broken rule; nothing of the user is imported."""
    _check_length(config)
    _check_functions(config)
    if config.reward.answers.weight:
        _check_answers(config)
    check_addresses("reward.answers.servers", config.reward.answers.servers)


def _check_length(config: Config) -> None:
    length = config.reward.length
    if length.weight and not length.min_tokens and length.max_tokens is None:
        raise ConfigError(
            "`reward.length.weight` needs a range: give reward.length.min_tokens, reward.length.max_tokens, "
            "or both."
        )
    if length.max_tokens is not None and length.min_tokens > length.max_tokens:
        raise ConfigError(
            f"`reward.length.min_tokens={length.min_tokens}` must be at most "
            f"reward.length.max_tokens={length.max_tokens}: change one of the two."
        )


def _check_functions(config: Config) -> None:
    paths = [function.path for function in config.reward.functions]
    for path in paths:
        if not _PATH.fullmatch(path) or ".py:" in path:  # of a file
            raise ConfigError(
                f"`reward.functions` must name each function by a path MODULE:FUNCTION, such as "
                f"my_rewards:brevity, got '{path}'."
            )
    for function in config.reward.functions:
        if not math.isfinite(function.weight):
            raise ConfigError(
                f"`reward.functions` must give {function.path} a finite weight, got {function.weight}."
            )
    names = Counter([*_TAKEN, *(path.rpartition(":")[2] for path in paths)])
    for path in paths:
        name = path.rpartition(":")[2]
        if names[name] > 1:
            raise ConfigError(
                f"`reward.functions` names {path}, but component/{name} is the value of another component, "
                "too: give the function another name."
            )


def _check_answers(config: Config) -> None:
    answers = config.reward.answers
    if answers.temperature == 0 and answers.num_samples > 1:
        raise ConfigError(
            f"`reward.answers.num_samples={answers.num_samples}` must be 1 with "
            "reward.answers.temperature=0, because greedy answers are all the same."
        )
    placement = config.reward.placement
    if placement in ("zero3", "server") and not answers.servers:
        raise ConfigError(
            f"`reward.placement={placement}` leaves no process a whole student that could answer: take "
            "replicated or cpu_offload, or give reward.answers.servers."
        )
    for name, servers, reason in (
        ("generation.servers", config.generation.servers, "changes with the policy"),
        ("reward.servers", config.reward.servers, "has the temperature of scoring in its weights"),
    ):
        for address in set(answers.servers) & set(servers):
            raise ConfigError(
                f"`reward.answers.servers` names {address}, which is also in {name} and {reason}: the "
                "student that answers needs its own server."
            )
