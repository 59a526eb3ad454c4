"""Quantiles of the beta and of Student's distribution for whole arrays: two functions need no scipy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_MOST_STEPS, _MOST_TERMS = 100, 500
_TINY = 1e-300
_LEAST = 1e-16
"""Quantiles below this are as good as 0."""
_log_gamma = np.vectorize(math.lgamma, otypes=[float])


def beta_mass(x: ArrayLike, a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the mass of beta distributions below x, by Lentz's continued fraction.

    Numerical Recipes, section 6.4. The fraction converges fast below (a + 1) / (a + b + 2); above it is
    1 - the mass of the mirrored distribution.
    """
    x, a, b = (np.asarray(v, dtype=float) for v in np.broadcast_arrays(x, a, b))
    mirrored = x > (a + 1) / (a + b + 2)
    inside = (x > 0) & (x < 1)
    y = np.where(inside, np.where(mirrored, 1 - x, x), 0.5)
    a, b = np.where(mirrored, b, a), np.where(mirrored, a, b)
    log_front = _log_beta_density(y, a, b) + np.log(y) + np.log1p(-y)
    mass = np.exp(log_front) * _fraction(y, a, b) / a
    mass = np.where(mirrored, 1 - mass, mass)
    return np.where(inside, mass, (x >= 1).astype(float))


def _log_beta_density(x: Floats, a: Floats, b: Floats) -> Floats:
    return _log_gamma(a + b) - _log_gamma(a) - _log_gamma(b) + (a - 1) * np.log(x) + (b - 1) * np.log1p(-x)


def _fraction(x: Floats, a: Floats, b: Floats) -> Floats:
    c, d = np.ones_like(x), 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            value = value * c * d
        if np.all(np.abs(c * d - 1) < 1e-15):
            break
    return value


def _away(value: Floats) -> Floats:
    """Return values that are not zero, as Lentz's method needs them."""
    return np.where(np.abs(value) > _TINY, value, _TINY)


def beta_quantile(mass: float, a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the x below which beta distributions hold `mass`: Newton's steps, halved where they leave."""
    a, b = (np.asarray(v, dtype=float) for v in np.broadcast_arrays(a, b))
    low, high = np.zeros_like(a), np.ones_like(a)
    log_beta = _log_gamma(a) + _log_gamma(b) - _log_gamma(a + b)
    near_zero = np.exp((np.log(mass * a) + log_beta) / a)  # there the mass is x^a / (a B(a, b))
    x = np.clip(np.where(a < 1, near_zero, a / (a + b)), _LEAST, 0.5 + 0.5 * a / (a + b))
    for _ in range(_MOST_STEPS):
        excess = beta_mass(x, a, b) - mass
        low, high = np.where(excess < 0, x, low), np.where(excess < 0, high, x)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            step = excess / np.exp(_log_beta_density(x, a, b))
            new = x - step
        new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
        if np.all(np.abs(new - x) <= 1e-13 * new + _LEAST):
            return new
        x = new
    return x


def t_quantile(degrees: ArrayLike, level: float = 0.95) -> Floats:
    """Return the t for which Student's distribution holds `level` of its mass between -t and t."""
    degrees = np.asarray(degrees, dtype=float)
    # degrees / (degrees + t²) has the distribution beta(degrees / 2, 1 / 2)
    x = beta_quantile(1 - level, degrees / 2, 0.5)
    return np.sqrt(degrees * (1 - x) / x)
