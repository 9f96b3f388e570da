"""Eras as row ranges."""

from __future__ import annotations

from eravane_kernels.arrays import Integers


def spans(offsets_E1: Integers, window: int = 0) -> list[slice]:
    """Rows of every era, pooled with the `window` eras before it.

    offsets_E1: int64 [E+1]; window: eras, 0 for the era alone. Returns E slices.
    """
    starts = offsets_E1.tolist()
    return [slice(starts[max(0, era - window)], starts[era + 1]) for era in range(len(starts) - 1)]
