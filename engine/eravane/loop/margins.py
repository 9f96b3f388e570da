"""Cached outputs of a model on the rows that its next trees are grown on, so that old trees are not evaluated again.

A block of trees costs the same whether a model has ten blocks or a thousand: every row of the window is touched once
by each new block, rows of new eras are evaluated by all blocks, and dropping a block subtracts its output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

from eravane.core.arrays import Float32s, Values
from eravane.learners.forest import Predictor

ValuesOf = Callable[[int], Values]


@dataclass(frozen=True, eq=False)
class Margins:
    """The output of all blocks of one model, era by era.

    Attributes:
        by_era: era -> float32 [N].
    """

    by_era: Mapping[int, Float32s]

    def over(self, eras: Sequence[int], boosters: Sequence[Predictor], values_of: ValuesOf) -> Margins:
        """Margins of a window: known eras are kept, others computed, eras outside dropped."""
        return Margins(
            {era: self.by_era[era] if era in self.by_era else full_margin(boosters, values_of(era)) for era in eras}
        )

    def plus(self, booster: Predictor, values_of: ValuesOf) -> Margins:
        """The margins after a block was appended, added in the order of a continued booster."""
        return Margins({era: booster.margin(values_of(era), margin) for era, margin in self.by_era.items()})

    def minus(self, booster: Predictor, values_of: ValuesOf) -> Margins:
        """The margins after a block was dropped."""
        return Margins(
            {era: margin - booster.margin(values_of(era), np.zeros_like(margin)) for era, margin in self.by_era.items()}
        )

    def joined(self) -> Float32s:
        """All eras in ascending order, float32 [N]."""
        return np.concatenate([self.by_era[era] for era in sorted(self.by_era)])

    def to_bytes(self) -> bytes:
        """The margins as safetensors."""
        content: bytes = save({str(era): np.ascontiguousarray(margin) for era, margin in self.by_era.items()})
        return content

    @classmethod
    def from_bytes(cls, content: bytes) -> Margins:
        """Read what `to_bytes` wrote."""
        return cls({int(era): margin for era, margin in load(content).items()})


def full_margin(boosters: Sequence[Predictor], values_CN: Values) -> Float32s:
    """Output of all blocks, float32 [N]; the first brings the intercept."""
    margin_N: Float32s | None = None
    for booster in boosters:
        margin_N = booster.margin(values_CN, margin_N)
    assert margin_N is not None, "a model has a block"
    return margin_N
