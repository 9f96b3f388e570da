"""Seeds of everything that draws random numbers, derived from the run's seed."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: object) -> int:
    """A seed in 0..2^31-1 that depends only on the run's seed and on its purpose.

    Continuing a booster with the seed stored in it is not repeatable (XGBoost does not reseed then), so every
    training call gets its own, from model and era.
    """
    text = "\x1f".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
