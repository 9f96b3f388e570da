"""A run folder in Python: its files as frames, its report, comparisons with others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from eravane.core.config import RunConfig
from eravane.core.errors import RunError
from eravane.core.files import Place
from eravane.data.parquet import read_table
from eravane.report import Comparison, RunView, compare, load_run
from eravane.report.facts import judgeable_eras
from eravane.runstate.runfolder import RunFolder


class Run:
    """A run folder, finished or not; every file is read when it is asked for.

    Args:
        path: the folder.

    Raises:
        RunError: the folder is no run.
    """

    def __init__(self, path: Place) -> None:
        self.path = Path(path)
        self._view: RunView = load_run(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {'finished' if self.finished else 'unfinished'})"

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self._view.finished

    @cached_property
    def config(self) -> RunConfig:
        """The configuration it was started with."""
        return RunFolder.open(self.path).config()

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Versions, device, data fingerprint, seed, periods, lags, notes and warnings."""
        return self._view.manifest

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The headline, as in metrics.json."""
        return self._view.metrics

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the base models in the ensemble."""
        return self._view.models

    @property
    def zoo(self) -> pd.DataFrame:
        """Every base model: cell, scores, kept or not and why."""
        return self._view.table("zoo")

    @property
    def scores(self) -> pd.DataFrame:
        """CORR by era number (index) of the ensemble, its rivals and every base model."""
        return self._view.table("scores")

    @property
    def weights(self) -> pd.DataFrame:
        """Weight of every base model by era number (index), and how many ran."""
        return self._view.table("weights")

    @property
    def predictions(self) -> pd.DataFrame:
        """The ensemble's predictions in the loop: id, era (as "0001"), prediction in (0, 1).

        Raises:
            RunError: the run has none yet.
        """
        return self._rows("predictions.parquet")

    @property
    def base_predictions(self) -> pd.DataFrame:
        """Raw predictions of every base model in the loop: id, era, a column per model.

        Raises:
            RunError: the run has none yet.
        """
        return self._rows("base_predictions.parquet")

    @property
    def out_of_fold(self) -> pd.DataFrame:
        """Out-of-fold predictions of every base model: id, era, a column per model.

        Raises:
            RunError: the run has none yet.
        """
        return self._rows("oof.parquet")

    @property
    def live_predictions(self) -> pd.DataFrame:
        """Predictions that can be submitted: id, prediction.

        Raises:
            RunError: the run made none.
        """
        path = self.path / "live_predictions.csv"
        if not path.is_file():
            raise RunError(f"{self.path} has no live predictions; the dataset needs a live.parquet when the run starts")
        return pd.read_csv(path, converters={"prediction": float})

    @property
    def report(self) -> Path:
        """Path of report.html."""
        return self.path / "report.html"

    def write_report(self) -> Path:
        """Write report.html again, of an unfinished run from what it has done so far; returns its path."""
        from eravane.pipeline.reporting import report  # loads PyTorch, without which a run is read

        return report(self.path)

    @property
    def judgeable_eras(self) -> int:
        """Eras below which a gain over equal weight cannot be judged."""
        return judgeable_eras(self._view.hac_lag)

    def compare(self, *others: Run | Place) -> Comparison:
        """Paired per-era differences of other runs against this one, with errors that account for overlapping eras.

        Raises:
            RunError: a folder is no run, or no eras are shared.
        """
        paths = [other.path if isinstance(other, Run) else Path(other) for other in others]
        return compare([self.path, *paths])

    def _rows(self, name: str) -> pd.DataFrame:
        path = self.path / name
        if not path.is_file():
            raise RunError(f"{self.path} has no {name} yet; `eravane run --resume` finishes a run")
        return read_table(path).to_pandas(ignore_metadata=True)
