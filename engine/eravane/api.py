"""The Python interface: run a batch, open a run; the command line uses nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from eravane.core.config import RunConfig, load_config, parse_config, read_toml, translate_config
from eravane.core.errors import DataError, RunError
from eravane.core.events import Progress
from eravane.report import Comparison, RunView, compare, load_run, write_report
from eravane.runstate.runfolder import RunFolder

Place = str | PathLike[str]


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
        """What can be submitted: id, prediction.

        Raises:
            RunError: the run made none.
        """
        path = self.path / "live_predictions.csv"
        if not path.is_file():
            raise RunError(f"{self.path} has no live predictions; the dataset needs a live.parquet when the run starts")
        return pd.read_csv(path)

    @property
    def report(self) -> Path:
        """Path of report.html."""
        return self.path / "report.html"

    def write_report(self) -> Path:
        """Write report.html again and return its path."""
        return write_report(self.path)

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
        return pq.read_table(path).to_pandas(ignore_metadata=True)


def run(
    config: RunConfig | Mapping[str, Any] | Place | None = None,
    *,
    data: Place,
    out: Place,
    resume: bool = False,
    cache: Place | None = None,
    progress: Progress | None = None,
    rebuild_store: bool = False,
) -> Run:
    """Run the whole batch, from a dataset to live predictions and a report.

    Args:
        config: a configuration, its tables as a mapping, the path of a TOML file, or None for all defaults (with
            `resume`: for the run's own).
        data: folder with Numerai's parquet files and features.json, or a store made by `eravane ingest`.
        out: run folder to make; with `resume` one that was interrupted.
        resume: continue an interrupted run; the outcome is the same as without the interruption.
        cache: folder of stores and finished boosters, shared by runs (None: $ERAVANE_CACHE, else ~/.cache/eravane).
        progress: shows the progress; None shows nothing.
        rebuild_store: delete the cached store of this data and ingest again; for data whose old eras changed.

    Raises:
        ConfigError: the configuration is wrong or does not fit the data.
        DataError: the files break the dataset's contract.
        RunError: the run folder exists already, belongs to another run, or cannot be written.
        DeviceError: the device asked for does not work.
    """
    from eravane.pipeline import batch

    if Path(data).is_file():
        raise DataError(f"{data} is a file; give the folder that holds it and features.json, or a store")
    found = None if cache is None else Path(cache)
    done = batch.run(
        Path(data),
        as_config(config, Path(out) if resume else None),
        Path(out),
        resume=resume,
        cache=found,
        progress=progress,
        rebuild_store=rebuild_store,
    )
    return Run(done.path)


def load(run: Place) -> Run:
    """Open a run folder, finished or not.

    Raises:
        RunError: the folder is no run.
    """
    return Run(run)


def as_config(config: RunConfig | Mapping[str, Any] | Place | None, resumed: Path | None = None) -> RunConfig:
    """A configuration from whatever `run` takes.

    Args:
        config: a configuration, its tables, a TOML file, or None for all defaults.
        resumed: a run folder that is gone on with: its edition says what keys that are left out mean, and None is its
            own configuration.

    Raises:
        ConfigError: a key or value is wrong, or the file cannot be read.
        RunError: the run folder is none, or damaged.
    """
    if isinstance(config, RunConfig):
        return config
    if resumed is None:
        tables: Mapping[str, Any] = {} if config is None else config if isinstance(config, Mapping) else {}
        return load_config(Path(config)) if isinstance(config, str | PathLike) else parse_config(dict(tables))
    begun = RunFolder.open(resumed).config()
    if config is None:
        return begun
    tables = config if isinstance(config, Mapping) else read_toml(Path(config))
    return translate_config(dict(tables), "configuration", begun.edition).config
