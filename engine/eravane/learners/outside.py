"""The learner of members from outside: nothing is trained, the prediction is the member's own column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Values

OUTSIDE = "given"  # as zoo.parquet and the ids of such models name it
BLOCK = b"given"  # in the place of trees in a run folder


class Column:
    """A fitted model whose only column is its prediction."""

    def num_boosted_rounds(self) -> int:
        """Number of trees: 0."""
        return 0

    def output(self, values_CN: Values) -> NDArray[np.float32]:
        """The column itself, float32 [N]."""
        return np.asarray(values_CN[0], dtype=np.float32)
