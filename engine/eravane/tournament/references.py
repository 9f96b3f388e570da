"""Scores against what only the tournament provides: the meta model, the benchmark models, the neutral features."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from eravane.calendar.eras import era_label
from eravane.core.errors import DataError, EravaneError, RunError
from eravane.data.catalog import BENCHMARKS, FEATURES_JSON, HISTORY, META_COLUMN, META_MODEL, REFERENCES, FeatureCatalog
from eravane.data.parquet import Floats, column_of, eras_of, ids_of, numbers_of, read_table, value_columns
from eravane.data.store.store import EraStore
from eravane.scoring.ensemble import one_era
from eravane.scoring.metrics import Summary, summarise
from eravane_kernels import cpu

logger = logging.getLogger("eravane")

CORR, MMC, CWMM, FNC, BMC = "CORR", "MMC", "CWMM", "FNC", "BMC"
NEUTRAL_SET = "fncv3_features"


@dataclass(frozen=True)
class ReferenceScore:
    """A score of a run over the eras that both the run and the reference cover.

    Attributes:
        metric: CORR, MMC, CWMM, FNC, or BMC with the benchmark's name behind it.
        summary: mean, spread and risk over those eras; `n_eras` counts them.
        first_era, last_era: the range they lie in ("" when there are none).
    """

    metric: str
    summary: Summary
    first_era: str
    last_era: str


def reference_scores(run: Path, data: Path | None = None) -> list[ReferenceScore]:
    """Score a run's predictions against every reference that the dataset folder holds.

    Args:
        run: run folder.
        data: dataset folder; None takes the one that the run was made from.

    Raises:
        RunError: the run folder lacks its manifest or predictions.
        DataError: the dataset has no labels for them.
    """
    return [_summary(metric, series) for metric, series in era_scores(run, data).items()]


def era_scores(run: Path, data: Path | None = None) -> dict[str, pd.Series]:
    """The scores behind `reference_scores`: metric -> score per era number, eras without one left out.

    Definitions as numerai-tools: CORR `numerai_corr`, MMC and BMC `correlation_contribution`, FNC
    `feature_neutral_corr` against the set fncv3_features; CWMM is Pearson's correlation of the prediction as CORR
    transforms it with the raw meta model.

    Raises:
        RunError, DataError: as `reference_scores`.
    """
    scored = _Scored(run, data)
    series = {CORR: scored.each(lambda rows: cpu.numerai_corr(scored.p_MN[:, rows], scored.y_N[rows], _one(rows)))}
    meta_N = scored.column((META_MODEL,), META_COLUMN)
    if meta_N is not None:
        series[MMC] = scored.contribution(meta_N)
        series[CWMM] = scored.each(lambda rows: _cwmm(scored.p_MN[:, rows], meta_N[rows]))
    scored.name_gone()
    for name, benchmark_N in scored.benchmarks().items():
        series[f"{BMC} {name}"] = scored.contribution(benchmark_N)
    series[FNC] = scored.neutral()
    return {metric: values.dropna() for metric, values in series.items() if values.notna().any()}


def tournament_benchmark(metrics: Iterable[str], days: int | None) -> str | None:
    """The metric "BMC name" whose benchmark the tournament's BMC is against: that of the horizon, else the first.

    Args:
        metrics: names as `era_scores` gives them.
        days: trading days of the score; the benchmark's name ends in it (`v53_lgbm_ender60`).
    """
    found = sorted(name for name in metrics if name.split()[0] == BMC)
    return next((name for name in found if days is not None and name.endswith(str(days))), next(iter(found), None))


class _Scored:
    """A run's labelled predictions, era by era, and references brought into their order."""

    def __init__(self, run: Path, data: Path | None) -> None:
        self._manifest = manifest_of(run)
        self._data = data or Path(self._manifest["data"]["path"])
        frame = stored_predictions(run)
        self._ids = pd.Index(frame["id"])
        self.p_MN = frame["prediction"].to_numpy(dtype=np.float64)[None, :]
        era_N = frame["era"].to_numpy()
        self._eras, starts = np.unique(era_N, return_index=True)
        self._spans = [slice(*pair) for pair in zip(starts, [*starts[1:], len(era_N)], strict=True)]
        label_N = self._joined(HISTORY, self._manifest["target"])
        if label_N is None:
            raise DataError(f"{self._data} has no labels {self._manifest['target']!r} for the eras of {run}")
        self.y_N = label_N

    def each(self, score: Callable[[slice], Floats | float]) -> pd.Series:
        """A score of every era, from its rows; NaN where it is undefined."""
        values = [float(np.ravel(score(rows))[0]) for rows in self._spans]
        return pd.Series(values, index=self._eras)

    def contribution(self, reference_N: Floats) -> pd.Series:
        """MMC or BMC against a reference."""
        return self.each(
            lambda rows: cpu.contribution(self.p_MN[:, rows], reference_N[rows], self.y_N[rows], _one(rows))
        )

    def column(self, files: Sequence[str], name: str) -> Floats | None:
        """A reference in the order of the predictions, NaN where it has no row; None without a sound file or rows."""
        present = [file for file in files if (self._data / file).exists()]
        try:
            found = self._joined(files, name)
        except DataError as error:
            _warn(name, error)
            return None
        if found is None and present:
            _warn(name, f"{' and '.join(present)} of {self._data} have no value in a row that the run predicts")
        return found

    def name_gone(self) -> None:
        """Log which files of references the run's dataset had and has no more."""
        noted = str(self._manifest["data"].get(REFERENCES))
        for file in (META_MODEL, *BENCHMARKS):
            if file in noted and not (self._data / file).exists():
                _warn(file, f"it is not in {self._data}, and the run's dataset had it; `eravane fetch` gets it again")

    def benchmarks(self) -> dict[str, Floats]:
        """Every benchmark model of the dataset, in the order of the predictions."""
        names: dict[str, None] = {}
        for file in BENCHMARKS:
            if (self._data / file).exists():
                try:
                    names |= dict.fromkeys(value_columns(self._data / file))
                except DataError as error:
                    _warn(file, error)
        found = {name: self.column(BENCHMARKS, name) for name in sorted(names)}
        return {name: values for name, values in found.items() if values is not None}

    def neutral(self) -> pd.Series:
        """FNC; nothing where the run's store lacks one of the neutral features."""
        features = self._neutral_features
        if features is None:
            return pd.Series(np.nan, index=self._eras)
        store, columns = features

        def score(era: int, rows: slice) -> float:
            window = store.window(era, era, columns)
            place_of = pd.Index(store.ids(era, era).to_pylist()).get_indexer(self._ids[rows])
            values_FN = np.ascontiguousarray(window.frame().values[:, place_of])
            if (place_of < 0).any():
                return np.nan
            found = cpu.feature_neutral_corr(self.p_MN[:, rows], values_FN, self.y_N[rows], _one(rows))
            return float(found[0, 0])

        scored = [
            score(int(era), rows) if not np.isnan(self.y_N[rows]).all() else np.nan
            for era, rows in zip(self._eras, self._spans, strict=True)
        ]
        return pd.Series(scored, index=self._eras)

    @cached_property
    def _neutral_features(self) -> tuple[EraStore, list[str]] | None:
        try:
            columns = FeatureCatalog.load(self._data / FEATURES_JSON, sets=(NEUTRAL_SET,)).columns
            store = EraStore.open(self._manifest["data"]["store"])
        except EravaneError as error:
            _warn(NEUTRAL_SET, error)
            return None
        return (store, list(columns)) if set(columns) <= set(store.columns) else None

    def _joined(self, files: Sequence[str], column: str) -> Floats | None:
        """A column of the files that have it, by id; None when no prediction has a value."""
        paths, ids = [self._data / name for name in files], pa.array(self._ids.tolist(), type=pa.large_string())
        values = column_of(paths, column, ids, eras={int(era) for era in self._eras})
        if values is None and column == META_COLUMN and paths[0].exists():
            raise DataError(f"{paths[0]} has no column {column!r}; it has {', '.join(value_columns(paths[0])[:4])}")
        return None if values is None or np.isnan(values).all() else values


def _warn(what: str, error: Exception | str) -> None:
    """Log that a damaged file leaves out the scores that need it."""
    logger.warning("no score against %s: %s", what, error)


def stored_predictions(run: Path) -> pd.DataFrame:
    """Predictions of a run: id, era (its number) and prediction (float64), in era order.

    Raises:
        RunError: it has no predictions, or they are damaged.
    """
    path = run / "predictions.parquet"
    if not path.is_file():
        raise RunError(f"{run} has no predictions.parquet; `eravane run` writes it")
    try:
        ids, eras, predictions = read_table(path, ["id", "era", "prediction"])
        frame = pd.DataFrame(
            {
                "id": ids_of(path, ids, "id").to_pylist(),
                "era": eras_of(path, eras),
                "prediction": numbers_of(path, predictions, "prediction").astype(np.float64),
            }
        )
        if frame["prediction"].isna().any():
            raise DataError(f"{path}: the prediction of row {int(frame['prediction'].isna().argmax())} is missing")
    except DataError as error:
        raise RunError(f"{error} (it is damaged: run again into a new folder)") from None
    return frame.sort_values("era", kind="stable")


def manifest_of(run: Path) -> Mapping[str, Any]:
    """A run's manifest, checked to name its dataset, store and target.

    Raises:
        RunError: it is missing or damaged.
    """
    path = run / "manifest.json"
    try:
        noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = noted["data"]["path"], noted["data"]["store"], noted["target"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{path} is missing or damaged; give the folder of a finished run") from None
    return noted


def _one(rows: slice) -> NDArray[np.int64]:
    return one_era(rows.stop - rows.start)


def _cwmm(p_MN: NDArray[np.float64], meta_N: Floats) -> float:
    known = ~np.isnan(meta_N)
    if known.sum() < 2 or meta_N[known].min() == meta_N[known].max():
        return np.nan
    z_N = cpu.gaussianize(p_MN[:, known], one_era(int(known.sum())))[0]
    powered_N = np.sign(z_N) * np.abs(z_N) ** 1.5
    return float(np.corrcoef(powered_N, meta_N[known])[0, 1]) if powered_N.std() > 0 else np.nan


def _summary(metric: str, series: pd.Series) -> ReferenceScore:
    eras = [int(era) for era in series.index]
    return ReferenceScore(metric, summarise(series.to_numpy()), era_label(min(eras)), era_label(max(eras)))
