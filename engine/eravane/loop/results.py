"""Results of a run: running scores, and files assembled from its journal (predictions, weights, scores, headline)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.calendar.clock import KnownAt
from eravane.calendar.eras import era_label
from eravane.calendar.timeline import Timeline
from eravane.core.arrays import Floats, on_host
from eravane.core.files import replacing
from eravane.core.layout import value_of
from eravane.data.features import Features
from eravane.runstate.journal import EraRecord, Journal
from eravane.runstate.runfolder import RunFolder
from eravane.scoring.ensemble import gaussianize, one_era
from eravane.scoring.metrics import hac_mean, summarise
from eravane_kernels.namespace import Kernels

ENSEMBLE, EQUAL_WEIGHT = "ensemble", "equal_weight"


@dataclass(frozen=True)
class ScoredEra:
    """CORR of every series in one era.

    Attributes:
        era: era number.
        series: ensemble and comparators, by name.
        models_M: float64 [M], the base models.
    """

    era: int
    series: Mapping[str, float]
    models_M: Floats


def score_era(record: EraRecord, label_N: NDArray[np.float32], ops: Kernels) -> ScoredEra:
    """Score a record's stored values with numerai_corr; rows without a label do not count."""
    z_MN = gaussianize(record.base_MN, ops)
    names = [ENSEMBLE, EQUAL_WEIGHT, *(name for name in record.comparators if name != EQUAL_WEIGHT)]
    mixes_KN = ops.mix(z_MN, np.stack([record.comparators[name] for name in names[1:]]))
    offsets = one_era(label_N.size)
    ours_1, series_K, models_M = (
        on_host(ops.numerai_corr(p_MN, label_N, offsets))[:, 0]
        for p_MN in (record.prediction_N[None], mixes_KN, record.base_MN)
    )
    return ScoredEra(record.era, dict(zip(names, [*ours_1.tolist(), *series_K.tolist()], strict=True)), models_M)


def _names(scored: Sequence[ScoredEra]) -> list[str]:
    """Names of all series; an older release compared with others, which later eras lack."""
    return list(dict.fromkeys([ENSEMBLE, EQUAL_WEIGHT, *(name for era in scored for name in era.series)]))


def headline(scored: Sequence[ScoredEra], timeline: Timeline) -> dict[str, Any]:
    """The content of metrics.json, over eras from `report_start` on."""
    counted = [era for era in scored if era.era >= timeline.report_start]
    series = {name: np.array([era.series.get(name, np.nan) for era in counted]) for name in _names(counted)}
    gain = hac_mean(series[ENSEMBLE] - series[EQUAL_WEIGHT], timeline.clock.hac_lag)
    return {
        "series": {name: summarise(values).as_dict() for name, values in series.items()},
        "gain_over_equal_weight": {"mean": gain.mean, "hac_t": gain.t, "n_eras": gain.n_eras},
        "leaking": timeline.clock.leaking,
    }


@dataclass(frozen=True)
class ResultFiles:
    """Writes every file that follows from a run's journal, at any time, also for an unfinished run.

    Attributes:
        folder: the run folder.
        features: labels and row ids.
        model_ids: the M base models of the loop.
        timeline: periods and lags.
        target: the main target.
        ops: the kernels' namespace.
        known_at: labels that arrived later than the lags.
    """

    folder: RunFolder
    features: Features
    model_ids: tuple[str, ...]
    timeline: Timeline
    target: str
    ops: Kernels
    known_at: KnownAt = field(default_factory=KnownAt)

    def write(self, journal: Journal) -> dict[str, Any]:
        """Write predictions, weights, scores and metrics era by era; returns the headline.

        A live era, whose rows are not history yet, is left out.
        """
        weights: list[EraRecord] = []
        scored: list[ScoredEra] = []
        names = pa.schema([("id", pa.string()), ("era", pa.string())])
        base_schema = pa.schema([*names, *((name, pa.float32()) for name in self.model_ids)])
        schema = pa.schema([*names, ("prediction", pa.float64())])
        with (
            self._rows("base_predictions.parquet", base_schema) as base,
            self._rows("predictions.parquet", schema) as predictions,
        ):
            for record in journal:
                if record.era not in self.features.store.index:
                    continue
                ids = self.features.ids(record.era, record.era)
                rows = [ids, pa.array([era_label(record.era)] * len(ids), pa.string())]
                base.write_table(pa.table([*rows, *map(pa.array, record.base_MN)], schema=base_schema))
                predictions.write_table(pa.table([*rows, pa.array(record.prediction_N)], schema=schema))
                weights.append(replace(record, base_MN=record.base_MN[:, :0], prediction_N=record.prediction_N[:0]))
                label_N = self.features.labels(self.target, record.era, record.era)
                if not np.isnan(label_N).all():
                    scored.append(score_era(record, label_N, self.ops))
        self.folder.write_table("weights.parquet", _weight_table(weights, self.model_ids))
        self.folder.write_table("scores.parquet", self._score_table(scored))
        metrics = headline(scored, self.timeline)
        self.folder.write_json("metrics.json", metrics)
        return metrics

    @contextmanager
    def _rows(self, name: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
        with replacing(self.folder.path / name) as file, pq.ParquetWriter(file, schema) as writer:
            yield writer

    def _score_table(self, scored: Sequence[ScoredEra]) -> pa.Table:
        columns: dict[str, object] = {"era": pa.array([era_label(era.era) for era in scored], pa.string())}
        columns |= {
            name: pa.array([era.series.get(name, np.nan) for era in scored], pa.float64()) for name in _names(scored)
        }
        columns |= {
            name: pa.array([float(era.models_M[m]) for era in scored], pa.float64())
            for m, name in enumerate(self.model_ids)
        }
        lag = self.timeline.clock.score_lag
        known = [max(era.era + lag, self.known_at.of(self.target, era.era)) for era in scored]
        return pa.table({**columns, "known_at": pa.array(known, pa.int64())})


def _weight_table(records: Sequence[EraRecord], model_ids: Sequence[str]) -> pa.Table:
    weights = np.array([record.weights_M for record in records]).reshape(len(records), len(model_ids))
    columns: dict[str, object] = {"era": pa.array([era_label(record.era) for record in records], pa.string())}
    columns |= {name: weights[:, m] for m, name in enumerate(model_ids)}
    columns["n_active"] = pa.array([int(record.open_M.sum()) for record in records], pa.int64())
    return pa.table(columns)


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

    def restore(self, state: Mapping[str, object]) -> None:
        """Restore from `state`.

        Raises:
            LayoutError: it is something else.
        """
        sums = value_of(state, "sums", dict)
        self._eras = value_of(state, "eras", int)
        self._sums = {name: float(value_of(sums, name, (int, float))) for name in self._sums}
