"""Out-of-fold predictions of every base model, and their scores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eravane.calendar.eras import EraIndex
from eravane.calendar.folds import Fold
from eravane.core.arrays import Float32s, on_host
from eravane.data.features import Features
from eravane.scoring.ensemble import gaussianize, one_era
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo
from eravane.zoo.training import Finished
from eravane_kernels.namespace import Kernels


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of every model.

    Attributes:
        first_era, last_era: eras covered, inclusive.
        values: model id -> float32 [N], rows of those eras in store order.
        seconds: model id -> training seconds over all folds.
        parts: seconds of all tasks that matrices, trees and predictions took.
    """

    first_era: int
    last_era: int
    values: Mapping[str, Float32s]
    seconds: Mapping[str, float]
    parts: Mapping[str, float] = field(default_factory=dict)

    def era(self, index: EraIndex, era: int, model_ids: Sequence[str] = ()) -> Float32s:
        """Predictions of one era, float32 [M, N].

        Args:
            index: of the eras first_era..last_era.
            era: era number.
            model_ids: which models (none named: all).
        """
        rows = index.rows_of(era)
        return np.stack([self.values[name][rows] for name in model_ids or self.values])


def out_of_fold(
    zoo: Zoo,
    specs: Sequence[ModelSpec],
    folds: Sequence[Fold],
    features: Features,
    on_model: Callable[[Finished], None] | None = None,
    *,
    folder: Path | None = None,
) -> OutOfFold:
    """Train every model on every fold and store its predictions as they arrive.

    Args:
        zoo: trains.
        specs: M models.
        folds: consecutive folds.
        features: of the store, with the columns of members from outside.
        on_model: called when a model of a fold is done.
        folder: folder of the predictions during the run, in an unnamed file that the system may drop from
            memory; None keeps them in memory.
    """
    first, last = folds[0].predict_first, folds[-1].predict_last
    covered = features.store.index.select(first, last)
    values_MN = _scratch((len(specs), covered.rows), folder)
    rows_of_model = {spec.model_id: values_MN[m] for m, spec in enumerate(specs)}
    seconds, parts = dict.fromkeys(rows_of_model, 0.0), dict.fromkeys(("matrix", "trees", "predictions"), 0.0)
    for spec in specs:
        if spec.outside:
            rows_of_model[spec.model_id][:] = features.member(spec.group, first, last)
    for task, trained in zoo.run(zoo.fold_tasks(specs), on_model, keep=False):
        where = covered.span(task.predict_first, task.predict_last)
        for name, prediction_N in trained.predictions.items():
            rows_of_model[name][where] = prediction_N
            seconds[name] += trained.seconds[name]
        for part, taken in zip(parts, trained.parts, strict=True):
            parts[part] += taken
    return OutOfFold(first, last, rows_of_model, seconds, parts)


def _scratch(shape: tuple[int, int], folder: Path | None) -> Float32s:
    if folder is None or 0 in shape:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:
        # A full disk is an error here; in a mapped file with holes it would be a signal that ends the process.
        os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
        return np.memmap(file, np.float32, "r+", shape=shape)


@dataclass(frozen=True, eq=False)
class OofScores:
    """Out-of-fold scores that selection may see.

    Attributes:
        eras: the E eras.
        scores_ME: numerai_corr per model and era, NaN for a constant prediction.
        similarity_MM: mean over eras of the correlation of the models' gaussianized predictions.
        beyond: "mmc" or "bmc" -> contribution per model and era [M, E], NaN in eras without the reference.
    """

    eras: tuple[int, ...]
    scores_ME: NDArray[np.float64]
    similarity_MM: NDArray[np.float64]
    beyond: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def score_out_of_fold(
    oof: OutOfFold,
    features: Features,
    target: str,
    newest: int,
    ops: Kernels,
    references: Mapping[str, NDArray[np.float64]] | None = None,
) -> OofScores:
    """Score every model on the out-of-fold eras up to `newest` that have labels.

    Args:
        oof: out-of-fold predictions of M models.
        features: gives labels and eras.
        target: the main target.
        newest: newest era whose label may be seen.
        ops: the kernels' namespace.
        references: "mmc" or "bmc" -> predictions [N] of all rows of the store to measure contributions against.
    """
    whole, references = features.store.index, references or {}
    index = features.store.index.select(oof.first_era, oof.last_era)
    scores: list[NDArray[np.float64]] = []
    beyond: dict[str, list[NDArray[np.float64]]] = {name: [] for name in references}
    eras: list[int] = []
    similarity_MM = np.zeros((len(oof.values), len(oof.values)))
    for era in index.select(oof.first_era, newest):
        label_N = features.labels(target, era, era)
        if np.isnan(label_N).all():
            continue
        base_MN = oof.era(index, era)
        scores.append(on_host(ops.numerai_corr(base_MN, label_N, one_era(label_N.size)))[:, 0])
        for name, reference_N in references.items():
            reference_n = reference_N[whole.rows_of(era)]
            beyond[name].append(on_host(ops.contribution(base_MN, reference_n, label_N, one_era(label_N.size)))[:, 0])
        z_MN = gaussianize(base_MN, ops)
        similarity_MM += correlation(on_host(ops.gram(z_MN, one_era(label_N.size)))[0])
        eras.append(era)
    stacked = {name: np.stack(values, axis=1) for name, values in beyond.items()}
    return OofScores(tuple(eras), np.stack(scores, axis=1), similarity_MM / len(eras), stacked)


def correlation(gram_MM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations [M, M] from a Gram matrix; 0 where a model is constant."""
    scale_M = np.sqrt(np.diag(gram_MM))
    safe_M = np.where(scale_M > 0, scale_M, np.inf)
    correlation_MM: NDArray[np.float64] = gram_MM / np.outer(safe_M, safe_M)
    return correlation_MM
