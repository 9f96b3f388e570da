"""From facts to the network's inputs: normalisers and reductions fitted on past eras, applied to every replayed one.

Early inputs are known before any base model predicts the era, late ones come from its predictions. Each model's inputs
are functions of that model's own facts and of symmetric functions of all models: permuting models permutes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.core.config import GateConfig
from eravane.core.layout import Layout
from eravane.gate.outcomes import EraFacts, History
from eravane.gate.portable import agreement, normalise_facts, reduce_cells, scaled
from eravane.gate.records import Records

# A statistic varies where its standard deviation over eras exceeds this share of the feature's own standard deviation:
# five equal bins give 1e-4 (rows that do not divide by 5), the sampling error of a raw mean over 5,000 rows .014.
VARIES = 0.002
COMPONENTS = 3
WEIGHT_FLOOR = 0.05
MARGINAL_INPUTS = ("marginal_mean", "marginal_std", "marginal_spread", "marginal_skew", "marginal_distance")


@dataclass(frozen=True, eq=False)
class InputMap:
    """Normalisers of facts, fitted on past eras.

    Attributes:
        model_center_MS, model_scale_MS: of each model's own statistics: its own mean, and a scale that all models
            share; 0 where a statistic does not vary.
        context_center_D, context_scale_D: of the era's statistics.
        kept_KF: bool [K, F], marginal statistics that vary.
        marginal_center_KF, marginal_scale_KF: of those: the mean, and the feature's own standard deviation.
        components_PV: leading directions of the V kept marginal statistics.
        reduced_center_MR, reduced_scale_MR: of each cell's reduced marginals.
        lagged_scale_L, agreement_scale_A: root mean square of the lagged and the agreement inputs; 0 switches one off.
    """

    model_center_MS: FloatArray
    model_scale_MS: FloatArray
    context_center_D: FloatArray
    context_scale_D: FloatArray
    kept_KF: BoolArray
    marginal_center_KF: FloatArray
    marginal_scale_KF: FloatArray
    components_PV: FloatArray
    reduced_center_MR: FloatArray
    reduced_scale_MR: FloatArray
    lagged_scale_L: FloatArray
    agreement_scale_A: FloatArray

    @classmethod
    def fit(cls, history: History, records: Records, known: int, lag: int, config: GateConfig) -> InputMap:
        """Fit on the first `known` resolved eras."""
        facts = history.facts[:known]
        lagged_EML = np.stack([lagged_inputs(records, history.known(era, lag)) for era in history.eras[:known]])
        agreement_EMA = np.stack([_replayed_agreement(history, records, i, lag) for i in range(known)])
        model_center, model_scale = _pooled(np.stack([item.model_MS for item in facts]))
        model_scale = model_scale * ("structure" in config.inputs)
        context_center, context_scale = _moments(np.stack([item.context_D for item in facts]))
        measured = slice(None) if "marginals" in config.inputs else slice(0)
        marginals = [item.marginal_KF[measured] for item in facts]
        kept_KF, center_KF, scale_KF = _varying(marginals)
        kept_EV = np.zeros((known, int(kept_KF.sum())))
        reduced_EMR = np.full((known, len(facts[0].cells), len(MARGINAL_INPUTS)), np.nan)
        for e, marginal_KF in enumerate(marginals if kept_KF.any() else []):
            z_KF = scaled(marginal_KF.astype(np.float64), center_KF, scale_KF)
            kept_EV[e] = z_KF[kept_KF]
            reduced_EMR[e] = reduce_cells(z_KF, kept_KF & np.isfinite(marginal_KF), facts[e].cells)
        reduced_center, reduced_scale = _pooled(reduced_EMR)
        return cls(
            *(model_center, model_scale, context_center, context_scale, kept_KF, center_KF, scale_KF),
            components_PV=_components(kept_EV),
            reduced_center_MR=reduced_center,
            reduced_scale_MR=reduced_scale,
            lagged_scale_L=root_mean_square(lagged_EML) * ("scores" in config.inputs),
            agreement_scale_A=root_mean_square(agreement_EMA) * np.array(_agreement_switches(config.inputs)),
        )

    @property
    def own(self) -> int:
        """How many normalised facts of each model, S + R."""
        return int(self.model_center_MS.shape[1]) + int(self.reduced_center_MR.shape[1])

    @property
    def early(self) -> int:
        """How many of a model's inputs are known before any base model predicts the era."""
        return len(self.lagged_scale_L) + self.own

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many inputs: of a model, known early; of a model in all; of the era."""
        return self.early, self.early + len(self.agreement_scale_A), len(self.context_scale_D) + 2 + COMPONENTS

    def inputs(
        self,
        records: Records,
        known: int,
        facts: EraFacts,
        open_M: BoolArray,
        C_MM: FloatArray,
        dispersion_M: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Inputs of every model [M, F], early ones first, and of the era [D]; all finite."""
        own_MS, context_D = self.normalise(facts)
        lagged_ML = scaled(lagged_inputs(records, known), np.zeros(1), self.lagged_scale_L)
        agreement_MA = agreement_inputs(records, known, open_M, C_MM, dispersion_M)
        return np.hstack([lagged_ML, own_MS, scaled(agreement_MA, np.zeros(1), self.agreement_scale_A)]), context_D

    def replay(self, history: History, records: Records, position: int, lag: int) -> tuple[FloatArray, FloatArray]:
        """Inputs of a resolved era as they were when it was decided, every model open."""
        known = history.known(history.eras[position], lag)
        present_M, C_MM = history.row("present", position), history.row("C", position)
        dispersion_M = history.row("dispersion", position)
        return self.inputs(records, known, history.facts[position], present_M, C_MM, dispersion_M)

    def normalise(self, facts: EraFacts) -> tuple[FloatArray, FloatArray]:
        """Normalise one era: own statistics of each model [M, S + R], context of the era [D + P + 2]; all finite."""
        found = self._normalised.get(facts)
        if found is None:  # several experts ask for the same eras, some of them again and again
            found = normalise_facts(facts.model_MS, facts.context_D, facts.marginal_KF, facts.cells, self)
            self._normalised[facts] = found
        return found

    @cached_property
    def _normalised(self) -> WeakKeyDictionary[EraFacts, tuple[FloatArray, FloatArray]]:
        return WeakKeyDictionary()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays, for safetensors."""
        return {f"inputs.{name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def restore(cls, layout: Layout) -> InputMap:
        """Rebuild a map from `arrays()`.

        Raises:
            LayoutError: they are laid out in another way.
        """
        found: dict[str, NDArray[Any]] = {}
        for name in _ARRAYS:  # the letters at the end of a name are its dimensions
            sizes = {"P": COMPONENTS, "R": len(MARGINAL_INPUTS), "V": int(found.get("kept_KF", np.zeros(0)).sum())}
            dimensions = [sizes.get(letter, letter) for letter in name.rpartition("_")[2]]
            found[name] = layout.take(f"inputs.{name}", "bool" if name == "kept_KF" else "f8", *dimensions)
        return cls(**found)


_ARRAYS = tuple(InputMap.__dataclass_fields__)


def _agreement_switches(inputs: Sequence[str]) -> list[bool]:
    """Which columns of `agreement_inputs` are on: its ridge rests on lagged scores too."""
    agreement = "agreement" in inputs
    return [agreement, agreement, agreement, agreement and "scores" in inputs]


def _replayed_agreement(history: History, records: Records, position: int, lag: int) -> FloatArray:
    known = history.known(history.eras[position], lag)
    present_M, dispersion_M = history.row("present", position), history.row("dispersion", position)
    return agreement_inputs(records, known, present_M, history.row("C", position), dispersion_M)


def _moments(values_E: FloatArray) -> tuple[FloatArray, FloatArray]:
    known_E = np.isfinite(values_E)
    count = np.maximum(known_E.sum(axis=0), 1)
    center = np.where(known_E, values_E, 0.0).sum(axis=0) / count
    square = np.where(known_E, (values_E - center) ** 2, 0.0).sum(axis=0) / count
    scale = np.sqrt(square)
    return center, np.where(scale > 1e-9 * (np.abs(center) + 1e-3), scale, 0.0)


def _pooled(values_EMS: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each model's own mean, and a scale that all models share: what hardly moves must not look like what does."""
    center_MS, scale_MS = _moments(values_EMS)
    count_S = np.maximum((scale_MS > 0).sum(axis=0), 1)
    shared_S = np.sqrt((scale_MS**2).sum(axis=0) / count_S)
    return center_MS, np.where(scale_MS > 0, shared_S, 0.0)


def _varying(marginals: Sequence[NDArray[np.float32]]) -> tuple[BoolArray, FloatArray, FloatArray]:
    """Which marginal statistics vary over eras, their means, and the unit they are measured in; era by era."""
    known = [np.isfinite(marginal_KF) for marginal_KF in marginals]
    count_KF = np.maximum(np.sum(known, axis=0, dtype=np.float64), 1)
    center_KF, square_KF = np.zeros_like(count_KF), np.zeros_like(count_KF)
    for marginal_KF, known_KF in zip(marginals, known, strict=True):
        center_KF += np.where(known_KF, marginal_KF, 0.0) / count_KF
    for marginal_KF, known_KF in zip(marginals, known, strict=True):
        square_KF += np.where(known_KF, (marginal_KF - center_KF) ** 2, 0.0) / count_KF
    if not len(center_KF):
        return center_KF > 0, center_KF, center_KF
    kept_KF = np.sqrt(square_KF) > VARIES * center_KF[1]
    return kept_KF, center_KF, np.where(kept_KF, center_KF[1], 0.0)


def _components(z_EV: FloatArray) -> FloatArray:
    """Leading principal directions, from the E x E Gram matrix; signs fixed by the largest entry."""
    if z_EV.shape[1] == 0:
        return np.zeros((COMPONENTS, 0))
    values, vectors = np.linalg.eigh(z_EV @ z_EV.T)
    components_PV = np.zeros((COMPONENTS, z_EV.shape[1]))
    for p in range(min(COMPONENTS, len(values))):
        direction_V = vectors[:, -1 - p] @ z_EV
        norm = np.linalg.norm(direction_V)
        if norm > 1e-9:
            sign = np.sign(direction_V[np.argmax(np.abs(direction_V))])
            components_PV[p] = sign * direction_V / norm / np.sqrt(max(values[-1 - p], 1e-12) / len(values))
    return components_PV


def lagged_inputs(records: Records, known: int) -> FloatArray:
    """Inputs of each model from resolved eras [M, H]: lagged scores against the pool's mean.

    Two more columns for each way of `records.chosen`; the logarithm of a weight lets a softmax reproduce that way.
    """
    seen_M = records.seen_NM[known]
    means_MH = records.means_NMH[known]
    pool_H = means_MH[seen_M].mean(axis=0) if seen_M.any() else np.zeros(means_MH.shape[1])
    columns = [np.where(seen_M[:, None], means_MH - pool_H, 0.0)]
    for weights_M in records.chosen(known):
        relative_M = np.where(seen_M, weights_M * max(int(seen_M.sum()), 1), 1.0)
        columns += [(relative_M - 1.0)[:, None], np.log(relative_M + WEIGHT_FLOOR)[:, None]]
    return np.hstack(columns)


def agreement_inputs(
    records: Records, known: int, open_M: BoolArray, C_MM: FloatArray, dispersion_M: FloatArray
) -> FloatArray:
    """Inputs of each open model from this era's predictions, with `known` resolved eras [M, 4] (see `agreement`)."""
    seen_M, signal_M, usual_M = records.seen_NM[known], records.signal_NM[known], records.dispersion_NM[known]
    return agreement(open_M, C_MM, dispersion_M, seen_M, signal_M, usual_M, records.ridge)


def root_mean_square(values_EMA: FloatArray) -> FloatArray:
    """Scale of each last-dimension column; 1 where it is 0 throughout."""
    scale_A = np.sqrt(np.mean(values_EMA**2, axis=(0, 1)))
    return np.where(scale_A > 1e-12, scale_A, 1.0)
