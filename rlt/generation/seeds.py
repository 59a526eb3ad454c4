"""Seeds of single samples, derived from the seed of a prompt. Both back ends use them."""

from __future__ import annotations

import hashlib


def spread_seed(*parts: int) -> int:
    """Return a seed in [0, 2**62) that depends on every part.

    Neighbouring seeds must not share samples: vLLM seeds the n samples of a request with
    seed, seed + 1, …, so requests seeded 1 and 2 would return all but one sample twice.
    """
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
