"""Running scores of the ensemble and of equal weight, shown during the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from eravane.core.layout import value_of
from eravane.data.features import Features
from eravane.loop.results import ENSEMBLE, EQUAL_WEIGHT, score_era
from eravane.runstate.journal import EraRecord
from eravane_kernels.namespace import Kernels


class RunningScores:
    """Sums CORR over eras as their labels arrive.

    Args:
        features: gives labels.
        target: the main target.
        start: first era that counts.
        ops: the kernels' namespace.
    """

    def __init__(self, features: Features, target: str, start: int, ops: Kernels) -> None:
        self.start = start
        self._features, self._target, self._ops = features, target, ops
        self._sums = dict.fromkeys((ENSEMBLE, EQUAL_WEIGHT), 0.0)
        self._eras = 0

    def add(self, record: EraRecord) -> None:
        """Score an era; one with an undefined score is left out."""
        scored = score_era(record, self._features.labels(self._target, record.era, record.era), self._ops)
        if all(np.isfinite(scored.series[name]) for name in self._sums):
            self._eras += 1
            for name in self._sums:
                self._sums[name] += scored.series[name]

    def as_text(self) -> str:
        """The means so far in words; empty while no era is known."""
        if not self._eras:
            return ""
        ensemble, equal = (self._sums[name] / self._eras for name in (ENSEMBLE, EQUAL_WEIGHT))
        return f"CORR {ensemble:.4f} against {equal:.4f} at equal weight over {self._eras} eras"

    def state(self) -> dict[str, object]:
        """The sums, for a checkpoint."""
        return {"eras": self._eras, "sums": self._sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore from `state`.

        Raises:
            LayoutError: it is something else.
        """
        sums = value_of(state, "sums", dict)
        self._eras = value_of(state, "eras", int)
        self._sums = {name: float(value_of(sums, name, (int, float))) for name in self._sums}
