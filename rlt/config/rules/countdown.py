"""The rules of `countdown`: a difficulty that no problem can have, or more problems than there can be."""

from __future__ import annotations

from math import comb

from rlt.config.schema import OPERATIONS, Config, CountdownSettings
from rlt.errors import ConfigError


def check_countdown(config: Config) -> None:
    """Raise ConfigError for the first broken rule; nothing is made.

    The counts are upper bounds: the maker reports what passes here and still has too few problems.
    """
    countdown = config.countdown
    for low, high in (("min_numbers", "max_numbers"), ("min_target", "max_target")):
        if getattr(countdown, low) > getattr(countdown, high):
            raise ConfigError(
                f"`countdown.{low}={getattr(countdown, low)}` must be at most "
                f"countdown.{high}={getattr(countdown, high)}: change one of the two."
            )
    wrong = [o for o in countdown.operations if o not in OPERATIONS]
    if wrong or not countdown.operations or len(set(countdown.operations)) < len(countdown.operations):
        raise ConfigError(
            "`countdown.operations` must hold some of + - * /, each once, such as ['+','-'], "
            f"got {countdown.operations}."
        )
    for slot in ("{numbers}", "{target}"):
        if countdown.question is not None and slot not in countdown.question:
            raise ConfigError(
                f"`countdown.question` must hold {slot}, which no question can do without: put it where it "
                "goes."
            )
    highest = _highest_target(countdown)
    if countdown.min_target > highest:
        raise ConfigError(
            f"`countdown.min_target={countdown.min_target}` is more than {countdown.max_numbers} numbers up "
            f"to {countdown.max_number} can make with {' '.join(countdown.operations)}: take at most "
            f"{highest}."
        )
    asked, most = countdown.num_train + countdown.num_test, _most_problems(countdown, highest)
    if asked > most:
        raise ConfigError(
            f"`countdown.num_train + countdown.num_test = {asked}` must be at most {most}, because there are "
            "no more different problems of this difficulty: ask for fewer, or raise countdown.max_number."
        )


def _highest_target(countdown: CountdownSettings) -> int:
    """Return a bound on what the numbers make: (m + 1)^n covers sums and products of n numbers up to m."""
    m, n = countdown.max_number, countdown.max_numbers
    if "*" in countdown.operations:
        return (m + 1) ** n
    return m * n if "+" in countdown.operations else m


def _most_problems(countdown: CountdownSettings, highest: int) -> int:
    """Return a bound: multisets of numbers, times targets."""
    counts = range(countdown.min_numbers, countdown.max_numbers + 1)
    multisets = sum(comb(countdown.max_number + n - 1, n) for n in counts)
    return multisets * (min(countdown.max_target, highest) - countdown.min_target + 1)
