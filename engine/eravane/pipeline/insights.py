"""Tables about a finished run: regimes, exposure, missing features, payout scores, and warnings.

Everything here is computed with hindsight from the run's result files; nothing of it enters a prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.calendar.eras import EraIndex, era_label
from eravane.core.arrays import Floats, on_host
from eravane.core.config import SelectionConfig
from eravane.core.errors import DataError
from eravane.data.catalog import META_COLUMN, META_MODEL, REFERENCES, FeatureCatalog
from eravane.data.features import Features
from eravane.data.parquet import eras_of, open_parquet, read_rows
from eravane.data.store.store import EraStore
from eravane.gate.prototypes import find_regimes, whiten
from eravane.gate.training import REGIMES
from eravane.learners.outside import OUTSIDE
from eravane.report.alerts import warnings
from eravane.runstate.runfolder import MANIFEST, RunFolder
from eravane.scoring.ensemble import gaussianize, one_era
from eravane.zoo.selection import corr_bounds
from eravane_kernels.namespace import Kernels

PAYOUT_SCORES = "references.parquet"
# Evenly spaced eras on which exposure is measured: a year of weekly ones, for any length of the loop.
EXPOSURE_ERAS = 52
# Columns whose exposure is computed at once.
CHUNK = 256
# With fewer out-of-fold eras than a year, good models are hardly distinguishable from lucky ones.
FEW_ERAS = 52
FEW_MODELS = 3


def write_insights(
    folder: RunFolder, features: Features, catalog: FeatureCatalog, data: Path, target: str, ops: Kernels
) -> list[str]:
    """Write `prototypes.parquet`, `exposure.parquet`, `missing.parquet` and, with a meta model, `references.parquet`.

    Args:
        folder: a run whose other result files are written.
        features: the run's store as the models see it.
        catalog: the feature sets and groups of the run.
        data: the dataset's folder.
        target: the target the run is scored on.
        ops: the kernels' namespace.

    Returns:
        Sentences for the manifest's `warnings`.
    """
    zoo, weights = (pq.read_table(folder.path / name).to_pandas() for name in ("zoo.parquet", "weights.parquet"))
    scores = pq.read_table(folder.path / "scores.parquet").to_pandas().set_index("era")
    models = [name for name in weights.columns if name not in ("era", "n_active")]
    rows = _Predictions(folder.path / "predictions.parquet")
    absent = missing_features(features.store)
    folder.write_table("missing.parquet", absent)
    folder.write_table("exposure.parquet", exposure(rows, features, catalog, ops))
    regimes = pa.table({"era": [], "prototype": [], "x": [], "y": []})
    count = REGIMES
    if len(scores) > count:
        regimes = regime_map(scores.index.tolist(), np.nan_to_num(scores[models].to_numpy(dtype=np.float64)), count)
    folder.write_table("prototypes.parquet", regimes)
    damaged, noted = [], folder.read_json(MANIFEST)["data"].get(REFERENCES, [])
    if (data / META_MODEL).exists() or META_MODEL in noted:
        base = folder.path / "base_predictions.parquet"
        try:
            folder.write_table(PAYOUT_SCORES, payout_scores(rows, base, models, features, data, target, ops))
        except DataError as error:
            (folder.path / PAYOUT_SCORES).unlink(missing_ok=True)  # an older one is not of these predictions
            damaged.append(f"no scores against the meta model: {error}")
    selection = folder.config().selection
    return [*damaged, *warnings(folder.path), *_warnings(zoo, selection, absent, features.store, rows.index)]


class _Predictions:
    """The ensemble's predictions in the loop, era by era."""

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path, columns=["id", "era", "prediction"])
        self.index = EraIndex.from_rows(eras_of(path, table["era"]).tolist())
        self.values = table["prediction"].to_numpy()
        self.ids = table["id"]

    def spaced(self, count: int) -> Iterator[int]:
        """At most `count` eras, evenly spaced, the first and the last among them."""
        places = np.unique(np.linspace(0, len(self.index) - 1, count).round().astype(np.int64))
        return iter(self.index.labels[places].tolist())


def missing_features(store: EraStore) -> pa.Table:
    """Number of features without information per era: level 2 (or missing) in every row, or NaN in every row."""
    return pa.table({"era": [era_label(era) for era in store.index], "n_missing": store.blank().sum(axis=1)})


def exposure(rows: _Predictions, features: Features, catalog: FeatureCatalog, ops: Kernels) -> pa.Table:
    """Correlation of the ensemble with the features of every cell, over at most `EXPOSURE_ERAS` eras of the loop.

    `mean` is the mean over eras and features of the absolute correlation, `max` the mean over eras of the largest one
    (Numerai's maximum feature exposure). Features that are constant or incomplete in an era do not count there.
    """
    found_EF = np.stack([_exposure_of(rows, era, features, catalog.columns, ops) for era in rows.spaced(EXPOSURE_ERAS)])
    places = {name: place for place, name in enumerate(catalog.columns)}
    table: dict[str, list[object]] = {"feature_set": [], "group": [], "mean": [], "max": []}
    for cell in catalog.cells():
        cell_EF = found_EF[:, [places[name] for name in cell.columns]]
        known_E = np.isfinite(cell_EF).any(axis=1)
        if known_E.any():
            values = (cell.feature_set, cell.group, np.nanmean(cell_EF), np.nanmax(cell_EF[known_E], axis=1).mean())
            for name, value in zip(table, values, strict=True):
                table[name].append(value)
    return pa.table(table)


def _exposure_of(rows: _Predictions, era: int, features: Features, columns: Sequence[str], ops: Kernels) -> Floats:
    """Absolute correlation of the prediction with every column in one era, NaN where it is undefined."""
    p_MN = rows.values[rows.index.rows_of(era)][None]
    found_F = np.full(len(columns), np.nan)
    all_CN = features.era(era, columns).values[: len(columns)]
    for start in range(0, len(columns), CHUNK):
        values_CN = all_CN[start : start + CHUNK]
        bad_F = values_CN.min(axis=1) < 0 if values_CN.dtype == np.int8 else np.isnan(values_CN).any(axis=1)
        whole = np.flatnonzero(~on_host(bad_F))
        if whole.size:
            x_FN = values_CN if whole.size == len(values_CN) else _rows(values_CN, whole)
            found_F[start + whole] = np.abs(on_host(ops.exposure(p_MN, x_FN, one_era(p_MN.shape[1])))[0, :, 0])
    return found_F


def _rows(values_CN: Any, which: NDArray[np.intp]) -> Any:
    """Some columns of an era, contiguous, on its device."""
    if isinstance(values_CN, np.ndarray):
        return np.ascontiguousarray(values_CN[which])
    return np.stack([values_CN[place] for place in which.tolist()])


def regime_map(eras: Sequence[str], scores_EM: Floats, count: int) -> pa.Table:
    """Regimes among scored eras, and a plane in which they lie apart.

    Eras are clustered by the base models' scores (see `find_regimes`); the plane is spanned by the directions in which
    the whitened centres differ most (linear discriminants), signs fixed by the largest entry.
    """
    vectors_EM = whiten(scores_EM)
    regime_E, _ = find_regimes(vectors_EM, count)
    centres_PM = np.stack([vectors_EM[regime_E == p].mean(axis=0) for p in np.unique(regime_E)])
    shares_P = np.bincount(regime_E)[np.unique(regime_E)] / len(regime_E)
    _, _, directions_DM = np.linalg.svd(np.sqrt(shares_P)[:, None] * centres_PM, full_matrices=True)
    axes_DM = np.zeros((2, vectors_EM.shape[1]))
    axes_DM[: min(2, len(directions_DM))] = directions_DM[:2]
    largest_D = np.take_along_axis(axes_DM, np.abs(axes_DM).argmax(axis=1)[:, None], axis=1)
    plane_ED = vectors_EM @ (axes_DM * np.where(largest_D < 0, -1.0, 1.0)).T
    return pa.table({"era": list(eras), "prototype": regime_E, "x": plane_ED[:, 0], "y": plane_ED[:, 1]})


def payout_scores(
    rows: _Predictions, base: Path, models: Sequence[str], features: Features, data: Path, target: str, ops: Kernels
) -> pa.Table:
    """Numerai's MMC of the ensemble and of equal weight in every era that has labels and a meta model."""
    meta = read_rows(data / META_MODEL, [META_COLUMN], eras=set(rows.index))
    meta_N = meta.aligned(META_COLUMN, rows.ids.combine_chunks())
    table: dict[str, list[object]] = {"era": [], "ensemble_mmc": [], "equal_weight_mmc": []}
    base_of = _BasePredictions(base, models)
    for era in rows.index:
        span = rows.index.rows_of(era)
        label_N = features.labels(target, era, era)
        if np.isnan(meta_N[span]).all() or np.isnan(label_N).all():
            continue
        base_MN = base_of(span)
        mixes_MN = np.stack([rows.values[span], on_host(gaussianize(base_MN, ops)).mean(axis=0)])
        scores_M = on_host(ops.contribution(mixes_MN, meta_N[span], label_N, one_era(label_N.size)))[:, 0]
        for name, value in zip(table, (era_label(era), *scores_M.tolist()), strict=True):
            table[name].append(value)
    return pa.table(table)


class _BasePredictions:
    """Predictions of base models, in the rows of the ensemble's; an era is read without the others."""

    def __init__(self, path: Path, models: Sequence[str]) -> None:
        self._file, self._models = open_parquet(path), list(models)
        metadata = self._file.metadata
        self._ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])

    def __call__(self, rows: slice) -> NDArray[np.float32]:
        """float32 [M, N]."""
        first, last = np.searchsorted(self._ends, [rows.start, rows.stop - 1], side="right").tolist()
        table = self._file.read_row_groups(range(first, last + 1), columns=self._models)
        begun = rows.start - (int(self._ends[first - 1]) if first else 0)
        part = table.slice(begun, rows.stop - rows.start)
        return np.stack([part[name].to_numpy() for name in self._models]).astype(np.float32)


def _warnings(
    zoo: pd.DataFrame, selection: SelectionConfig, absent: pa.Table, store: EraStore, loop: EraIndex
) -> Iterator[str]:
    kept, outside = zoo[zoo["selected"]], zoo["learner"] == OUTSIDE
    minimum, _ = corr_bounds(selection, zoo.loc[outside, "corr_mean"].tolist())
    rescued = int((kept.loc[~outside, "corr_mean"] <= minimum).sum())
    if rescued:
        yield f"{rescued} of {len(kept)} selected base models failed selection.minimum_corr: there were no better ones"
    if len(kept) < FEW_MODELS:
        yield f"only {len(kept)} base models were selected: the gate has next to nothing to choose from"
    eras = int(zoo["n_eras"].max())
    if eras < FEW_ERAS:
        yield f"base models were selected on {eras} out-of-fold eras, less than a year"
    n_missing = absent["n_missing"].to_numpy()
    in_loop = n_missing[store.index.positions(loop.first, loop.last)]
    if in_loop.size and in_loop.max() > 0:
        share, most = in_loop.mean() / len(store.columns), in_loop.max() / len(store.columns)
        yield f"features are missing in eras of the loop: {share:.1%} of them on average, {most:.1%} at most"
