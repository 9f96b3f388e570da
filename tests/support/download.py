"""The files of any week of the kept dataset, its benchmark predictions and meta model among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tests.support.weeks import TRAIN, Weeks

FIRST_WEEK, WEEKS = 40, 8
HERE = "@HERE@"
LIVE = ("live_predictions.csv", "live.json")
LAST = ("predictions.parquet", "weights.parquet", "scores.parquet", "metrics.json")
BENCHMARK, META = "v53_lgbm_ender20", "numerai_meta_model"


class Download:
    """Weekly downloads of a dataset that has predictions of others for every row.

    Args:
        source: folder with train.parquet, validation.parquet and features.json.
    """

    def __init__(self, source: Path) -> None:
        self._weeks = Weeks(source)
        rows = pd.concat([pd.read_parquet(source / f"{name}.parquet") for name in ("train", "validation")])
        features = [name for name in rows if name.startswith("feature")]
        mean_N = rows[features].mean(axis=1).to_numpy()
        noise_2N = np.random.default_rng(11).random((2, len(rows)))
        self._era = rows["era"].astype(int).to_numpy()
        self._others = rows[["era"]].assign(
            **{BENCHMARK: (mean_N / 8 + noise_2N[0] / 2).round(4), META: (mean_N / 8 + noise_2N[1] / 2).round(4)}
        )

    def write(self, folder: Path, last: int) -> Path:
        """Write the files of the week whose live era is `last + 1`."""
        self._weeks.write(folder, last)
        era = self._era
        for name, chosen_N in (
            ("train", era <= TRAIN),
            ("validation", (era > TRAIN) & (era <= last)),
            ("live", era == last + 1),
        ):
            self._others.loc[chosen_N, ["era", BENCHMARK]].to_parquet(folder / f"{name}_benchmark_models.parquet")
        self._others.loc[era <= last, ["era", META]].to_parquet(folder / "meta_model.parquet")
        return folder
