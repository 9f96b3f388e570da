"""Resolved eras as the gate keeps them: a few kilobytes each, from which any weighting can be scored exactly.

With gauss-ranked, standardised predictions z [M, N] of an era and its standardised target y, the era enters only by
`c = z y / n` and `C = z z' / n`: the correlation of the ensemble w is `c'w / sqrt(w'Cw)`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Bools
from eravane.core.arrays import Floats as FloatArray
from eravane.core.errors import LayoutError, RunError
from eravane.core.layout import Layout, value_of
from eravane.scoring.payout import BEFORE_TABLE, RULES, PayoutRule

# The quantity of an era that each objective of the gate is paid by.
PAID_BY = {"corr": "c", "payout": "payout"}


@dataclass(frozen=True)
class GateModel:
    """A base model as the gate sees it: its name, and the feature cell whose statistics belong to it."""

    model_id: str
    feature_set: str
    group: str


@dataclass(frozen=True, eq=False)
class EraFacts:
    """Facts known of an era before any base model predicts it, not yet normalised.

    Attributes:
        model_MS: float64 [M, S], statistics of each model's own feature cell; NaN where undefined.
        context_D: float64 [D], statistics of the era as a whole; NaN where undefined.
        model_names, context_names: what the S and D columns are.
        marginal_KF: float32 [K, F], K marginal statistics of each feature; empty where they are switched off.
        cells: per model the int64 positions of its cell's columns among the F features.
    """

    model_MS: FloatArray
    context_D: FloatArray
    model_names: tuple[str, ...]
    context_names: tuple[str, ...]
    marginal_KF: NDArray[np.float32]
    cells: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, eq=False)
class EraOutcome:
    """An era whose labels are known.

    Attributes:
        era: era number.
        scores_M: float64 [M], numerai_corr per model; NaN for a constant prediction.
        c_M: float64 [M], z y / n with z gauss-ranked, y centred and standardised.
        C_MM: float64 [M, M], z z' / n.
        facts: the era's facts as they were before it was predicted.
        dispersion_M: float64 [M], standard deviation of each model's raw predictions.
        contribution_M: float64 [M], contribution of each model to the meta-model (MMC); None where it is unknown.
    """

    era: int
    scores_M: FloatArray
    c_M: FloatArray
    C_MM: FloatArray
    facts: EraFacts
    dispersion_M: FloatArray
    contribution_M: FloatArray | None = None


class History:
    """Resolved eras in ascending order.

    MMC is linear in the ensemble's weights up to the same normalisation as CORR, so that what is paid is again
    c'w / sqrt(w'Cw) with another c: the payout rule's mix of both.

    A model that was absent or constant in an era has zeros there and False in `present_EM`.
    """

    def __init__(self, size: int, payout: PayoutRule = RULES[-1]) -> None:
        self._payout = payout
        self.eras: list[int] = []
        self.facts: list[EraFacts] = []
        self.size = size
        self._rows: dict[str, list[NDArray[Any]]] = {name: [] for name in _ROWS}

    def __len__(self) -> int:
        return len(self.eras)

    def append(self, outcome: EraOutcome) -> None:
        """Add an era; undefined numbers (a constant prediction) become 0.

        Raises:
            RunError: the era is not later than the last one, or its arrays do not fit the pool.
        """
        if self.eras and outcome.era <= self.eras[-1]:
            raise RunError(
                f"era {outcome.era} follows era {self.eras[-1]}: outcomes must come in ascending order, once"
            )
        if outcome.c_M.shape != (self.size,) or outcome.C_MM.shape != (self.size, self.size):
            raise RunError(
                f"era {outcome.era} brings {outcome.c_M.shape[0]} models, the gate has {self.size}: "
                "the pool of a run does not change"
            )
        values = {
            "scores": outcome.scores_M,
            "c": outcome.c_M,
            "C": outcome.C_MM,
            "dispersion": outcome.dispersion_M,
            "payout": self.payout_of(outcome.c_M, outcome.contribution_M),
        }
        for name, value in values.items():
            self._rows[name].append(np.nan_to_num(np.asarray(value, dtype=np.float64), posinf=0.0, neginf=0.0))
        self._rows["present"].append(self.present_in(outcome))
        self.eras.append(outcome.era)
        cells = outcome.facts.cells
        if self.facts and not _same(cells, self.facts[-1].cells):
            self.facts = [replace(facts, cells=cells) for facts in self.facts]
        self.facts.append(outcome.facts)

    def present_in(self, outcome: EraOutcome) -> Bools:
        """Models that count in an era [M]; one without predictions, or with constant ones, does not."""
        return np.asarray(np.isfinite(outcome.c_M) & (np.nan_to_num(np.diag(outcome.C_MM)) > 0))

    def payout_of(self, c_M: FloatArray, contribution_M: FloatArray | None) -> FloatArray:
        """The payout mix of models in an era, from their c and their contribution [M].

        MMC unknown counts as 0, in the mix's own unit; runs before the table took plain c.
        """
        if contribution_M is not None:
            return self._payout.mix(c_M, contribution_M)
        return c_M * (1.0 if self._payout == BEFORE_TABLE else self._payout.corr)

    def column(self, name: str, count: int | None = None) -> NDArray[Any]:
        """Stack one of scores, c, payout, dispersion, present [E, M] or C [E, M, M] over the first `count` eras."""
        rows = self._rows[name][:count]
        if rows:
            return np.stack(rows)
        shape = (0, self.size, self.size) if name == "C" else (0, self.size)
        return np.zeros(shape, dtype=bool if name == "present" else np.float64)

    def row(self, name: str, position: int) -> NDArray[Any]:
        """One quantity of one era."""
        return self._rows[name][position]

    def known(self, era: int, lag: int) -> int:
        """How many eras are resolved for a decision about `era`."""
        return bisect_right(self.eras, era - lag)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays, for safetensors."""
        result = {f"history.{name}": self.column(name) for name in _ROWS}
        result["history.era"] = np.asarray(self.eras, dtype=np.int64)
        if self.facts:
            result["history.model"] = np.stack([facts.model_MS for facts in self.facts])
            result["history.context"] = np.stack([facts.context_D for facts in self.facts])
            result["history.marginal"] = np.stack([facts.marginal_KF for facts in self.facts])
            cells = self.facts[-1].cells
            result["history.cells"] = np.concatenate([np.zeros(0, dtype=np.int64), *cells])
            result["history.cell_sizes"] = np.array([len(columns) for columns in cells], dtype=np.int64)
        return result

    def names(self) -> dict[str, Any]:
        """The names of the statistics, JSON-able."""
        if not self.facts:
            return {"model": [], "context": []}
        return {"model": list(self.facts[-1].model_names), "context": list(self.facts[-1].context_names)}

    @classmethod
    def restore(cls, size: int, layout: Layout, names: Mapping[str, object], payout: PayoutRule = RULES[-1]) -> History:
        """Rebuild a history from `arrays()` and `names()`; dimensions are E, M, S, D, and K and F of marginals.

        Raises:
            LayoutError: they are laid out in another way.
        """
        history = cls(size, payout)
        history.eras = [int(era) for era in layout.take("history.era", "i8", "E")]
        for name in _ROWS:
            square = ("M",) if name == "C" else ()
            dtype = "bool" if name == "present" else "f8"
            history._rows[name] = list(layout.take(f"history.{name}", dtype, "E", "M", *square))
        if not history.eras:
            return history
        model, context = (tuple(value_of(names, name, list)) for name in ("model", "context"))
        model_EMS = layout.take("history.model", "f8", "E", "M", len(model))
        context_ED = layout.take("history.context", "f8", "E", len(context))
        marginal_EKF = layout.take("history.marginal", "f4", "E", "marginals", "F")
        cells = split_cells(layout, "history.")
        for own_MS, context_D, marginal_KF in zip(model_EMS, context_ED, marginal_EKF, strict=True):
            history.facts.append(EraFacts(own_MS, context_D, model, context, marginal_KF, cells))
        return history


def split_cells(layout: Layout, prefix: str = "") -> tuple[NDArray[np.int64], ...]:
    """Positions of every model's columns, from `cells` and `cell_sizes`.

    Raises:
        LayoutError: these are missing, or do not fit each other or the pool.
    """
    sizes_M, cells = layout.take(f"{prefix}cell_sizes", "i8", "M"), layout.take(f"{prefix}cells", "i8", "cells")
    if (sizes_M < 0).any() or sizes_M.sum() != len(cells):
        raise LayoutError(f"reads {prefix + 'cells'!r} by {prefix + 'cell_sizes'!r}, and they do not fit")
    return tuple(np.split(cells, np.cumsum(sizes_M)[:-1]))


_ROWS = ("scores", "c", "C", "dispersion", "payout", "present")


def _same(first: Sequence[NDArray[np.int64]], second: Sequence[NDArray[np.int64]]) -> bool:
    if first is second:
        return True
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
