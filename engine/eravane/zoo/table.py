"""Writes zoo.parquet and oof.parquet, the zoo's files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eravane.calendar.eras import era_label
from eravane.core.config import ZooConfig
from eravane.core.files import replacing
from eravane.data.features import Features
from eravane.learners.outside import OUTSIDE
from eravane.scoring.metrics import hac_mean, summarise
from eravane.zoo.oof import OofScores, OutOfFold
from eravane.zoo.selection import Verdict

# Rows of a row group of oof.parquet; one is held in memory at a time.
GROUP_ROWS = 1 << 18


def zoo_table(
    verdicts: Sequence[Verdict],
    scores: OofScores,
    config: ZooConfig,
    seconds: Mapping[str, float],
    *,
    device: str,
    hac_lag: int,
) -> pa.Table:
    """Table of all base models: specification, out-of-fold scores, and whether and why each was kept.

    Columns ending in _se are HAC standard errors over eras; `criterion` is the mean of what models were ranked by.
    """
    specs, summaries = [verdict.spec for verdict in verdicts], [verdict.summary for verdict in verdicts]
    columns: dict[str, list[object]] = {
        "model_id": [spec.model_id for spec in specs],
        "feature_set": [spec.feature_set for spec in specs],
        "group": [spec.group for spec in specs],
        "target": [spec.target for spec in specs],
        "learner": [OUTSIDE if spec.outside else config.learner for spec in specs],
        "n_features": [0 if spec.outside else len(spec.columns) for spec in specs],
        "n_trees": [0 if spec.outside else config.trees for spec in specs],
        "corr_mean": [summary.corr_mean for summary in summaries],
        "corr_std": [summary.corr_std for summary in summaries],
        "sharpe": [summary.sharpe for summary in summaries],
        "max_drawdown": [summary.max_drawdown for summary in summaries],
        "selected": [verdict.selected for verdict in verdicts],
        "reason": [verdict.reason for verdict in verdicts],
        "seconds": [seconds[spec.model_id] for spec in specs],
        "n_eras": [summary.n_eras for summary in summaries],
        "corr_se": [verdict.corr.se for verdict in verdicts],
        "sharpe_se": [verdict.sharpe_se for verdict in verdicts],
        "criterion": [verdict.criterion.mean for verdict in verdicts],
        "criterion_se": [verdict.criterion.se for verdict in verdicts],
        "device": ["" if spec.outside else device for spec in specs],
    }
    for name, values_ME in scores.beyond.items():
        columns[f"{name}_mean"] = [summarise(values_E).corr_mean for values_E in values_ME]
        columns[f"{name}_se"] = [hac_mean(values_E, hac_lag).se for values_E in values_ME]
    return pa.table(columns)


def write_oof(path: Path, oof: OutOfFold, features: Features) -> None:
    """Write oof.parquet row group by row group: out-of-fold predictions of every base model, selected or not."""
    era_N = features.era_of_rows(oof.first_era, oof.last_era)
    ids = features.ids(oof.first_era, oof.last_era)
    labels = {int(era): era_label(int(era)) for era in np.unique(era_N)}
    schema = pa.schema([("id", pa.string()), ("era", pa.string()), *((name, pa.float32()) for name in oof.values)])
    with replacing(path) as file, pq.ParquetWriter(file, schema) as writer:
        for start in range(0, era_N.size, GROUP_ROWS):
            rows = slice(start, start + GROUP_ROWS)
            columns = [
                ids[rows.start : rows.stop],
                pa.array([labels[era] for era in era_N[rows].tolist()], pa.string()),
            ]
            columns += [pa.array(values[rows]) for values in oof.values.values()]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
