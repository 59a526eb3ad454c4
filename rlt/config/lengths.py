"""How many tokens a row and a forward pass have at most, by the settings."""

from __future__ import annotations

from rlt.config.judges import pays_likelihood
from rlt.config.schema import Config, stage_of


def row_length(config: Config) -> int:
    """Return the tokens of the longest training row."""
    if stage_of(config).is_rl:
        return config.max_prompt_length + config.max_completion_length
    return config.data.max_length


def tokens_with_gradients(config: Config) -> int:
    """Return the tokens, padding included, that a micro-batch of the update may have."""
    return config.per_device_train_batch_size * row_length(config)


def tokens_per_pass(config: Config) -> int:
    """Return the tokens, padding included, of RL's passes without gradients of policy and reference.

    What a pass with gradients may hold, one without holds easily; nor do they hold less than the students'.
    """
    with_gradients = tokens_with_gradients(config)
    if stage_of(config).is_judged:
        return max(with_gradients, config.opd.tokens_per_batch)
    return max(with_gradients, config.reward.tokens_per_batch) if pays_likelihood(config) else with_gradients


def rows_per_pass(config: Config) -> int:
    """Return how many rows at their limits fit into such a pass."""
    return tokens_per_pass(config) // row_length(config)
