"""Quantiles of the beta and of Student's distribution, in plain Python: two numbers need no scipy."""

from __future__ import annotations

import math

_STEPS, _MOST_TERMS = 200, 500
_TINY = 1e-300


def beta_mass(x: float, a: float, b: float) -> float:
    """Return the mass of the beta distribution below x, by Lentz's continued fraction.

    Numerical Recipes, section 6.4; the fraction converges fast below (a + 1) / (a + b + 2).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_mass(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(log_front) * value / a


def _away(value: float) -> float:
    """Return a value that is not zero, as Lentz's method needs it."""
    return value if abs(value) > _TINY else _TINY


def beta_quantile(mass: float, a: float, b: float) -> float:
    """Return the x below which the beta distribution holds `mass`."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_mass(middle, a, b) < mass else (low, middle)
        if high - low <= 1e-14 * high:
            break
    return (low + high) / 2


def t_quantile(degrees: float, level: float = 0.95) -> float:
    """Return the t for which Student's distribution holds `level` of its mass between -t and t."""
    # degrees / (degrees + t²) has the distribution beta(degrees / 2, 1 / 2)
    x = beta_quantile(1 - level, degrees / 2, 0.5)
    return math.sqrt(degrees * (1 - x) / x)
